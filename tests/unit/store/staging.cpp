// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <ostream>
#include <random>
#include <utility>
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
    // From every piece to none around the page cache, in runs of one block and up.
    const ChunkStore::Options options{chunk_bytes_unit, 1 + random() % 4, random() % 4 * 8192, 4096 * (1 + random() % 100)};
    auto store = ChunkStore::open(fs, dir, engine, options, 1).value();
    Bytes image(sectors * sector_bytes);
    std::map<Generation, Bytes> points;
    std::uint64_t next = 0;
    const auto check = [&](Generation at, const Bytes& want) {
        Bytes got(want.size());
        BOOST_REQUIRE(store->read(0, got, at).has_value());
        BOOST_REQUIRE(got == want);
    };
    for (int i = 0; i < 300; ++i) {
        Extent e{random() % sectors, 1 + random() % (random() % 8 == 0 ? 2500 : 40)};
        if (random() % 16 == 0)
            e = {random() % 4 * 1024, 1024};  // a whole chunk
        if (random() % 2 == 0)
            e.sector = e.sector / 8 * 8;  // only these begin a run
        if (random() % 3 == 0)
            e.sector = next;  // and these go on with it
        if (e.sector >= sectors)
            continue;
        e.count = std::min(e.count, sectors - e.sector);
        next = e.end();
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

namespace {
/// Which writes a chunk store made, and how.
struct Written {
    std::uint64_t offset;
    std::uint64_t bytes;
    bool direct;
    bool operator==(const Written&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Written& w) {
    return out << w.offset << '+' << w.bytes << (w.direct ? " direct" : " cached");
}
/// Notes every write on its way to a CrashFs.
class WatchedFs final : public FileSystem {
public:
    using FileSystem::open;
    Result<std::unique_ptr<File>> open(const std::filesystem::path& path, OpenMode mode, Caching caching) override;
    Result<void> rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
        return fs.rename(from, to);
    }
    Result<void> remove(const std::filesystem::path& path) override { return fs.remove(path); }
    Result<void> make_dir(const std::filesystem::path& path) override { return fs.make_dir(path); }
    Result<std::vector<std::string>> list(const std::filesystem::path& dir) override { return fs.list(dir); }
    Result<void> sync_dir(const std::filesystem::path& dir) override { return fs.sync_dir(dir); }
    Result<void> sync_all(const std::filesystem::path& dir) override { return fs.sync_all(dir); }

    CrashFs fs;
    std::vector<Written> writes;
};
class WatchedFile final : public File {
public:
    WatchedFile(std::unique_ptr<File> file, WatchedFs& watch) : file_(std::move(file)), watch_(watch) {}
    Result<std::size_t> read(std::span<std::byte> data, std::uint64_t offset) override { return file_->read(data, offset); }
    Result<void> write(std::span<const std::span<const std::byte>> parts, std::uint64_t offset) override {
        std::uint64_t bytes = 0;
        for (const auto part : parts)
            bytes += part.size();
        watch_.writes.push_back({offset, bytes, file_->direct()});
        return file_->write(parts, offset);
    }
    Result<void> punch(std::uint64_t offset, std::uint64_t bytes) override { return file_->punch(offset, bytes); }
    Result<void> truncate(std::uint64_t bytes) override { return file_->truncate(bytes); }
    Result<void> allocate(std::uint64_t offset, std::uint64_t bytes) override { return file_->allocate(offset, bytes); }
    Result<std::uint64_t> size() override { return file_->size(); }
    Result<std::uint64_t> allocated() override { return file_->allocated(); }
    Result<std::optional<std::uint64_t>> next_data(std::uint64_t offset) override { return file_->next_data(offset); }
    Result<std::uint64_t> next_hole(std::uint64_t offset) override { return file_->next_hole(offset); }
    Result<void> sync() override { return file_->sync(); }
    void start_writeback(std::uint64_t offset, std::uint64_t bytes) noexcept override { file_->start_writeback(offset, bytes); }
    Result<void> reflink_from(File& source) override { return file_->reflink_from(*static_cast<WatchedFile&>(source).file_); }
    Result<void> copy_from(File& source, std::uint64_t offset, std::uint64_t bytes) override {
        return file_->copy_from(*static_cast<WatchedFile&>(source).file_, offset, bytes);
    }
    int fd() const noexcept override { return file_->fd(); }
    bool direct() const noexcept override { return file_->direct(); }

private:
    std::unique_ptr<File> file_;
    WatchedFs& watch_;
};
Result<std::unique_ptr<File>> WatchedFs::open(const std::filesystem::path& path, OpenMode mode, Caching caching) {
    BLKFERRY_TRY_ASSIGN(std::unique_ptr<File> file, fs.open(path, mode, caching));
    return std::make_unique<WatchedFile>(std::move(file), *this);
}
constexpr std::uint64_t kib = 1024;
Extent at_kib(std::uint64_t offset, std::uint64_t count) { return {offset * 2, count * 2}; }
}  // namespace

BOOST_AUTO_TEST_CASE(large_pieces_go_around_the_page_cache_in_runs) {
    WatchedFs watch;
    const auto engine = make_copy_engine();
    std::mt19937_64 random(5);
    auto store = ChunkStore::open(watch, "/disk", *engine, {1U << 20, 4, 128 * kib, 512 * kib}, 1).value();
    const auto put = [&](std::uint64_t offset, std::uint64_t count) {
        const Bytes data = noise(count * kib, random);
        BOOST_REQUIRE(store->write(at_kib(offset, count), data).has_value());
        return data;
    };
    const auto writes = [&] { return std::exchange(watch.writes, {}); };
    using Expected = std::vector<Written>;

    put(0, 256);
    BOOST_TEST(writes().empty());                                          // it waits for what follows
    put(256, 256);
    BOOST_TEST(writes() == (Expected{{0, 512 * kib, true}}), boost::test_tools::per_element());
    put(512, 4);                                                           // small, but it goes on with the run
    BOOST_TEST(writes().empty());
    put(900, 4);                                                           // elsewhere: the run waits
    BOOST_TEST(writes() == (Expected{{900 * kib, 4 * kib, false}}), boost::test_tools::per_element());
    const Bytes over = put(514, 1);                                        // what waits is written first
    BOOST_TEST(writes() == (Expected{{512 * kib, 4 * kib, true}, {514 * kib, kib, false}}), boost::test_tools::per_element());
    Bytes got(kib);
    BOOST_REQUIRE(store->read(514 * 2, got, 1).has_value());
    BOOST_TEST((got == over));

    put(600, 130);                                                         // its last half block
    BOOST_REQUIRE(store->sync().has_value());
    BOOST_TEST(writes() == (Expected{{600 * kib, 128 * kib, true}, {728 * kib, 2 * kib, false}}),
               boost::test_tools::per_element());
    put(1, 200);                                                           // not at the begin of a block
    BOOST_TEST(writes() == (Expected{{kib, 200 * kib, false}}), boost::test_tools::per_element());

    const Bytes old = put(1024, 200);                                      // waits while a point is made
    store->raise(2);
    put(1024, 4);                                                          // the chunk is cloned with it
    BOOST_TEST(writes() == (Expected{{0, 200 * kib, true}, {0, 4 * kib, false}}), boost::test_tools::per_element());
    got.resize(old.size());
    BOOST_REQUIRE(store->read(1024 * 2, got, 1).has_value());
    BOOST_TEST((got == old));

    put(200, 200);
    BOOST_REQUIRE(store->zero(at_kib(300, 4)).has_value());                // so it does before a hole is made
    got.assign(200 * kib, std::byte{1});
    BOOST_REQUIRE(store->read(200 * 2, got, 2).has_value());
    BOOST_TEST(std::all_of(got.begin() + 100 * kib, got.begin() + 104 * kib, [](std::byte b) { return b == std::byte{0}; }));
}

BOOST_AUTO_TEST_CASE(a_run_that_cannot_be_written_fails_the_sync) {
    CrashFs fs;
    const auto engine = make_copy_engine();
    const auto store = ChunkStore::open(fs, "/disk", *engine, {chunk_bytes_unit, 4}, 1).value();
    const Bytes data(256 * kib, std::byte{7});
    BOOST_REQUIRE(store->write({0, 512}, data).has_value());
    fs.fail_at(1, ENOSPC);
    const auto r = store->sync();
    BOOST_REQUIRE(!r.has_value());
    BOOST_TEST(r.error().sys_errno == ENOSPC);
    BOOST_TEST(store->dirty());
}

BOOST_AUTO_TEST_CASE(without_direct_writes_all_goes_through_the_page_cache) {
    WatchedFs watch;
    watch.fs.direct_io = false;
    const auto engine = make_copy_engine();
    std::mt19937_64 random(6);
    const auto store = ChunkStore::open(watch, "/disk", *engine, {chunk_bytes_unit, 4}, 1).value();
    const Bytes data = noise(256 * kib, random);
    BOOST_REQUIRE(store->write({0, 512}, data).has_value());
    BOOST_REQUIRE(store->write({512, 512}, data).has_value());
    BOOST_TEST(watch.writes == (std::vector<Written>{{0, 256 * kib, false}, {256 * kib, 256 * kib, false}}),
               boost::test_tools::per_element());
}

/// A discard of everything on the largest disk there may be walks over the chunks that are there, not over those that could be.
BOOST_AUTO_TEST_CASE(zeroes_over_an_enormous_disk_cost_what_is_there) {
    CrashFs fs;
    const auto engine = make_copy_engine();
    auto store = ChunkStore::open(fs, "/disk", *engine, {chunk_bytes_unit, 4}, 1).value();
    constexpr std::uint64_t chunk_sectors = chunk_bytes_unit / sector_bytes;
    const std::vector<std::uint64_t> places{0, 3 * chunk_sectors + 5, 1'000'000 * chunk_sectors, ((1ULL << 32) - 1) * chunk_sectors};
    for (const std::uint64_t at : places)
        BOOST_REQUIRE(store->write({at, 1}, Bytes(512, std::byte{1})).has_value());
    // From the second one's own sector to the end of the disk, 2^44 chunks on.
    const std::uint64_t from = places[1];
    for (int i = 0; i < 1000; ++i)
        BOOST_REQUIRE(store->zero({from, (1ULL << 54) - from}).has_value());
    Bytes sector(512);
    for (const std::uint64_t at : places) {
        BOOST_REQUIRE(store->read(at, sector, 1).has_value());
        BOOST_TEST((sector[0] == (at == 0 ? std::byte{1} : std::byte{0})));
    }
    BOOST_REQUIRE(store->zero({1ULL << 53, 1000}).has_value());  // beyond all chunks
}

BOOST_AUTO_TEST_CASE(sector_map_equals_a_set) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            std::mt19937_64 random(seed);
            CrashFs fs;
            auto map = SectorMap::create(fs, "/map", SectorMap::Damaged::full, 1 + random() % 3).value();
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
                    map = SectorMap::open(fs, "/map", SectorMap::Damaged::full, 2).value();
                }
            }
            SetDigest digest;
            digest.add(0, set);
            BOOST_TEST((map->summary().value() == SectorMap::Summary{set.sectors(), digest.value()}));
        }
    }
}

/// One bit of the file turns over: `full` holds at least what it should and says so for good, `empty` at most and nothing wrong.
BOOST_AUTO_TEST_CASE(sector_map_damaged) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            std::mt19937_64 random(seed);
            CrashFs fs;
            const auto mode = seed % 2 == 0 ? SectorMap::Damaged::full : SectorMap::Damaged::empty;
            ExtentSet set;
            const auto add = [&](SectorMap& map) {
                const Extent e{random() % 200'000, 1 + random() % 9'000};
                BOOST_REQUIRE(map.set(e).has_value());
                set.insert(e);
            };
            {
                auto map = SectorMap::create(fs, "/map", mode).value();
                for (int i = 0; i < 30; ++i)
                    add(*map);
                BOOST_REQUIRE(map->sync().has_value());
                BOOST_TEST(!map->any_damaged().value());
            }
            std::vector<std::byte>& file = *fs.contents("/map");
            const std::size_t hit = random() % file.size();
            file[hit] ^= static_cast<std::byte>(1U << random() % 8);
            const Extent lost{hit / SectorMap::block_bytes * SectorMap::block_sectors, SectorMap::block_sectors};

            auto map = SectorMap::open(fs, "/map", mode, 1 + random() % 3).value();
            BOOST_TEST(map->any_damaged().value());
            ExtentSet want = set;
            const auto whole = Extent{0, 300'000};
            if (mode == SectorMap::Damaged::full)
                want.insert(lost);
            else
                want.erase(lost);
            BOOST_TEST((map->missing(whole).value() == want.missing(whole)));
            for (int i = 0; i < 10; ++i)
                add(*map);
            BOOST_REQUIRE(map->sync().has_value());
            map = SectorMap::open(fs, "/map", mode).value();
            // Unless captured writes name all of the block: then nothing is lost.
            const bool named = set.missing(lost).empty();
            if (mode == SectorMap::Damaged::full)
                BOOST_TEST((map->any_damaged().value() || named));
            const std::vector<Extent> missing = map->missing(whole).value();
            for (const Extent& e : missing)
                BOOST_TEST((mode == SectorMap::Damaged::empty || set.missing(e) == std::vector<Extent>{e}));
        }
    }
}

/// What is full already is neither written nor read again: a thousand discards of a whole disk cost one.
BOOST_AUTO_TEST_CASE(sector_map_forgets_nothing_and_repeats_nothing) {
    const auto dir = temporary();
    const auto fs = make_posix_file_system();
    auto map = SectorMap::create(*fs, dir / "map", SectorMap::Damaged::full, 2).value();
    constexpr std::uint64_t sectors = 1ULL << 28;  // 128 GiB: a map of 32 MiB
    BOOST_REQUIRE(map->set({5, sectors}).has_value());
    BOOST_REQUIRE(map->sync().has_value());
    const auto written = std::filesystem::last_write_time(dir / "map");
    for (int i = 0; i < 1000; ++i) {
        BOOST_REQUIRE(map->set({0x8000, sectors - 0x8000}).has_value());
        BOOST_REQUIRE(map->missing({0x8000, sectors - 0x8000}).value().empty());
    }
    BOOST_REQUIRE(map->sync().has_value());
    BOOST_TEST((std::filesystem::last_write_time(dir / "map") == written));
    BOOST_TEST((map->missing({0, sectors + 10}).value() == std::vector<Extent>{{0, 5}, {sectors + 5, 5}}));
    BOOST_TEST(map->summary().value().sectors == sectors);
    BOOST_TEST(map->allocated_bytes() >= sectors / 8);
    // So many runs that what is known of full pages is dropped in between: only memory, no bit.
    auto islands = SectorMap::create(*fs, dir / "islands", SectorMap::Damaged::full, 2).value();
    for (std::uint64_t i = 0; i < 5000; ++i)
        BOOST_REQUIRE(islands->set({i * 0x10000, 0x8000}).has_value());
    for (std::uint64_t i = 0; i < 5000; i += 7)
        BOOST_TEST((islands->missing({i * 0x10000, 0x10000}).value() == std::vector<Extent>{{i * 0x10000 + 0x8000, 0x8000}}));
    map.reset();
    islands.reset();
    std::filesystem::remove_all(dir);
}

BOOST_AUTO_TEST_CASE(sector_map_is_sparse_on_the_real_file_system) {
    const auto dir = temporary();
    const auto fs = make_posix_file_system();
    auto map = SectorMap::create(*fs, dir / "map", SectorMap::Damaged::full, 4).value();
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
