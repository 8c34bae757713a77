// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <ostream>
#include <random>
#include <vector>

#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "extent/extent_set.hpp"

using namespace blkferry;

namespace {

constexpr std::size_t universe = 96;

/// The obvious model: one flag per sector.
struct Model {
    std::vector<bool> in = std::vector<bool>(universe + 1, false);

    void set(Extent e, bool value) {
        for (std::uint64_t s = e.sector; s < e.end(); ++s)
            in[s] = value;
    }
    /// Maximal runs of sectors within `e` whose flag is `value`.
    [[nodiscard]] std::vector<Extent> runs(Extent e, bool value) const {
        std::vector<Extent> out;
        for (std::uint64_t s = e.sector; s < e.end(); ++s) {
            if (in[s] != value)
                continue;
            if (!out.empty() && out.back().end() == s)
                ++out.back().count;
            else
                out.push_back({s, 1});
        }
        return out;
    }
};

std::uint64_t total(const std::vector<Extent>& list) {
    std::uint64_t n = 0;
    for (const Extent& e : list)
        n += e.count;
    return n;
}

}  // namespace

namespace blkferry {
std::ostream& operator<<(std::ostream& out, const Extent& e) {
    return out << '[' << e.sector << ',' << e.end() << ')';
}
}  // namespace blkferry

BOOST_AUTO_TEST_SUITE(extent_set)

BOOST_AUTO_TEST_CASE(equals_the_model_after_any_history) {
    std::mt19937_64 random(20260101);
    for (int round = 0; round < 300; ++round) {
        ExtentSet set;
        Model model;
        for (int step = 0; step < 60; ++step) {
            const auto draw = [&] {
                const std::uint64_t first = random() % universe;
                return Extent{first, random() % (universe - first + 1)};
            };
            const Extent change = draw();
            const bool add = random() % 3 != 0;
            add ? set.insert(change) : set.erase(change);
            model.set(change, add);

            const auto all = model.runs({0, universe}, true);
            const auto list = set.list();
            BOOST_REQUIRE_EQUAL_COLLECTIONS(list.begin(), list.end(), all.begin(), all.end());
            BOOST_REQUIRE_EQUAL(set.sectors(), total(all));
            BOOST_REQUIRE_EQUAL(set.runs(), all.size());
            BOOST_REQUIRE_EQUAL(set.empty(), all.empty());

            const Extent ask = draw();
            const auto common = set.common(ask);
            const auto want_common = model.runs(ask, true);
            BOOST_REQUIRE_EQUAL_COLLECTIONS(common.begin(), common.end(), want_common.begin(), want_common.end());
            const auto missing = set.missing(ask);
            const auto want_missing = model.runs(ask, false);
            BOOST_REQUIRE_EQUAL_COLLECTIONS(missing.begin(), missing.end(), want_missing.begin(), want_missing.end());
            BOOST_REQUIRE_EQUAL(set.overlaps(ask), !want_common.empty());
        }
        set.clear();
        BOOST_REQUIRE(set.empty() && set.sectors() == 0);
    }
}

BOOST_AUTO_TEST_CASE(neighbours_melt_into_one_run) {
    ExtentSet set;
    set.insert({10, 5});
    set.insert({20, 5});
    set.insert({15, 5});
    BOOST_TEST(set.runs() == 1U);
    BOOST_TEST((set.list().front() == Extent{10, 15}));
}

BOOST_AUTO_TEST_CASE(empty_extents_change_nothing) {
    ExtentSet set;
    set.insert({10, 0});
    BOOST_TEST(set.empty());
    set.insert({10, 1});
    set.erase({10, 0});
    BOOST_TEST(set.sectors() == 1U);
    BOOST_TEST(!set.overlaps({10, 0}));
}

BOOST_AUTO_TEST_CASE(works_at_the_largest_disk) {
    constexpr std::uint64_t top = 1ULL << 54;
    ExtentSet set;
    set.insert({0, top});
    set.erase({top - 1, 1});
    BOOST_TEST(set.sectors() == top - 1);
    const auto missing = set.missing({top - 8, 8});
    BOOST_REQUIRE(missing.size() == 1U);
    BOOST_TEST((missing.front() == Extent{top - 1, 1}));
}

BOOST_AUTO_TEST_CASE(digest_is_xxh3_over_the_runs) {
    ExtentSet a;
    a.insert({8, 8});
    a.insert({100, 1});
    SetDigest d;
    d.add(3, a);
    std::vector<std::byte> raw;
    ByteWriter w(raw);
    for (const Extent& e : a.list()) {
        w.put<std::uint16_t>(3);
        w.put(e.sector);
        w.put(e.count);
    }
    BOOST_TEST(d.value() == xxh3(raw));
    BOOST_TEST(SetDigest().value() == xxh3({}));
}

BOOST_AUTO_TEST_CASE(digest_does_not_depend_on_how_the_set_came_to_be) {
    ExtentSet a;
    a.insert({0, 100});
    ExtentSet b;
    for (std::uint64_t s = 100; s-- > 0;)
        b.insert({s, 1});
    SetDigest da;
    da.add(0, a);
    SetDigest db;
    db.add(0, b);
    SetDigest other_slot;
    other_slot.add(1, a);
    BOOST_TEST(da.value() == db.value());
    BOOST_TEST(da.value() != other_slot.value());
}

BOOST_AUTO_TEST_SUITE_END()
