// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include "fold/encoder.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <thread>

#include <boost/test/unit_test.hpp>

#include "ops.hpp"
#include "proto/frame.hpp"

using namespace blkferry;
using namespace blkferry::fold;
using blkferry::capture::CapturedOp;
using blkferry::capture::OpKind;
using blkferry::fold::test::Payloads;
using proto::ExtentKind;
using proto::FrameType;

namespace {

/// Everything that a receiver learns from the frames of a batch.
struct Received {
    std::vector<FrameType> types;
    std::map<std::pair<std::uint16_t, std::uint64_t>, std::pair<ExtentKind, std::vector<std::byte>>> sectors;
    ExtentSet captured[8];
    std::uint64_t extents = 0;
    std::uint64_t payload_bytes = 0;
    std::size_t body_max = 0;
    proto::BatchEnd end;
};

void receive_extents(std::span<const std::byte> raw, Received& r) {
    auto view = proto::decode_extents(raw);
    BOOST_TEST_REQUIRE(view.has_value());
    std::size_t at = 0;
    for (const proto::ExtentEntry& e : view->entries) {
        ++r.extents;
        if (!proto::is_resync(e.kind))
            r.captured[e.slot].insert(e.extent);
        for (std::uint64_t s = 0; s < e.extent.count; ++s) {
            std::vector<std::byte> bytes;
            if (proto::has_payload(e.kind)) {
                const auto span = view->payload.subspan(at, sector_bytes);
                bytes.assign(span.begin(), span.end());
                at += sector_bytes;
            }
            const bool fresh =
                r.sectors.try_emplace({e.slot, e.extent.sector + s}, e.kind, std::move(bytes)).second;
            BOOST_REQUIRE(fresh);
        }
    }
    BOOST_TEST(at == view->payload.size());
    r.payload_bytes += at;
}

Received receive(std::span<const std::byte> stream, std::uint64_t batch) {
    Received r;
    proto::FrameReader reader;
    reader.feed(stream);
    Decompressor dec;
    std::vector<std::byte> scratch;
    for (;;) {
        proto::FrameReader::View view;
        auto status = reader.next(view);
        BOOST_TEST_REQUIRE(status.has_value());
        if (*status == proto::FrameReader::Status::need_more)
            break;
        BOOST_TEST(view.header.batch == batch);
        BOOST_TEST(view.header.index == r.types.size());
        auto raw = proto::decode_body(view.header, view.wire, dec, scratch);
        BOOST_TEST_REQUIRE(raw.has_value());
        r.types.push_back(view.header.type);
        r.body_max = std::max(r.body_max, raw->size());
        if (view.header.type == FrameType::extents)
            receive_extents(*raw, r);
        if (view.header.type == FrameType::batch_end)
            r.end = proto::decode_batch_end(*raw).value();
    }
    BOOST_TEST(reader.buffered() == 0U);
    return r;
}

std::vector<std::byte> encode_all(const BatchPlan& plan, Codec codec, bool threads = false) {
    std::vector<std::vector<std::byte>> frames(plan.jobs());
    std::vector<JobTotals> totals(plan.jobs());
    const auto work = [&](std::size_t from, std::size_t step) {
        Compressor compressor(codec, 1);
        FrameBuffer scratch;
        FrameBuffer out;
        for (std::size_t i = from; i < plan.jobs(); i += step) {
            totals[i] = plan.encode(i, codec == Codec::none ? nullptr : &compressor, scratch, out);
            frames[i].assign(out.view().begin(), out.view().end());
        }
    };
    if (threads) {
        std::jthread a(work, 0, 2);
        std::jthread b(work, 1, 2);
    } else {
        work(0, 1);
    }
    std::vector<std::byte> stream;
    plan.begin(stream);
    JobTotals sum;
    for (std::size_t i = 0; i < plan.jobs(); ++i) {
        stream.insert(stream.end(), frames[i].begin(), frames[i].end());
        sum += totals[i];
    }
    plan.end(sum, true, stream);
    return stream;
}

void check_end(const Received& r) {
    BOOST_TEST(r.end.extents == r.extents);
    BOOST_TEST(r.end.payload_bytes == r.payload_bytes);
    BOOST_TEST(r.end.consistent);
    std::uint64_t sectors = 0;
    SetDigest digest;
    for (std::uint16_t slot = 0; slot < 8; ++slot) {
        sectors += r.captured[slot].sectors();
        digest.add(slot, r.captured[slot]);
    }
    BOOST_TEST(r.end.sectors == sectors);
    BOOST_TEST(r.end.digest == digest.value());
}

BatchParts parts_of(std::uint64_t batch) {
    BatchParts parts;
    parts.batch = batch;
    parts.begin = {.prev_mark = 10, .mark = 20, .time_ns = 5};
    return parts;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(encoder)

BOOST_AUTO_TEST_CASE(an_empty_batch_has_begin_and_end) {
    auto plan = BatchPlan::make(Folder().finish(), parts_of(3));
    BOOST_TEST_REQUIRE(plan.has_value());
    BOOST_TEST(plan->jobs() == 0U);
    BOOST_TEST(plan->frames() == 2U);
    const Received r = receive(encode_all(*plan, Codec::none), 3);
    BOOST_TEST((r.types == std::vector{FrameType::batch_begin, FrameType::batch_end}));
    check_end(r);
}

BOOST_AUTO_TEST_CASE(frames_come_in_order_with_epochs_and_points) {
    Payloads mem;
    Folder f;
    f.add(mem.write(1, 0, 8));
    BatchParts parts = parts_of(9);
    parts.epoch_begins.push_back({.slot = 1, .seq0 = 9});
    parts.epoch_ends.push_back({.slot = 2, .seq0 = 4});
    parts.points.push_back({.request = 1, .name = "nightly"});
    Piece same{.sector = 100, .data = nullptr, .sectors = 50, .slot = 2, .kind = ExtentKind::resync_same};
    parts.resync.push_back(same);
    auto plan = BatchPlan::make(f.finish(), parts);
    BOOST_TEST_REQUIRE(plan.has_value());
    const Received r = receive(encode_all(*plan, Codec::none), 9);
    BOOST_TEST((r.types == std::vector{FrameType::batch_begin, FrameType::epoch_begin, FrameType::extents,
                                       FrameType::epoch_end, FrameType::point_request, FrameType::batch_end}));
    BOOST_TEST(r.types.size() == plan->frames());
    BOOST_TEST(r.sectors.size() == 58U);
    check_end(r);
}

BOOST_AUTO_TEST_CASE(zero_units_travel_without_payload) {
    Payloads mem;
    Folder f;
    CapturedOp op = mem.write(0, 4, 8 * 10);  // not aligned: units start at sector 8
    std::byte* p = const_cast<std::byte*>(op.data);
    std::fill(p, p + op.payload().size(), std::byte{1});
    std::fill(p + 4 * 512, p + (4 + 16) * 512, std::byte{0});   // sectors 8..23
    std::fill(p + 40 * 512, p + 47 * 512, std::byte{0});        // less than a unit
    f.add(op);
    auto plan = BatchPlan::make(f.finish(), parts_of(1));
    const Received r = receive(encode_all(*plan, Codec::none), 1);
    check_end(r);
    BOOST_TEST(r.extents == 3U);
    BOOST_TEST(r.payload_bytes == (80U - 16U) * 512);
    BOOST_TEST((r.sectors.at({0, 8}).first == ExtentKind::zero));
    BOOST_TEST((r.sectors.at({0, 24}).first == ExtentKind::data));
    BOOST_TEST((r.sectors.at({0, 45}).first == ExtentKind::data));
}

BOOST_AUTO_TEST_CASE(random_batches_arrive_as_folded) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        std::mt19937_64 rng(seed);
        Payloads mem;
        Folder f;
        const auto n = rng() % 300;
        for (std::uint64_t i = 0; i < n; ++i) {
            const auto slot = static_cast<std::uint16_t>(rng() % 3);
            if (rng() % 8 == 0) {
                f.add(mem.payloadless(OpKind::discard, slot, rng() % 100000, 1 + rng() % 5000));
                continue;
            }
            const CapturedOp op =
                mem.write(slot, rng() % 100000, static_cast<std::uint32_t>(1 + rng() % (rng() % 20 == 0 ? 2000 : 32)));
            std::byte* p = const_cast<std::byte*>(op.data);
            for (std::size_t k = 0; k < op.payload().size(); k += 512)
                if (rng() % 2 == 0)
                    std::memset(p + k, static_cast<int>(rng() % 256), 512);
            f.add(op);
        }
        Folded folded = f.finish();
        const std::vector<Piece> pieces = folded.pieces;
        BatchParts parts = parts_of(seed);
        for (std::uint64_t at = 1U << 20; rng() % 4 != 0; at += 4096) {
            Piece p{.sector = at, .data = mem.take(2048 * 512), .sectors = 2048, .slot = 1, .kind = ExtentKind::resync_data};
            parts.resync.push_back(p);
        }
        EncodeOptions options;
        options.frame_payload_bytes = rng() % 2 == 0 ? 128U << 10 : 256U << 10;
        options.detect_zero = rng() % 4 != 0;
        const Codec codec = static_cast<Codec>(rng() % 3);
        std::vector<Piece> all = pieces;
        all.insert(all.end(), parts.resync.begin(), parts.resync.end());
        auto plan = BatchPlan::make(std::move(folded), parts, options);
        BOOST_TEST_REQUIRE(plan.has_value());
        const auto stream = encode_all(*plan, codec, true);
        BOOST_TEST((stream == encode_all(*plan, codec, false)));
        const Received r = receive(stream, seed);
        check_end(r);
        BOOST_TEST(r.body_max <= options.frame_payload_bytes + proto::extents_head_bytes(proto::frame_extents_max));
        std::size_t sectors = 0;
        for (const Piece& p : all) {
            sectors += p.sectors;
            for (std::uint32_t s = 0; s < p.sectors; ++s) {
                const auto& [kind, bytes] = r.sectors.at({p.slot, p.sector + s});
                if (bytes.empty()) {
                    static const std::byte zeroes[512] = {};
                    BOOST_REQUIRE(proto::is_resync(kind) == proto::is_resync(p.kind));
                    if (p.data != nullptr)
                        BOOST_REQUIRE(options.detect_zero && std::memcmp(p.data + s * 512, zeroes, 512) == 0);
                    else
                        BOOST_REQUIRE((kind == p.kind));
                } else {
                    BOOST_REQUIRE((kind == p.kind));
                    BOOST_REQUIRE(std::memcmp(p.data + s * 512, bytes.data(), 512) == 0);
                }
            }
        }
        BOOST_TEST(sectors == r.sectors.size());
    }
}

BOOST_AUTO_TEST_CASE(a_full_batch_keeps_the_limits_with_zero_detection) {
    Payloads mem;
    Folder f;
    const CapturedOp op = mem.write(0, 0, 64);  // half of its units are zero
    std::byte* p = const_cast<std::byte*>(op.data);
    for (std::size_t unit = 0; unit < 8; unit += 2)
        std::fill(p + unit * 4096, p + unit * 4096 + 4096, std::byte{7});
    std::uint64_t at = 0;
    for (;; at += 72) {
        CapturedOp next = op;
        next.sector = at;
        if (!f.fits(next))
            break;
        f.add(next);
    }
    Folded folded = f.finish();
    BOOST_TEST(folded.payload_bytes > proto::batch_payload_bytes_max / 2);
    BatchParts parts = parts_of(1);
    ResyncBudget budget;
    for (;; at += 4096) {
        Piece more{.sector = at, .data = mem.take(0), .sectors = 64, .slot = 0, .kind = ExtentKind::resync_data};
        more.data = op.data;
        if (!budget.take(more))
            break;
        parts.resync.push_back(more);
    }
    auto plan = BatchPlan::make(std::move(folded), parts);
    BOOST_TEST_REQUIRE(plan.has_value());
    BOOST_TEST(plan->frames() <= proto::batch_frames_max);
    JobTotals totals;
    FrameBuffer scratch;
    FrameBuffer out;
    for (std::size_t i = 0; i < plan->jobs(); ++i)
        totals += plan->encode(i, nullptr, scratch, out);
    BOOST_TEST(totals.extents <= proto::batch_extents_max);
    BOOST_TEST(totals.zero_bytes > 0U);
    BOOST_TEST(totals.payload_bytes + totals.zero_bytes == plan->payload_bytes());
}

BOOST_AUTO_TEST_CASE(what_is_out_of_range_is_refused) {
    const auto refused = [](const BatchParts& parts, EncodeOptions options = {}) {
        return !BatchPlan::make(Folder().finish(), parts, options).has_value();
    };
    BOOST_TEST(!refused(parts_of(1)));
    BOOST_TEST(refused(parts_of(0)));
    BatchParts parts = parts_of(1);
    parts.begin.mark = 5;
    BOOST_TEST(refused(parts));
    parts = parts_of(1);
    parts.points.resize(5);
    BOOST_TEST(refused(parts));
    parts = parts_of(1);
    parts.resync.push_back({.sector = 0, .data = nullptr, .sectors = 8, .slot = 0, .kind = ExtentKind::data});
    BOOST_TEST(refused(parts));
    parts.resync[0].kind = ExtentKind::resync_data;  // no payload
    BOOST_TEST(refused(parts));
    parts.resync[0].kind = ExtentKind::resync_zero;
    BOOST_TEST(!refused(parts));
    parts.resync[0].sector = proto::disk_sectors_max - 7;
    BOOST_TEST(refused(parts));
    BOOST_TEST(refused(parts_of(1), {.frame_payload_bytes = 4096}));
    BOOST_TEST(refused(parts_of(1), {.frame_payload_bytes = 1U << 20}));
    parts = parts_of(1);
    for (std::uint64_t i = 0; i <= proto::batch_extents_max; ++i)
        parts.resync.push_back({.sector = i * 2, .data = nullptr, .sectors = 1, .slot = 0, .kind = ExtentKind::resync_zero});
    const auto r = BatchPlan::make(Folder().finish(), parts);
    BOOST_TEST(!r.has_value());
    BOOST_TEST((r.error().code == Errc::no_space));
}

BOOST_AUTO_TEST_SUITE_END()
