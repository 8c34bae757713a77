// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "store/hand_off.hpp"

using namespace blkferry;
using namespace blkferry::store;

namespace {

/// An entry whose body is its position, `bytes` long, and that tells when it was freed.
JournalEntry entry(Position position, Position end, std::size_t bytes, std::atomic<int>* alive = nullptr) {
    auto body = std::shared_ptr<std::vector<std::byte>>(
        new std::vector<std::byte>(bytes, static_cast<std::byte>(position)), [alive](std::vector<std::byte>* p) {
            if (alive != nullptr)
                --*alive;
            delete p;
        });
    if (alive != nullptr)
        ++*alive;
    JournalEntry e;
    e.position = position;
    e.end = end;
    e.body = *body;
    e.owner = std::move(body);
    return e;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(hand_off)

BOOST_AUTO_TEST_CASE(entries_come_in_order_and_padding_before_one_belongs_to_it) {
    HandOff h(1000);
    h.push(entry(100, 150, 10));
    h.push(entry(150, 190, 10));
    h.push(entry(4096, 4200, 10));  // behind padding to the end of a block
    BOOST_TEST(h.find(100)->end == 150u);
    BOOST_TEST(h.find(150)->end == 190u);
    BOOST_TEST(h.find(190)->position == 4096u);   // the padding's beginning
    BOOST_TEST(h.find(4000)->position == 4096u);  // within it
    BOOST_TEST(!h.find(4200).has_value());        // not there yet
    BOOST_TEST(h.bytes() == 0u);                  // what lies before is not asked for again
}

BOOST_AUTO_TEST_CASE(a_hole_is_no_answer) {
    HandOff h(25);
    h.push(entry(100, 150, 10));
    h.push(entry(150, 190, 10));
    h.push(entry(190, 230, 10));  // the first goes
    BOOST_TEST(h.bytes() == 20u);
    BOOST_TEST(!h.find(100).has_value());  // to be read from the file: what is here lies behind it
    BOOST_TEST(h.find(150)->end == 190u);
    h.trim();
    BOOST_TEST(h.bytes() == 0u);
    BOOST_TEST(!h.find(190).has_value());
    h.push(entry(230, 270, 10));
    BOOST_TEST(!h.find(190).has_value());  // 190..230 was trimmed
    BOOST_TEST(h.find(230)->end == 270u);
}

BOOST_AUTO_TEST_CASE(a_body_larger_than_all_room_is_not_kept) {
    std::atomic<int> alive{0};
    HandOff h(100);
    h.push(entry(0, 500, 300, &alive));
    BOOST_TEST(h.bytes() == 0u);
    BOOST_TEST(alive == 0);
    h.push(entry(500, 520, 20, &alive));
    BOOST_TEST(h.find(500)->end == 520u);
}

BOOST_AUTO_TEST_CASE(memory_is_bounded_in_bytes_entries_and_batches) {
    std::atomic<int> alive{0};
    HandOff h(1U << 20);
    for (Position at = 0; at < 100'000; ++at) {
        h.push(entry(at * 10, at * 10 + 10, 1, &alive));  // tiny bodies: their number counts, not their bytes
        h.push_batch(at * 10, at * 10 + 10);
    }
    BOOST_TEST(alive <= 16384);
    BOOST_TEST(h.bytes() <= 16384u);
    BOOST_TEST(h.find(999'990)->end == 1'000'000u);
    // Of batches the newest are known, an old one is found in the file.
    BOOST_TEST(!h.batch_end(10).has_value());
    BOOST_TEST(h.batch_end(999'990).value() == 1'000'000u);
}

BOOST_AUTO_TEST_CASE(what_was_given_lives_on) {
    std::atomic<int> alive{0};
    HandOff h(1000);
    h.push(entry(7, 20, 100, &alive));
    {
        const auto held = h.find(7);
        h.trim();
        BOOST_TEST(alive == 1);
        BOOST_TEST((held->body[99] == std::byte{7}));
    }
    BOOST_TEST(alive == 0);
}

BOOST_AUTO_TEST_CASE(batches_are_known_by_their_first_entry_and_outlive_a_trim) {
    HandOff h(1000);
    h.push_batch(100, 300);
    h.push_batch(300, 700);
    BOOST_TEST(!h.batch_end(150).has_value());  // nothing begins there, and what began before is over
    BOOST_TEST(!h.batch_end(100).has_value());
    h.trim();
    BOOST_TEST(h.batch_end(300).value() == 700u);
    BOOST_TEST(h.batch_end(300).value() == 700u);
    BOOST_TEST(!h.batch_end(700).has_value());
}

/// One thread appends, one takes what is there and skips what is not: it never sees an entry twice, out of order or with a
/// foreign body.
BOOST_AUTO_TEST_CASE(two_threads) {
    HandOff h(4096);
    constexpr std::uint64_t wanted = 2000;
    std::atomic<Position> pushed{0};
    std::atomic<bool> wrong{false};
    std::atomic<std::uint64_t> found{0};
    std::thread worker([&] {
        for (Position at = 0; found < wanted && !wrong;) {
            const auto e = h.find(at);
            if (!e) {
                at = std::max(at, pushed.load());  // as after reading the file
                std::this_thread::yield();
                continue;
            }
            wrong = e->position < at || e->body.empty() || e->body[0] != static_cast<std::byte>(e->position);
            ++found;
            at = e->end;
        }
    });
    std::mt19937_64 rng(1);
    for (Position at = 0; found < wanted && !wrong;) {
        const Position end = at + 1 + rng() % 50;
        h.push(entry(at, end, 1 + rng() % 200));
        at = end;
        pushed = at;
        if (rng() % 64 == 0)
            std::this_thread::yield();
    }
    worker.join();
    BOOST_TEST(!wrong);
}

BOOST_AUTO_TEST_CASE(arena_pieces_do_not_overlap_and_keep_their_buffer) {
    BufferPool pool(4096, 2);
    BodyArena arena(pool);
    std::vector<BodyArena::Piece> pieces;
    for (int i = 0; i < 200; ++i) {
        pieces.push_back(arena.take(static_cast<std::size_t>(1 + i * 7 % 1000)));
        std::ranges::fill(pieces.back().bytes, static_cast<std::byte>(i));
    }
    arena.trim();
    for (int i = 0; i < 200; ++i)
        BOOST_TEST(std::ranges::all_of(pieces[static_cast<std::size_t>(i)].bytes, [&](std::byte b) { return b == static_cast<std::byte>(i); }));
    BOOST_TEST(arena.take(4096).bytes.size() == 4096u);
}

BOOST_AUTO_TEST_SUITE_END()
