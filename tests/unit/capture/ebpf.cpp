// SPDX-License-Identifier: Apache-2.0
// The parts of the fallback that need no kernel: the dirty map, the states, what sysfs says. tests/ebpf has the real thing.
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <array>
#include <cerrno>
#include <fstream>
#include <random>
#include <set>
#include <sys/mman.h>

#include <boost/test/unit_test.hpp>

#include "../temp_dir.hpp"
#include "capture/block_sysfs.hpp"
#include "capture/ebpf_tracker.hpp"
#include "capture/ring.hpp"

namespace fs = std::filesystem;
using namespace blkferry;
using namespace blkferry::capture;

BOOST_AUTO_TEST_SUITE(ebpf)

namespace {

struct Map {
    explicit Map(std::uint64_t blocks) : words(fine_words(blocks) + coarse_words(blocks)), snap(fine_words(blocks)) {
        map = {{words.data(), fine_words(blocks)}, {words.data() + fine_words(blocks), coarse_words(blocks)}, blocks};
    }
    std::vector<std::uint64_t> words;
    std::vector<std::uint64_t> snap;
    DirtyWords map;
};

bool bit(const std::vector<std::uint64_t>& snap, std::uint64_t n) {
    return ((snap[n >> 6] >> (n & 63)) & 1) != 0;
}

/// A disk in plain memory; the test plays the kernel's part.
struct Fake {
    static constexpr std::uint64_t sectors = 1000 * 8 + 3;
    Fake() {
        const std::uint64_t blocks = 1001;
        const std::size_t bytes = (fine_words(blocks) + coarse_words(blocks)) * 8;
        Fd fd(::memfd_create("test", MFD_CLOEXEC));
        BOOST_REQUIRE(::ftruncate(fd.get(), 4096) == 0 && bytes <= 4096);
        ProbeMemory m;
        m.words = *Mapping::map(fd.get(), 4096, PROT_READ | PROT_WRITE, 0, "test");
        auto* words = static_cast<std::uint64_t*>(static_cast<void*>(m.words.data()));
        m.dirty = {{words, fine_words(blocks)}, {words + fine_words(blocks), coarse_words(blocks)}, blocks};
        m.disk = &kernel;
        kernel.sectors = sectors;
        kernel.fine_words = fine_words(blocks);
        kernel.block_shift = 3;
        mark_blocks(m.dirty, 0, blocks);
        auto ring = MarkerRing::make({.disk = 0, .dev = device_number(7, 3), .sectors = sectors, .attach_id = Uuid::random()});
        BOOST_REQUIRE(ring.has_value());
        disk.emplace(std::move(*ring), std::move(m));
        disk->set_drained();
        auto reader_ = Ring::open(*disk->ring().open());
        BOOST_REQUIRE_MESSAGE(reader_.has_value(), (reader_ ? "" : reader_.error().text));
        reader.emplace(std::move(*reader_));
    }
    void issue() {
        ++kernel.inflight;
        ++kernel.events;
    }
    void complete(std::uint64_t block) {
        mark_blocks(disk->memory().dirty, block, block + 1);
        ++kernel.events;
        --kernel.inflight;
    }
    void all_shipped() {
        const Extent whole{0, sectors};
        BOOST_REQUIRE(disk->clear({&whole, 1}, std::nullopt));
    }
    /// A round with nothing in between.
    void settle() {
        BOOST_REQUIRE(disk->begin(++seq));
        all_shipped();
        BOOST_REQUIRE(disk->may_end());
        disk->end(++seq);
    }

    bf_probe_disk kernel{};
    std::optional<EbpfDisk> disk;
    std::optional<Ring> reader;
    std::uint64_t seq = 0;
};

void put(const fs::path& file, std::string_view text) {
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
}

/// A loop-like disk under dev/block/7:1.
fs::path make_sysfs(const fs::path& sys) {
    const fs::path dir = sys / "block/loop1";
    put(dir / "size", "2048");
    put(dir / "ro", "0");
    put(dir / "inflight", "       3        5");
    put(dir / "diskseq", "42");
    put(dir / "queue/zoned", "none");
    put(dir / "queue/dax", "0");
    put(dir / "queue/iostats", "1");
    put(dir / "queue/nr_requests", "64");
    put(dir / "queue/logical_block_size", "4096");
    put(dir / "mq/0/nr_tags", "128");
    put(dir / "mq/1/nr_tags", "128");
    fs::create_directories(sys / "dev/block");
    fs::create_directory_symlink(dir, sys / "dev/block/7:1");
    return dir;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_bit_is_in_the_map_or_in_the_snapshot) {
    std::mt19937_64 rng(7);
    for (const std::uint64_t blocks : {std::uint64_t{1}, std::uint64_t{63}, std::uint64_t{64}, std::uint64_t{65}, std::uint64_t{10'000}}) {
        Map m(blocks);
        std::set<std::uint64_t> want;
        for (int i = 0; i < 50; ++i) {
            const std::uint64_t first = rng() % blocks;
            const std::uint64_t past = std::min(blocks, first + 1 + rng() % 200);
            mark_blocks(m.map, first, past);
            for (std::uint64_t b = first; b < past; ++b)
                want.insert(b);
        }
        BOOST_CHECK_EQUAL(count_blocks(m.map), want.size());
        BOOST_CHECK_EQUAL(take_blocks(m.map, m.snap), want.size());
        BOOST_CHECK_EQUAL(count_blocks(m.map), 0U);
        for (std::uint64_t b = 0; b < blocks; ++b)
            BOOST_REQUIRE_EQUAL(bit(m.snap, b), want.contains(b));
        // What is there already is not counted again.
        mark_blocks(m.map, 0, blocks);
        BOOST_CHECK_EQUAL(take_blocks(m.map, m.snap), blocks - want.size());
        BOOST_CHECK_EQUAL(clear_blocks(m.snap, 0, blocks), blocks);
        BOOST_CHECK_EQUAL(clear_blocks(m.snap, 0, blocks), 0U);
    }
}

BOOST_AUTO_TEST_CASE(a_coarse_bit_is_4096_blocks_and_ends_with_the_disk) {
    const std::uint64_t blocks = 3 * 4096 + 100;
    Map m(blocks);
    BOOST_REQUIRE_EQUAL(m.map.coarse.size(), 1U);
    m.map.coarse[0] = 0b1010;
    BOOST_CHECK_EQUAL(count_blocks(m.map), 2 * 4096U);  // an upper bound
    BOOST_CHECK_EQUAL(take_blocks(m.map, m.snap), 4096 + 100U);
    BOOST_CHECK(!bit(m.snap, 4095) && bit(m.snap, 4096) && bit(m.snap, 8191) && !bit(m.snap, 8192) && bit(m.snap, blocks - 1));
    m.map.coarse[0] = ~0ULL;  // bits behind the disk's end
    BOOST_CHECK_EQUAL(take_blocks(m.map, m.snap), 2 * 4096U);
}

BOOST_AUTO_TEST_CASE(begins_with_every_block_dirty_and_no_mark) {
    Fake f;
    const auto st = f.reader->status();
    BOOST_CHECK(st.state == DiskState::bitmap);
    BOOST_CHECK_EQUAL(st.gap_seq, 1U);
    BOOST_CHECK_EQUAL(st.active_blocks, 1001U);
    BOOST_CHECK(!st.consistent_at(1));
    BOOST_CHECK_EQUAL(f.disk->may_end().error().sys_errno, EINVAL);
}

BOOST_AUTO_TEST_CASE(a_round_without_a_write_ends_in_a_consistent_mark) {
    Fake f;
    BOOST_REQUIRE(f.disk->begin(1));
    BOOST_CHECK(f.reader->status().state == DiskState::resync);
    BOOST_CHECK_EQUAL(f.reader->snapshot_summary().sectors, Fake::sectors);
    BOOST_CHECK_EQUAL(f.disk->may_end().error().sys_errno, EBUSY);
    f.all_shipped();
    BOOST_REQUIRE(f.disk->may_end());
    f.disk->end(2);
    const auto st = f.reader->status();
    BOOST_CHECK(st.consistent_at(2) && !st.consistent_at(1));
    // The ring says: SWITCH 1, CUT 2, nothing else.
    CapturedOp op;
    BOOST_REQUIRE(f.reader->refresh() && f.reader->peek(op) == Ring::Peek::ready);
    BOOST_CHECK(op.op == OpKind::epoch_switch && op.seq == 1);
    f.reader->advance();
    BOOST_REQUIRE(f.reader->peek(op) == Ring::Peek::ready);
    BOOST_CHECK(op.op == OpKind::cut && op.seq == 2);
    f.reader->advance();
    BOOST_CHECK(f.reader->peek(op) == Ring::Peek::empty);
}

BOOST_AUTO_TEST_CASE(a_write_in_the_round_or_across_its_beginning_forbids_the_mark) {
    for (const bool before : {false, true}) {
        Fake f;
        if (before)
            f.issue();
        BOOST_REQUIRE(f.disk->begin(1));
        if (!before)
            f.issue();
        f.all_shipped();
        BOOST_CHECK_EQUAL(f.disk->may_end().error().sys_errno, EAGAIN);  // in flight
        f.complete(17);
        BOOST_CHECK_EQUAL(f.disk->may_end().error().sys_errno, EAGAIN);  // written
        BOOST_REQUIRE(f.disk->begin(2));
        BOOST_CHECK_EQUAL(f.reader->snapshot_summary().sectors, 8U);
        f.all_shipped();
        BOOST_REQUIRE(f.disk->may_end());
        f.disk->end(3);
        BOOST_CHECK(f.reader->status().consistent_at(3));
    }
}

BOOST_AUTO_TEST_CASE(a_write_after_the_round_opens_a_gap_behind_the_mark) {
    Fake f;
    f.settle();
    const std::uint64_t mark = f.seq;
    f.issue();
    BOOST_CHECK(!f.disk->quiet());
    f.disk->observe(mark + 1, 0);
    BOOST_CHECK(f.reader->status().consistent_at(mark) && !f.reader->status().consistent_at(mark + 1));
    f.complete(3);
    f.settle();
    BOOST_CHECK(f.reader->status().consistent_at(f.seq));
}

BOOST_AUTO_TEST_CASE(a_write_between_the_last_look_and_the_end_spoils_that_mark) {
    Fake f;
    BOOST_REQUIRE(f.disk->begin(1));
    f.all_shipped();
    BOOST_REQUIRE(f.disk->may_end());
    f.issue();
    f.disk->end(2);
    BOOST_CHECK(!f.reader->status().consistent_at(2));
}

BOOST_AUTO_TEST_CASE(what_may_have_been_overlooked_forbids_marks) {
    Fake f;
    f.settle();
    f.kernel.passthrough = 1;
    f.disk->observe(++f.seq, 0);
    BOOST_CHECK((f.reader->status().flags & BLKFERRY_CTL_UNTRACKED) != 0 && f.reader->status().gap_seq != 0);
    BOOST_REQUIRE(f.disk->begin(++f.seq));
    f.all_shipped();
    BOOST_CHECK_EQUAL(f.disk->may_end().error().sys_errno, EAGAIN);  // the round did not hold the whole disk
    BOOST_REQUIRE(f.disk->mark_dirty({}));
    BOOST_CHECK((f.reader->status().flags & BLKFERRY_CTL_UNTRACKED) == 0);
    BOOST_REQUIRE(f.disk->begin(++f.seq));
    BOOST_CHECK_EQUAL(f.reader->snapshot_summary().sectors, Fake::sectors);
    f.all_shipped();
    BOOST_CHECK(f.disk->may_end());
    f.kernel.full = 1;  // a write in flight that nobody counts
    BOOST_CHECK(!f.disk->may_end());
}

BOOST_AUTO_TEST_CASE(ranges_and_epochs_are_checked) {
    Fake f;
    BOOST_REQUIRE(f.disk->begin(5));
    const Extent one{8, 8};
    BOOST_CHECK_EQUAL(f.disk->clear({&one, 1}, 4).error().sys_errno, ESTALE);
    BOOST_REQUIRE(f.disk->clear({&one, 1}, 5));
    BOOST_CHECK_EQUAL(f.reader->status().snap_blocks, 1000U);
    for (const Extent bad : {Extent{Fake::sectors, 1}, Extent{0, Fake::sectors + 1}, Extent{~0ULL, 2}, Extent{4, 0}}) {
        BOOST_CHECK_EQUAL(f.disk->clear({&bad, 1}, 5).error().sys_errno, EINVAL);
        BOOST_CHECK_EQUAL(f.disk->mark_dirty({&bad, 1}).error().sys_errno, EINVAL);
    }
    // Blocks that are not wholly in the range stay, but the last one, which the disk cuts.
    const Extent part{17, 14};
    BOOST_REQUIRE(f.disk->clear({&part, 1}, 5));
    BOOST_CHECK_EQUAL(f.reader->status().snap_blocks, 1000U);
    const Extent last{8000, 3};
    BOOST_REQUIRE(f.disk->clear({&last, 1}, 5));
    BOOST_CHECK_EQUAL(f.reader->status().snap_blocks, 999U);
}

BOOST_AUTO_TEST_CASE(the_ring_of_markers_is_bounded_and_takes_no_impossible_tail) {
    Fake f;
    for (std::uint32_t i = 0; i < BLKFERRY_DESCS_MIN; ++i) {
        BOOST_REQUIRE(f.disk->ring().room());
        f.disk->append_cut(++f.seq);
    }
    BOOST_CHECK(!f.disk->ring().room() && !f.disk->ring().empty());
    BOOST_REQUIRE(f.reader->refresh());
    CapturedOp op;
    for (std::uint32_t i = 0; i < BLKFERRY_DESCS_MIN; ++i) {
        BOOST_REQUIRE(f.reader->peek(op) == Ring::Peek::ready);
        BOOST_CHECK_EQUAL(op.seq, i + 1);
        f.reader->advance();
    }
    BOOST_REQUIRE(f.reader->ack(BLKFERRY_DESCS_MIN));
    BOOST_CHECK(f.disk->ring().room() && f.disk->ring().empty());
    auto memory = *f.disk->ring().open();
    static_cast<blkferry_cons*>(static_cast<void*>(memory.cons.data()))->tail = 1ULL << 40;
    BOOST_CHECK(!f.disk->ring().room());
}

BOOST_AUTO_TEST_CASE(sysfs_tells_what_can_be_tracked) {
    const test::TempDir dir("sysfs");
    const fs::path disk = make_sysfs(dir.path);
    const std::uint64_t dev = device_number(7, 1);
    const auto facts = read_block_facts(dev, dir.path);
    BOOST_REQUIRE_MESSAGE(facts.has_value(), (facts ? "" : facts.error().text));
    BOOST_CHECK_EQUAL(facts->name, "loop1");
    BOOST_CHECK_EQUAL(facts->sectors, 2048U);
    BOOST_CHECK_EQUAL(facts->logical_block, 4096U);
    BOOST_CHECK_EQUAL(facts->tags, 2 * (128U + 64U));
    BOOST_CHECK_EQUAL(facts->diskseq, 42U);
    BOOST_CHECK_EQUAL(facts->writes_inflight, 5U);
    BOOST_CHECK(facts->counts);
    BOOST_CHECK_EQUAL(all_tags(dir.path), 2 * (128U + 64U));
    BOOST_CHECK_EQUAL(read_block_facts(device_number(7, 2), dir.path).error().sys_errno, ENODEV);

    const auto refused = [&](const char* file, std::string_view text, int err, std::string_view says) {
        put(disk / file, text);
        const auto r = read_block_facts(dev, dir.path);
        BOOST_REQUIRE_MESSAGE(!r.has_value(), file);
        BOOST_CHECK_EQUAL(r.error().sys_errno, err);
        BOOST_CHECK_MESSAGE(r.error().text.find(says) != std::string::npos, r.error().text);
    };
    refused("size", "0", EINVAL, "no medium");
    put(disk / "size", "2048");
    refused("ro", "1", EROFS, "read-only");
    put(disk / "ro", "0");
    refused("queue/zoned", "host-managed", EOPNOTSUPP, "zoned");
    put(disk / "queue/zoned", "none");
    refused("queue/dax", "1", EOPNOTSUPP, "DAX");
    put(disk / "queue/dax", "0");
    refused("partition", "1", EINVAL, "partition");
    fs::remove(disk / "partition");
    fs::remove_all(disk / "mq");
    const auto r = read_block_facts(dev, dir.path);
    BOOST_REQUIRE(!r.has_value());
    BOOST_CHECK_MESSAGE(r.error().text.find("protect the disks below") != std::string::npos, r.error().text);
}

BOOST_AUTO_TEST_CASE(a_loss_is_possible_only_when_every_copy_skipped_one) {
    BlockProbe::Skipped before{{1, 1, 1}, {5, 5, 5}};
    BlockProbe::Skipped now = before;
    now.issue = {900, 700, 1};
    now.complete = {6, 6, 6};  // the table shows those
    BOOST_CHECK(!BlockProbe::may_have_lost(before, now));
    now.issue[2] = 2;
    BOOST_CHECK(BlockProbe::may_have_lost(before, now));
}

BOOST_AUTO_TEST_SUITE_END()
