// SPDX-License-Identifier: Apache-2.0
#include "world.hpp"

#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <sys/file.h>
#include <sys/types.h>

#include "base/hash.hpp"

namespace blkferry::sim {

World* world = nullptr;

World::World(std::uint64_t seed) : random(seed * 0x9e3779b97f4a7c15ULL + 1) { world = this; }
World::~World() {
    events.clear();
    sockets.clear();
    machine.reset();
    world = nullptr;
}

World::Key World::at(std::uint64_t when_ns, std::function<void()> what) {
    const Key key{std::max(when_ns, now), ++ids};
    events.emplace(key, std::move(what));
    return key;
}

bool World::step() {
    if (poll_watches()) {
        now += between(1, 20) * us;
        if (events.empty() || events.begin()->first.first > now)
            return true;
    }
    if (events.empty())
        return false;
    const auto first = events.begin();
    now = std::max(now, first->first.first);
    const auto what = std::move(first->second);
    events.erase(first);
    what();
    return true;
}

void World::note(const std::string& text) {
    for (const char c : text)
        digest = (digest ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ULL;
    digest ^= now;
    if (tracing)
        fmt::print("{:>14.6f} {}\n", static_cast<double>(now) / 1e9, text);
}

namespace {
/// The store's file system: contents in the CrashFs, folders also for real, since the store looks for them itself.
class SimFiles final : public store::FileSystem {
public:
    using FileSystem::open;
    Result<std::unique_ptr<store::File>> open(const std::filesystem::path& path, store::OpenMode mode,
                                              store::Caching caching) override {
        return world->disk.open(path, mode, caching);
    }
    Result<void> rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
        return world->disk.rename(from, to);
    }
    Result<void> remove(const std::filesystem::path& path) override { return world->disk.remove(path); }
    Result<void> make_dir(const std::filesystem::path& path) override {
        std::error_code error;
        std::filesystem::create_directory(path, error);
        if (error)
            return fail_errno(error.value(), path.string());
        return world->disk.make_dir(path);
    }
    Result<std::vector<std::string>> list(const std::filesystem::path& dir) override { return world->disk.list(dir); }
    Result<void> sync_dir(const std::filesystem::path& dir) override { return world->disk.sync_dir(dir); }
    Result<void> sync_all(const std::filesystem::path& dir) override { return world->disk.sync_all(dir); }
};
}  // namespace

}  // namespace blkferry::sim

// What the linker's --wrap turns aside.
extern "C" {
std::unique_ptr<blkferry::store::FileSystem> __wrap__ZN8blkferry5store22make_posix_file_systemEv();
std::unique_ptr<blkferry::store::FileSystem> __wrap__ZN8blkferry5store22make_posix_file_systemEv() {
    return std::make_unique<blkferry::sim::SimFiles>();
}
ssize_t __wrap_getrandom(void* to, std::size_t bytes, unsigned flags);
ssize_t __wrap_getrandom(void* to, std::size_t bytes, unsigned) {
    for (std::size_t i = 0; i < bytes; ++i)
        static_cast<unsigned char*>(to)[i] = static_cast<unsigned char>(blkferry::sim::world->random());
    return static_cast<ssize_t>(bytes);
}
int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
/// Nobody else runs who could hold a lock on a file of the simulated disk.
int __wrap_flock(int fd, int operation) {
    return blkferry::sim::world->disk.file_of(fd) != nullptr ? 0 : __real_flock(fd, operation);
}
int __wrap_nanosleep(const timespec* t, timespec* rest);
int __wrap_nanosleep(const timespec* t, timespec*) {
    blkferry::sim::world->now += static_cast<std::uint64_t>(t->tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t->tv_nsec);
    return 0;
}
int __wrap_clock_nanosleep(clockid_t clock, int flags, const timespec* t, timespec* rest);
int __wrap_clock_nanosleep(clockid_t, int, const timespec* t, timespec* rest) { return __wrap_nanosleep(t, rest); }
std::chrono::steady_clock::time_point __wrap__ZNSt6chrono3_V212steady_clock3nowEv();
std::chrono::steady_clock::time_point __wrap__ZNSt6chrono3_V212steady_clock3nowEv() {
    return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(blkferry::sim::world->now));
}
std::chrono::system_clock::time_point __wrap__ZNSt6chrono3_V212system_clock3nowEv();
std::chrono::system_clock::time_point __wrap__ZNSt6chrono3_V212system_clock3nowEv() {
    return std::chrono::system_clock::time_point(std::chrono::nanoseconds(blkferry::sim::world->realtime_ns()));
}
}
