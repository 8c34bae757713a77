// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <map>
#include <random>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "crash_fs.hpp"
#include "extent/extent_set.hpp"
#include "store/chunk_store.hpp"
#include "store/sector_map.hpp"

using namespace blkferry;
using namespace blkferry::store;
using blkferry::test::CrashFs;

namespace {

using Bytes = std::vector<std::byte>;

Bytes noise(std::size_t size, std::mt19937_64& random) {
    Bytes out(size);
    for (auto& b : out)
        b = static_cast<std::byte>(random());
    return out;
}

/// The contract of an engine together with the chunk store: random writes, zeroes, generations, collection, against images.
void staging_contract(FileSystem& fs, const std::filesystem::path& dir, const SnapshotEngine& engine, std::uint64_t seed) {
    constexpr std::uint64_t sectors = 5000;  // almost five chunks
    std::mt19937_64 random(seed);
    const ChunkStore::Options options{chunk_bytes_unit, 1 + random() % 4};
    auto store = ChunkStore::open(fs, dir, engine, options, 1).value();
    Bytes image(sectors * sector_bytes);
    std::map<Generation, Bytes> points;
    const auto check = [&](Generation at, const Bytes& want) {
        Bytes got(want.size());
        BOOST_REQUIRE(store->read(0, got, at).has_value());
        BOOST_REQUIRE(got == want);
    };
    for (int i = 0; i < 300; ++i) {
        Extent e{random() % sectors, 1 + random() % (random() % 8 == 0 ? 2500 : 40)};
        if (random() % 16 == 0)
            e = {random() % 4 * 1024, 1024};  // a whole chunk
        e.count = std::min(e.count, sectors - e.sector);
        const auto at = image.begin() + static_cast<std::ptrdiff_t>(e.sector * sector_bytes);
        if (random() % 3 != 0) {
            const Bytes data = noise(e.count * sector_bytes, random);
            std::copy(data.begin(), data.end(), at);
            BOOST_REQUIRE(store->write(e, data).has_value());
        } else {
            std::fill(at, at + static_cast<std::ptrdiff_t>(e.count * sector_bytes), std::byte{0});
            BOOST_REQUIRE(store->zero(e).has_value());
        }
        switch (random() % 12) {
            case 0:
                points[store->current()] = image;
                store->raise(store->current() + 1);
                break;
            case 1: BOOST_REQUIRE(store->sync().has_value()); break;
            case 2:
                if (!points.empty())
                    points.erase(std::next(points.begin(), static_cast<std::ptrdiff_t>(random() % points.size())));
                break;
            case 3: {
                BOOST_REQUIRE(store->sync().has_value());
                std::vector<Generation> live;
                for (const auto& [g, unused] : points)
                    live.push_back(g);
                BOOST_REQUIRE(store->collect(live, 1 + random() % 4).has_value());
                break;
            }
            case 4: {
                BOOST_REQUIRE(store->sync().has_value());
                const Generation current = store->current();
                store = ChunkStore::open(fs, dir, engine, options, current).value();
                break;
            }
            default: break;
        }
        if (i % 20 == 0) {
            check(store->current(), image);
            for (const auto& [g, want] : points)
                check(g, want);
        }
    }
    BOOST_REQUIRE(store->sync().has_value());
    check(store->current(), image);
    for (const auto& [g, want] : points)
        check(g, want);
    // Without points every chunk keeps one file at most.
    while (store->collect({}, 1000).value() > 0) {
    }
    BOOST_TEST(store->files() <= 5u);
    check(store->current(), image);
}

std::filesystem::path temporary(const char* parent = "/tmp") {
    std::string name = std::string(parent) + "/blkferry-staging-XXXXXX";
    BOOST_REQUIRE(::mkdtemp(name.data()) != nullptr);
    return name;
}

int run(const std::string& command) {
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(staging)

BOOST_AUTO_TEST_CASE(chunk_names) {
    const ChunkName n{0xABC, 0x1F, false};
    BOOST_TEST(to_string(n) == "00000abc.000000000000001f");
    BOOST_TEST((parse_chunk_name("00000abc.000000000000001f.new").value() == ChunkName{0xABC, 0x1F, true}));
    for (const char* bad : {"", "abc", "00000ABC.000000000000001f", "00000abc.00000000000001f", "00000abc.000000000000001f.neW",
                            "00000abc-000000000000001f", "g0000abc.000000000000001f"})
        BOOST_TEST(!parse_chunk_name(bad).has_value());
}

BOOST_AUTO_TEST_CASE(contract_in_memory_reflink_and_copy) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            CrashFs fs;
            const auto engine = seed % 2 == 0 ? make_reflink_engine() : make_copy_engine();
            staging_contract(fs, "/disk", *engine, seed);
        }
    }
}

BOOST_AUTO_TEST_CASE(contract_copy_on_the_real_file_system) {
    const auto dir = temporary();
    const auto fs = make_posix_file_system();
    const auto engine = make_engine("copy", *fs, dir).value();
    staging_contract(*fs, dir / "disk", *engine, 11);
    std::filesystem::remove_all(dir);
}

BOOST_AUTO_TEST_CASE(contract_reflink_on_xfs) {
    if (::geteuid() != 0 || run("command -v mkfs.xfs >/dev/null") != 0) {
        BOOST_TEST_MESSAGE("skipped: needs root and mkfs.xfs");
        return;
    }
    const auto dir = temporary();
    const auto image = (dir / "xfs.img").string();
    const auto mount = (dir / "mnt").string();
    std::filesystem::create_directory(mount);
    const bool mounted = run(fmt::format("truncate -s 400M {0} && mkfs.xfs -q -m reflink=1 {0} && mount -o loop {0} {1}", image,
                                         mount)) == 0;
    if (!mounted) {
        BOOST_TEST_MESSAGE("skipped: no XFS loop mount here");
        std::filesystem::remove_all(dir);
        return;
    }
    {
        const auto fs = make_posix_file_system();
        const auto engine = make_engine("auto", *fs, mount).value();
        BOOST_TEST(engine->name() == "reflink");
        staging_contract(*fs, std::filesystem::path(mount) / "disk", *engine, 12);
    }
    BOOST_TEST(run(fmt::format("umount {}", mount)) == 0);
    std::filesystem::remove_all(dir);
}

BOOST_AUTO_TEST_CASE(engine_that_does_not_work_is_refused_auto_copies) {
    CrashFs fs;
    fs.reflinks = false;
    BOOST_TEST((make_engine("reflink", fs, "/").error().code == Errc::unsupported));
    BOOST_TEST(make_engine("auto", fs, "/").value()->name() == "copy");
    BOOST_TEST((make_engine("zfs", fs, "/").error().code == Errc::invalid));
}

BOOST_AUTO_TEST_CASE(a_foreign_file_in_staging_is_refused) {
    CrashFs fs;
    BOOST_REQUIRE(fs.open("/disk/notes.txt", OpenMode::create).has_value());
    const auto engine = make_copy_engine();
    BOOST_TEST((ChunkStore::open(fs, "/disk", *engine, {}, 1).error().code == Errc::corrupt));
    BOOST_TEST((ChunkStore::open(fs, "/other", *engine, {.chunk_bytes = 1000}, 1).error().code == Errc::invalid));
}

BOOST_AUTO_TEST_CASE(zeroes_on_nothing_make_no_files) {
    CrashFs fs;
    const auto engine = make_copy_engine();
    auto store = ChunkStore::open(fs, "/disk", *engine, {chunk_bytes_unit, 4}, 1).value();
    BOOST_REQUIRE(store->zero({0, 1'000'000}).has_value());
    BOOST_TEST(store->files() == 0u);
    BOOST_TEST(store->absent({0, 1'000'000}, 1));
    BOOST_REQUIRE(store->write({5, 1}, Bytes(512, std::byte{1})).has_value());
    store->raise(2);
    BOOST_REQUIRE(store->zero({100, 50}).has_value());  // a hole already: no clone
    BOOST_TEST(store->files() == 1u);
    BOOST_REQUIRE(store->zero({0, 1024}).has_value());
    BOOST_TEST(store->files() == 2u);
}

BOOST_AUTO_TEST_CASE(sector_map_equals_a_set) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            std::mt19937_64 random(seed);
            CrashFs fs;
            auto map = SectorMap::create(fs, "/map", 1 + random() % 3).value();
            ExtentSet set;
            for (int i = 0; i < 400; ++i) {
                const Extent e{random() % 200'000, 1 + random() % (random() % 10 == 0 ? 70'000 : 200)};
                if (random() % 2 == 0) {
                    BOOST_REQUIRE(map->set(e).has_value());
                    set.insert(e);
                }
                BOOST_REQUIRE((map->missing(e).value() == set.missing(e)));
                if (random() % 50 == 0) {
                    BOOST_REQUIRE(map->sync().has_value());
                    map = SectorMap::open(fs, "/map", 2).value();
                }
            }
            SetDigest digest;
            digest.add(0, set);
            BOOST_TEST((map->summary().value() == SectorMap::Summary{set.sectors(), digest.value()}));
        }
    }
}

BOOST_AUTO_TEST_CASE(sector_map_is_sparse_on_the_real_file_system) {
    const auto dir = temporary();
    const auto fs = make_posix_file_system();
    auto map = SectorMap::create(*fs, dir / "map", 4).value();
    ExtentSet set;
    for (const Extent e : {Extent{7, 3}, Extent{1ULL << 40, 100'000}, Extent{(1ULL << 33) - 1, 2}}) {
        BOOST_REQUIRE(map->set(e).has_value());
        set.insert(e);
    }
    BOOST_REQUIRE(map->sync().has_value());
    SetDigest digest;
    digest.add(0, set);
    BOOST_TEST((map->summary().value() == SectorMap::Summary{set.sectors(), digest.value()}));
    BOOST_TEST(map->test((1ULL << 33) - 1).value());
    BOOST_TEST(!map->test((1ULL << 33) + 1).value());
    BOOST_TEST(fs->open(dir / "map", OpenMode::read).value()->allocated().value() < 1'000'000u);
    std::filesystem::remove_all(dir);
}

BOOST_AUTO_TEST_SUITE_END()
