// SPDX-License-Identifier: Apache-2.0
// What happens to recovery points that go: removal under errors and power cuts, the size of removed.log, damage.
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cerrno>
#include <random>

#include <fmt/format.h>

#include "crash_fs.hpp"
#include "store/point.hpp"

using namespace blkferry;
using namespace blkferry::store;
using blkferry::test::CrashFs;

namespace {

const std::string zeroes(64, '0');
const std::filesystem::path log_path = "/points/removed.log";

/// Points p1, p2, ... of one source in a file system that knows what is durable.
struct Points {
    Points() { open(); }
    void open() {
        auto opened = PointStore::open(fs, "/points", signer.get());
        BOOST_REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().text));
        store = std::move(*opened);
    }
    void publish(std::uint64_t count) {
        for (; count > 0; --count) {
            Manifest m;
            m.serial = head.serial + 1;
            m.name = fmt::format("p{}", m.serial);
            m.source = "web1";
            m.mark = m.serial * 1000;
            m.disks = {{0, Uuid{}, "vda", "", 2048, 512, chunk_bytes_default, m.serial}};
            m.parent_hash = head.serial == 0 ? zeroes : head.hash;
            BOOST_REQUIRE(store->publish(m).has_value());
            head = {m.serial, m.hash()};
        }
    }
    [[nodiscard]] Result<void> remove(std::uint64_t serial) { return store->remove(fmt::format("p{}", serial), serial, head); }
    [[nodiscard]] std::string chain() const {
        const auto r = store->verify_chain(head.serial, head.hash);
        return r ? "" : r.error().text;
    }
    void damage(std::uint64_t serial) {
        auto& text = *fs.contents(fmt::format("/points/p{}.json", serial));
        text[text.size() / 2] ^= std::byte{1};
    }

    CrashFs fs;
    std::unique_ptr<Signer> signer = Signer::generate().value();
    std::unique_ptr<PointStore> store;
    PointHead head;
};

std::vector<std::uint64_t> serials(const Points& p) {
    std::vector<std::uint64_t> out;
    for (const Manifest& m : p.store->list())
        out.push_back(m.serial);
    return out;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(removed)

// A sync that fails leaves a line in memory that looks clean and never reaches the disk. The next life reads it and must not
// believe that it is durable: the manifest would go, the line be lost.
BOOST_AUTO_TEST_CASE(a_line_whose_sync_failed_is_not_believed_in_the_next_life) {
    std::uint64_t failed = 0;
    for (std::uint64_t operation = 1; operation <= 10; ++operation)
        for (std::uint64_t seed = 0; seed < 12; ++seed) {
            BOOST_TEST_CONTEXT("operation " << operation << " seed " << seed) {
                std::mt19937_64 random(seed);
                Points p;
                p.publish(4);
                BOOST_REQUIRE(p.remove(1));
                p.fs.fail_at(operation, EIO);
                failed += p.remove(2) ? 0U : 1U;
                p.fs.process_kill();
                p.open();
                BOOST_TEST(p.chain() == "");
                if (seed % 2 == 0)
                    BOOST_REQUIRE(p.remove(4));
                p.fs.power_cut(random);
                p.open();
                BOOST_TEST(p.chain() == "");
                BOOST_TEST(p.store->damaged().empty());
                BOOST_TEST(!p.store->log_damage());
                const auto left = serials(p);
                BOOST_TEST(std::ranges::count(left, 1) == 0);
                BOOST_TEST(std::ranges::count(left, 3) == 1);
                BOOST_TEST(std::ranges::count(left, 4) == (seed % 2 == 0 ? 0 : 1));
            }
        }
    BOOST_TEST(failed > 0U);
}

// What the user is told is what the next start finds: an error means that the point stays, unless it says otherwise.
BOOST_AUTO_TEST_CASE(a_removal_that_failed_does_not_happen_later) {
    std::uint64_t failed = 0;
    std::uint64_t undecided = 0;
    for (const int troubles : {1, 2, 100})
        for (std::uint64_t operation = 1; operation <= 10; ++operation)
            for (const std::uint64_t seed : {0U, 1U, 2U, 3U}) {
                BOOST_TEST_CONTEXT("operation " << operation << " troubles " << troubles << " seed " << seed) {
                    std::mt19937_64 random(seed);
                    Points p;
                    p.publish(4);
                    BOOST_REQUIRE(p.remove(1));
                    std::uint64_t n = 0;
                    p.fs.trouble = [&](std::string_view, const std::string&) {
                        ++n;
                        return n >= operation && n < operation + static_cast<std::uint64_t>(troubles) ? EIO : 0;
                    };
                    const auto r = p.remove(2);
                    p.fs.trouble = nullptr;
                    const bool decided = r || r.error().text.find("not decided") == std::string::npos;
                    failed += r ? 0U : 1U;
                    undecided += decided ? 0U : 1U;
                    BOOST_TEST(std::ranges::count(serials(p), 2) == (r ? 0 : 1));
                    if (seed == 0)
                        p.fs.process_kill();
                    else
                        p.fs.power_cut(random);
                    p.open();
                    BOOST_TEST(p.chain() == "");
                    if (decided)
                        BOOST_TEST(std::ranges::count(serials(p), 2) == (r ? 0 : 1));
                }
            }
    BOOST_TEST(failed > 0U);
    BOOST_TEST(undecided > 0U);
}

// The name may be used again before the file of the removed point is gone.
BOOST_AUTO_TEST_CASE(a_new_point_in_the_place_of_a_removed_one_stays) {
    Points p;
    p.publish(2);
    p.fs.trouble = [](std::string_view what, const std::string& path) {
        return what == "remove" && path.ends_with("p2.json") ? EIO : 0;
    };
    BOOST_REQUIRE(p.remove(2));
    p.fs.trouble = nullptr;
    BOOST_REQUIRE(p.fs.contents("/points/p2.json") != nullptr);
    Manifest m;
    m.serial = 3;
    m.name = "p2";
    m.source = "web1";
    m.disks = {{0, Uuid{}, "vda", "", 2048, 512, chunk_bytes_default, 3}};
    m.parent_hash = p.head.hash;
    BOOST_REQUIRE(p.store->publish(m).has_value());
    p.head = {3, m.hash()};
    BOOST_REQUIRE(p.remove(1));  // clears what was left
    p.open();
    BOOST_TEST(p.chain() == "");
    BOOST_TEST((serials(p) == std::vector<std::uint64_t>{3}));
}

// One line over several sectors, some of which reached the disk.
BOOST_AUTO_TEST_CASE(a_torn_line_is_as_if_it_had_not_been_written) {
    for (std::uint64_t operation = 1; operation <= 8; ++operation)
        for (std::uint64_t seed = 0; seed < 40; ++seed) {
            BOOST_TEST_CONTEXT("operation " << operation << " seed " << seed) {
                std::mt19937_64 random(seed);
                Points p;
                p.publish(4);
                BOOST_REQUIRE(p.remove(1));
                p.fs.die_at(operation);
                (void)p.remove(2);
                p.fs.power_cut(random);
                p.open();
                BOOST_TEST(p.chain() == "");
                BOOST_TEST(!p.store->log_damage());
                if (std::ranges::count(serials(p), 2) > 0)
                    BOOST_REQUIRE(p.remove(2));
                BOOST_REQUIRE(p.remove(3));
                p.fs.power_cut(random);
                p.open();
                BOOST_TEST(p.chain() == "");
                BOOST_TEST((serials(p) == std::vector<std::uint64_t>{4}));
            }
        }
}

BOOST_AUTO_TEST_CASE(the_log_stays_small_and_the_chain_whole) {
    Points p;
    std::size_t largest = 0;
    for (std::uint64_t i = 1; i <= 1500; ++i) {
        p.publish(1);
        if (i > 5 && i - 5 != 100 && i - 5 != 700)  // two of them are kept for ever
            BOOST_REQUIRE(p.remove(i - 5));
        largest = std::max(largest, p.fs.contents(log_path) == nullptr ? 0 : p.fs.contents(log_path)->size());
    }
    BOOST_TEST(largest < 300 * 500U);
    BOOST_TEST(p.chain() == "");
    p.open();
    BOOST_TEST(p.chain() == "");
    BOOST_TEST(p.store->size() == 7U);
    // What a point in the midst of folded ones names as the one before it still counts.
    BOOST_REQUIRE(p.fs.remove("/points/p700.json"));
    p.open();
    BOOST_TEST(p.chain() == "the recovery point with serial 700 is missing and was never removed");
}

BOOST_AUTO_TEST_CASE(a_crash_while_the_log_is_written_anew_loses_no_line) {
    for (std::uint64_t operation = 1; operation <= 9; ++operation)
        for (std::uint64_t seed = 0; seed < 4; ++seed) {
            BOOST_TEST_CONTEXT("operation " << operation << " seed " << seed) {
                std::mt19937_64 random(seed);
                Points p;
                p.publish(263);
                for (std::uint64_t i = 1; i <= 259; ++i)
                    BOOST_REQUIRE(p.remove(i));
                const auto before = p.fs.contents(log_path)->size();
                if (seed % 2 == 0)
                    p.fs.die_at(operation);
                else
                    p.fs.fail_at(operation, EIO);
                (void)p.remove(260);
                if (seed % 2 == 0)
                    p.fs.power_cut(random);
                else
                    p.fs.process_kill();
                p.open();
                BOOST_TEST(p.chain() == "");
                p.fs.power_cut(random);
                p.open();
                BOOST_TEST(p.chain() == "");
                if (std::ranges::count(serials(p), 260) > 0)
                    BOOST_REQUIRE(p.remove(260));
                BOOST_REQUIRE(p.remove(261));
                BOOST_TEST(p.fs.contents(log_path)->size() < before / 10);
                p.open();
                BOOST_TEST(p.chain() == "");
                BOOST_TEST((serials(p) == std::vector<std::uint64_t>{262, 263}));
            }
        }
}

BOOST_AUTO_TEST_CASE(a_damaged_log_is_told_kept_and_does_not_stop_the_source) {
    Points p;
    p.publish(6);
    for (const std::uint64_t i : {1U, 3U, 5U})
        BOOST_REQUIRE(p.remove(i));
    auto& text = *p.fs.contents(log_path);
    const auto bad = text;
    text[text.size() / 2] ^= std::byte{1};
    p.open();
    BOOST_REQUIRE(p.store->log_damage());
    BOOST_TEST(p.chain() == "the recovery point with serial 3 is missing and was never removed");
    BOOST_TEST((serials(p) == std::vector<std::uint64_t>{2, 4, 6}));
    BOOST_REQUIRE(p.remove(2));
    BOOST_TEST(p.fs.contents("/points/removed.log.damaged-1")->size() == bad.size());
    p.open();
    BOOST_TEST(!p.store->log_damage());
    BOOST_TEST((serials(p) == std::vector<std::uint64_t>{4, 6}));
    BOOST_TEST(p.store->damaged().empty());
}

BOOST_AUTO_TEST_CASE(damaged_points_can_be_removed_and_the_chain_closes) {
    for (const std::vector<std::uint64_t>& bad :
         {std::vector<std::uint64_t>{1}, {3}, {6}, {2, 3}, {5, 6}, {1, 3, 6}, {1, 2, 3, 4, 5, 6}}) {
        Points p;
        p.publish(6);
        for (const std::uint64_t serial : bad)
            p.damage(serial);
        p.open();
        BOOST_TEST(p.store->damaged().size() == bad.size());
        BOOST_TEST(p.chain() != "");
        for (const std::uint64_t serial : bad)
            BOOST_REQUIRE(p.remove(serial));
        BOOST_TEST(p.store->damaged().empty());
        BOOST_TEST(p.chain() == "");
        BOOST_TEST((p.remove(bad[0]).error().code == Errc::not_found));
        p.publish(2);
        p.open();
        BOOST_TEST(p.chain() == "");
        BOOST_TEST(p.store->size() == 8 - bad.size());
        for (const Manifest& m : p.store->list())
            BOOST_REQUIRE(p.store->remove(m.name, 1, p.head));
        BOOST_TEST(p.chain() == "");
    }
}

// A file that never was a point leaves no trace in the chain; a point that vanished is not covered by another's removal.
BOOST_AUTO_TEST_CASE(removing_what_is_damaged_hides_nothing) {
    Points p;
    p.publish(5);
    (void)p.fs.write_text_durable("/points/notes.txt", "hello");
    p.open();
    BOOST_REQUIRE(p.store->damaged().size() == 1U);
    BOOST_REQUIRE(p.store->remove(p.store->damaged()[0].name, 1, p.head));
    BOOST_TEST(p.chain() == "");
    BOOST_TEST(p.fs.contents(log_path) == nullptr);
    BOOST_REQUIRE(p.fs.remove("/points/p2.json"));
    p.damage(4);
    p.open();
    BOOST_REQUIRE(p.remove(4));
    BOOST_TEST(p.chain() == "the recovery point with serial 2 is missing and was never removed");
}

BOOST_AUTO_TEST_CASE(who_only_looks_changes_nothing) {
    Points p;
    p.publish(3);
    p.fs.trouble = [](std::string_view what, const std::string&) { return what == "remove" ? EIO : 0; };
    BOOST_REQUIRE(p.remove(2));  // its line is durable, its manifest stays
    p.fs.trouble = nullptr;
    p.fs.process_kill();
    const auto paths = p.fs.paths();
    const std::uint64_t operations = p.fs.operations();
    const auto looked = PointStore::open(p.fs, "/points", nullptr, PointStore::Access::look).value();
    BOOST_TEST(looked->size() == 2U);
    BOOST_TEST((p.fs.paths() == paths));
    BOOST_TEST(p.fs.operations() == operations);
    p.open();
    BOOST_TEST(p.chain() == "");
    BOOST_TEST(p.fs.paths().size() < paths.size());
}

BOOST_AUTO_TEST_SUITE_END()
