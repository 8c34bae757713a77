// SPDX-License-Identifier: Apache-2.0
// The writing machine of the pipeline benchmark: one file-backed disk whose writes go into a ring of the module's ABI, served
// to an agent over a socket (tests/producer). It writes random 4 KiB blocks of a data file as fast as the ring has room.
// The backing file is not written: no disk time of the source is in the figures.
//
//   bench_producer --socket PATH --device FILE [--data FILE|random|none]
//
// With no data it is a machine on which nothing is written.
// Prints "ready"; then answers one JSON line to each line of standard input, and ends at its end:
//   state        {"state": "RING"}
//   write MIB    when all of it was acknowledged: {"bytes": n, "wall_s": s, "producer_cpu_s": s}
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "machine.hpp"
#include "server.hpp"

namespace {

using namespace blkferry;

constexpr std::size_t block = 4096;
constexpr std::size_t pool_bytes = std::size_t{64} << 20;

[[noreturn]] void die(std::string_view what, std::string_view why) {
    std::fprintf(stderr, "bench_producer: %.*s: %.*s\n", static_cast<int>(what.size()), what.data(),
                 static_cast<int>(why.size()), why.data());
    std::exit(1);
}

std::vector<std::byte> make_pool(const std::string& data) {
    if (data == "none")
        return {};
    std::vector<std::byte> pool(pool_bytes);
    if (data == "random") {
        std::mt19937_64 gen(1);
        for (std::size_t at = 0; at < pool.size(); at += 8)
            store_le<std::uint64_t>(pool.data() + at, gen());
        return pool;
    }
    auto fd = open_file(data, O_RDONLY);
    if (!fd)
        die(data, fd.error().text);
    if (auto read = read_full_at(fd->get(), pool, 0, data); !read)
        die(data, read.error().text);
    return pool;
}

double cpu_s() {
    rusage u{};
    ::getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/// Waits until the ring has room for `descs` more blocks.
void wait_for_room(producer::Disk& disk, std::uint64_t ring_bytes, std::uint64_t descs) {
    const std::uint64_t ring_descs = disk.config().descs;
    for (;;) {
        const auto used = disk.used();
        if (used.bytes + descs * block < ring_bytes && used.descs + descs + 8 < ring_descs)
            return;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
}

void write_blocks(producer::Disk& disk, std::uint64_t sectors, const std::vector<std::byte>& pool, std::size_t bytes) {
    constexpr std::size_t piece = 256;
    static std::mt19937_64 gen(2);
    const std::uint64_t ring_bytes = disk.config().data_bytes;
    const double cpu = cpu_s();
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t done = 0; done < bytes; done += piece * block) {
        wait_for_room(disk, ring_bytes, piece);
        for (std::size_t i = 0; i < piece; ++i) {
            const std::byte* from = pool.data() + gen() % (pool_bytes / block) * block;
            const std::uint64_t sector = gen() % (sectors / (block / sector_bytes)) * (block / sector_bytes);
            const auto write = disk.submit(capture::OpKind::write, sector, block / sector_bytes, {from, block});
            disk.finish(write, producer::End::done);
        }
    }
    while (disk.used().descs != 0)
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("{\"bytes\": %zu, \"wall_s\": %.4f, \"producer_cpu_s\": %.4f}\n", bytes, wall, cpu_s() - cpu);
}

/// The disk of a device, or null while nobody attached it.
std::shared_ptr<producer::Disk> find_disk(const producer::Machine& machine, const std::string& device) {
    for (const std::uint32_t id : machine.disks())
        if (auto disk = machine.disk(id); disk && (*disk)->config().path == device)
            return *disk;
    return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
    std::string socket;
    std::string device;
    std::string data = "random";
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view key = argv[i];
        if (key == "--socket")
            socket = argv[i + 1];
        else if (key == "--device")
            device = argv[i + 1];
        else if (key == "--data")
            data = argv[i + 1];
        else
            die(key, "unknown option");
    }
    if (socket.empty() || device.empty())
        die("usage", "bench_producer --socket PATH --device FILE [--data FILE|random|none]");
    const std::vector<std::byte> pool = make_pool(data);
    producer::Machine machine;
    if (auto dev = machine.add_device(device); !dev)
        die(device, dev.error().text);
    auto server = producer::Server::start(machine, socket);
    if (!server)
        die(socket, server.error().text);
    std::puts("ready");
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string command;
        std::size_t mib = 0;
        words >> command >> mib;
        const auto disk = find_disk(machine, device);
        const auto state = disk ? disk->info().state : capture::DiskState::stopped;
        if (command == "state") {
            std::printf("{\"state\": \"%s\"}\n", std::string(capture::to_string(state)).c_str());
        } else if (command == "write" && state == capture::DiskState::ring && !pool.empty()) {
            write_blocks(*disk, disk->info().sectors, pool, mib << 20);
            if (disk->info().state != capture::DiskState::ring)
                die("write", "the ring overflowed although the writer waited for room");
        } else {
            die(line, "unknown command, or the disk is not in RING, or there is no data");
        }
        std::fflush(stdout);
    }
    return 0;
}
