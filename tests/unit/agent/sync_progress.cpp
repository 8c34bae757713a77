// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <random>
#include <vector>

#include "agent/sync_progress.hpp"
#include "extent/extent.hpp"

using namespace blkferry;
using namespace blkferry::agent;

namespace {

constexpr std::uint64_t mib = 1 << 20;

DiskProgress syncing(std::uint16_t slot, std::uint64_t size, std::uint64_t left, SyncKind kind = SyncKind::initial) {
    return {.slot = slot, .active = true, .whole = true, .kind = kind, .left_bytes = left, .size_bytes = size, .all_marked = false};
}
DiskProgress settled(std::uint16_t slot, std::uint64_t size) {
    return {.slot = slot, .active = false, .whole = false, .kind = SyncKind::initial, .left_bytes = 0, .size_bytes = size, .all_marked = false};
}
DiskProgress gap(std::uint16_t slot, std::uint64_t size, std::uint64_t left) {
    return {.slot = slot, .active = true, .whole = false, .kind = SyncKind::initial, .left_bytes = left, .size_bytes = size, .all_marked = false};
}

SyncProgress::Sum need(const SyncProgress& p) {
    const auto sum = p.sum();
    BOOST_REQUIRE(sum.has_value());
    return *sum;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_disk_that_has_finished_still_counts_while_another_syncs) {
    SyncProgress p;
    p.feed(std::vector{syncing(0, 100 * mib, 10 * mib), syncing(1, 900 * mib, 900 * mib)}, 910 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{90 * mib, 1000 * mib}));
    p.feed(std::vector{settled(0, 100 * mib), syncing(1, 900 * mib, 850 * mib)}, 850 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{150 * mib, 1000 * mib}));
    BOOST_TEST((*p.disk(0) == SyncProgress::Sum{100 * mib, 100 * mib}));
    BOOST_TEST((*p.disk(1) == SyncProgress::Sum{50 * mib, 900 * mib}));
    p.feed(std::vector{settled(0, 100 * mib), settled(1, 900 * mib)}, 0);
    BOOST_TEST(!p.sum());
}

BOOST_AUTO_TEST_CASE(what_is_written_again_takes_nothing_back) {
    SyncProgress p;
    p.feed(std::vector{syncing(0, 100 * mib, 40 * mib)}, 40 * mib);
    p.feed(std::vector{syncing(0, 100 * mib, 70 * mib)}, 70 * mib);
    BOOST_TEST(need(p).done_bytes == 60 * mib);
    // The sync is over, a round for what was written meanwhile goes on.
    p.feed(std::vector{gap(0, 100 * mib, 5 * mib)}, 5 * mib);
    const auto flushing = need(p);
    BOOST_TEST(flushing.total_bytes == 100 * mib);
    BOOST_TEST(flushing.done_bytes > 60 * mib);
    BOOST_TEST(flushing.done_bytes < flushing.total_bytes);
}

BOOST_AUTO_TEST_CASE(the_total_is_reached_only_without_backlog) {
    SyncProgress p;
    p.feed(std::vector{syncing(0, 100 * mib, 0)}, 4096);
    BOOST_TEST(need(p).done_bytes == 100 * mib - sector_bytes);
    p.feed(std::vector{syncing(0, 100 * mib, 0)}, 0);
    BOOST_TEST(need(p).done_bytes == 100 * mib - sector_bytes);  // its end is not confirmed
}

BOOST_AUTO_TEST_CASE(a_gap_elsewhere_is_not_of_the_sync) {
    SyncProgress p;
    p.feed(std::vector{syncing(0, 100 * mib, 50 * mib), gap(1, 900 * mib, 30 * mib)}, 80 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{50 * mib, 100 * mib}));
    BOOST_TEST(!p.disk(1));
    // When the sync is over, the gap is a phase of its own.
    p.feed(std::vector{settled(0, 100 * mib), gap(1, 900 * mib, 20 * mib)}, 20 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{0, 20 * mib}));
    p.feed(std::vector{settled(0, 100 * mib), gap(1, 900 * mib, 5 * mib)}, 5 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{15 * mib, 20 * mib}));
    p.feed(std::vector{settled(0, 100 * mib), gap(1, 900 * mib, 25 * mib)}, 25 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{15 * mib, 40 * mib}));
}

BOOST_AUTO_TEST_CASE(a_disk_that_starts_again_begins_a_new_phase) {
    SyncProgress p;
    p.feed(std::vector{syncing(0, 100 * mib, 10 * mib)}, 10 * mib);
    p.feed(std::vector{syncing(0, 100 * mib, 99 * mib, SyncKind::rescan)}, 99 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{1 * mib, 100 * mib}));
    p.feed(std::vector{syncing(0, 100 * mib, 20 * mib, SyncKind::rescan)}, 20 * mib);
    DiskProgress marked = syncing(0, 100 * mib, 120 * mib, SyncKind::rescan);
    marked.all_marked = true;
    p.feed(std::vector{marked}, 100 * mib);
    BOOST_TEST(need(p).done_bytes == 0U);
    p.feed(std::vector{syncing(0, 100 * mib, 60 * mib, SyncKind::rescan)}, 60 * mib);
    BOOST_TEST(need(p).done_bytes == 40 * mib);
}

BOOST_AUTO_TEST_CASE(a_disk_that_is_taken_away_takes_its_part_along) {
    SyncProgress p;
    p.feed(std::vector{syncing(0, 100 * mib, 10 * mib), syncing(1, 900 * mib, 900 * mib)}, 910 * mib);
    p.feed(std::vector{syncing(1, 900 * mib, 800 * mib)}, 800 * mib);
    BOOST_TEST((need(p) == SyncProgress::Sum{100 * mib, 900 * mib}));
}

BOOST_AUTO_TEST_CASE(done_bytes_never_fall_whatever_is_written_meanwhile) {
    for (unsigned seed = 1; seed <= 50; ++seed) {
        std::mt19937_64 random(seed);
        SyncProgress p;
        std::vector<DiskProgress> disks;
        for (std::uint16_t slot = 0; slot < 4; ++slot) {
            const std::uint64_t size = (1 + random() % 1000) * mib;
            disks.push_back(syncing(slot, size, size));
        }
        SyncProgress::Sum before;
        for (unsigned turns = 0; turns < 10'000; ++turns) {
            std::uint64_t backlog = 0;
            bool active = false;
            for (DiskProgress& d : disks) {
                const std::uint64_t shipped = random() % (d.size_bytes / 10 + 1);
                d.left_bytes -= std::min(d.left_bytes, shipped);
                if (d.left_bytes == 0 && random() % 3 == 0)
                    d.active = d.whole = false;
                else if (d.active)
                    d.left_bytes += random() % (d.size_bytes / 30 + 1);
                backlog += d.left_bytes;
                active = active || d.active;
            }
            p.feed(disks, backlog);
            if (!active)
                break;
            const auto now = need(p);
            BOOST_REQUIRE_GE(now.done_bytes, before.done_bytes);
            BOOST_REQUIRE_LT(now.done_bytes, now.total_bytes);
            before = now;
        }
        BOOST_TEST(before.total_bytes > 0U);
        BOOST_TEST(!p.sum());
    }
}
