// SPDX-License-Identifier: Apache-2.0
#include "fold/folder.hpp"

#include <array>
#include <map>
#include <random>

#include <boost/test/unit_test.hpp>

#include "ops.hpp"

using namespace blkferry;
using namespace blkferry::fold;
using blkferry::capture::CapturedOp;
using blkferry::capture::OpKind;
using blkferry::capture::OpState;
using blkferry::fold::test::Payloads;
using proto::ExtentKind;

namespace {

/// What a sector of a disk holds: kind and the address of its 512 bytes.
struct Owner {
    ExtentKind kind = ExtentKind::data;
    const std::byte* data = nullptr;
    bool operator==(const Owner&) const = default;
};
using Image = std::map<std::pair<std::uint16_t, std::uint64_t>, Owner>;

void draw(Image& image, std::uint16_t slot, std::uint64_t sector, std::uint32_t n, ExtentKind kind, const std::byte* data) {
    for (std::uint32_t i = 0; i < n; ++i)
        image[{slot, sector + i}] = {kind, data == nullptr ? nullptr : data + std::size_t{i} * sector_bytes};
}

void draw(Image& image, const CapturedOp& op) {
    if (op.state != OpState::done || is_marker(op.op))
        return;
    const ExtentKind kind = op.op == OpKind::write    ? ExtentKind::data
                            : op.op == OpKind::zeroes ? ExtentKind::zero
                                                      : ExtentKind::discard;
    draw(image, op.slot, op.sector, op.nr_sectors, kind, op.data);
}

void check_same(const Folded& f, const Image& model) {
    Image got;
    std::uint64_t payload = 0;
    for (std::size_t i = 0; i < f.pieces.size(); ++i) {
        const Piece& p = f.pieces[i];
        if (i > 0) {
            const Piece& q = f.pieces[i - 1];
            BOOST_REQUIRE((q.slot < p.slot || (q.slot == p.slot && q.sector + q.sectors <= p.sector)));
        }
        payload += p.payload_bytes();
        draw(got, p.slot, p.sector, p.sectors, p.kind, p.data);
    }
    BOOST_TEST((got == model));
    BOOST_TEST(f.payload_bytes == payload);
    BOOST_TEST(f.sectors == model.size());
    std::map<std::uint16_t, ExtentSet> sets;
    for (const auto& [at, owner] : model)
        sets[at.first].insert({at.second, 1});
    SetDigest digest;
    for (const auto& [slot, set] : sets) {
        digest.add(slot, set);
        BOOST_TEST((f.set_of(slot).list() == set.list()));
    }
    BOOST_TEST(f.digest == digest.value());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(folder)

BOOST_AUTO_TEST_CASE(last_write_wins_and_cuts_what_is_below) {
    Payloads mem;
    Folder f;
    f.add(mem.write(0, 100, 16));
    const CapturedOp top = mem.write(0, 104, 4);
    f.add(top);
    const Folded out = f.finish();
    BOOST_REQUIRE(out.pieces.size() == 3U);
    BOOST_TEST(out.pieces[1].sector == 104U);
    BOOST_TEST((out.pieces[1].data == top.data));
    BOOST_TEST(out.pieces[2].sector == 108U);
    BOOST_TEST(out.pieces[2].sectors == 8U);
    BOOST_TEST(out.payload_bytes == 16U * 512);
    BOOST_TEST(f.empty());
}

BOOST_AUTO_TEST_CASE(neighbours_in_memory_and_on_disk_join) {
    Payloads mem;
    Folder f;
    f.add(mem.write(0, 0, 8));
    f.add(mem.write(0, 8, 8));
    f.add(mem.write(1, 16, 8));
    BOOST_TEST(f.finish().pieces.size() == 2U);
}

BOOST_AUTO_TEST_CASE(what_did_not_happen_changes_nothing) {
    Payloads mem;
    Folder f;
    for (const OpState s : {OpState::cancelled, OpState::failed, OpState::dirty}) {
        CapturedOp op = mem.write(0, 0, 8);
        op.state = s;
        op.data = nullptr;
        f.add(op);
    }
    CapturedOp cut;
    cut.op = OpKind::cut;
    f.add(cut);
    BOOST_TEST(f.empty());
    const Folded out = f.finish();
    BOOST_TEST(out.pieces.empty());
    BOOST_TEST(out.digest == SetDigest().value());
}

BOOST_AUTO_TEST_CASE(sectors_at_the_far_end_of_the_last_disk) {
    Payloads mem;
    Folder f;
    Image model;
    const std::uint64_t last = proto::disk_sectors_max - 8;
    const std::array<CapturedOp, 5> ops = {mem.write(255, last, 8), mem.write(254, last, 8), mem.write(255, 0, 8),
                                           mem.write(254, last + 4, 4),
                                           mem.payloadless(OpKind::discard, 254, last - 100, 104)};
    for (const CapturedOp& op : ops) {
        f.add(op);
        draw(model, op);
    }
    check_same(f.finish(), model);
}

BOOST_AUTO_TEST_CASE(random_operations_match_the_model) {
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
        std::mt19937_64 rng(seed);
        Payloads mem;
        Folder f;
        Image model;
        const auto disks = 1 + rng() % 4;
        const auto span = 16 + rng() % 2000;
        const bool aligned = rng() % 3 == 0;
        const auto n = rng() % (seed % 10 == 0 ? 3000 : 200);
        for (std::uint64_t i = 0; i < n; ++i) {
            const auto slot = static_cast<std::uint16_t>((rng() % disks) * 60);
            std::uint64_t sector = rng() % span;
            auto count = static_cast<std::uint32_t>(1 + rng() % (rng() % 8 == 0 ? 200 : 20));
            if (aligned) {
                sector &= ~7ULL;
                count = 8;
            }
            CapturedOp op;
            switch (rng() % 8) {
                case 0: op = mem.payloadless(OpKind::discard, slot, sector, count * 5); break;
                case 1: op = mem.payloadless(OpKind::zeroes, slot, sector, count); break;
                case 2: op = mem.payloadless(OpKind::secure_erase, slot, sector, count); break;
                default: op = mem.write(slot, sector, count); break;
            }
            if (rng() % 16 == 0) {
                op.state = OpState::cancelled;
                op.data = nullptr;
            }
            BOOST_TEST_REQUIRE(f.fits(op));
            f.add(op);
            draw(model, op);
        }
        check_same(f.finish(), model);
    }
}

/// Small limits make the folder fold again and again in the middle of a batch, and close it in time.
BOOST_AUTO_TEST_CASE(limits_hold_and_folding_in_steps_changes_nothing) {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        std::mt19937_64 rng(seed);
        Payloads mem;
        const FoldLimits limits{.extents_max = 16 + rng() % 300, .payload_bytes_max = (8U + rng() % 400) << 10};
        Folder f(limits);
        Image model;
        std::size_t batches = 0;
        std::uint64_t in = 0;
        for (int i = 0; i < 1500; ++i) {
            const CapturedOp op = rng() % 10 == 0
                                      ? mem.payloadless(OpKind::zeroes, 0, rng() % 3000, 1 + rng() % 64)
                                      : mem.write(0, rng() % 3000, static_cast<std::uint32_t>(1 + rng() % 16));
            if (!f.fits(op)) {
                BOOST_TEST(f.ops() == in);
                const Folded out = f.finish();
                std::size_t entries = 0;
                for (std::size_t k = 0; k < out.pieces.size(); ++k)
                    entries += k == 0 || !out.pieces[k - 1].continued_by(out.pieces[k]) ? 1U : 0U;
                BOOST_TEST(entries <= limits.extents_max);
                BOOST_TEST(out.payload_bytes <= limits.payload_bytes_max);
                check_same(out, model);
                model.clear();
                in = 0;
                ++batches;
                BOOST_TEST_REQUIRE(f.fits(op));  // an empty batch takes anything
            }
            f.add(op);
            ++in;
            draw(model, op);
        }
        check_same(f.finish(), model);
        BOOST_TEST(batches > 0U);
    }
}

BOOST_AUTO_TEST_CASE(rewriting_few_blocks_never_fills_a_batch) {
    Payloads mem;
    Folder f(FoldLimits{.extents_max = 100, .payload_bytes_max = 1U << 20});
    const CapturedOp op = mem.write(0, 0, 8);
    for (std::uint64_t i = 0; i < 100000; ++i) {
        CapturedOp again = op;
        again.sector = (i * 7 % 50) * 16;
        BOOST_TEST_REQUIRE(f.fits(again));
        f.add(again);
    }
    BOOST_TEST(f.finish().pieces.size() == 50U);
}

BOOST_AUTO_TEST_SUITE_END()
