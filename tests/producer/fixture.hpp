// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "capture/socket_tracker.hpp"
#include "machine.hpp"
#include "server.hpp"

namespace blkferry::producer {

/// A temporary folder with device files, a machine over them and a served socket.
struct Fixture {
    explicit Fixture(std::size_t devices, std::uint64_t bytes = 4U << 20, std::uint64_t seed = 1) {
        std::string pattern = (std::filesystem::temp_directory_path() / "blkferry-producer-XXXXXX").string();
        BLKFERRY_ASSERT(::mkdtemp(pattern.data()) != nullptr);
        dir = pattern;
        std::mt19937_64 rng(seed);
        for (std::size_t i = 0; i < devices; ++i) {
            const std::string path = dir / ("disk" + std::to_string(i));
            std::vector<std::byte> raw(bytes);
            for (std::size_t k = 0; k < bytes; k += 8)
                store_le<std::uint64_t>(raw.data() + k, rng());
            auto fd = open_file(path, O_RDWR | O_CREAT | O_EXCL);
            BLKFERRY_ASSERT(fd && write_full_at(fd->get(), raw, 0, path));
            auto dev = machine.add_device(path);
            BLKFERRY_ASSERT(dev.has_value());
            devs.push_back(*dev);
            paths.push_back(path);
        }
        auto s = Server::start(machine, dir / "socket");
        BLKFERRY_ASSERT(s.has_value());
        server = std::move(*s);
    }
    ~Fixture() {
        server.reset();
        std::error_code ignored;
        std::filesystem::remove_all(dir, ignored);
    }
    [[nodiscard]] std::unique_ptr<capture::SocketTracker> connect() const {
        auto t = capture::SocketTracker::connect(dir / "socket");
        BLKFERRY_ASSERT(t.has_value());
        return std::move(*t);
    }
    [[nodiscard]] std::vector<std::byte> contents(std::size_t device) const {
        std::vector<std::byte> raw(std::filesystem::file_size(paths[device]));
        auto fd = open_file(paths[device], O_RDONLY);
        BLKFERRY_ASSERT(fd && read_full_at(fd->get(), raw, 0, paths[device]));
        return raw;
    }

    std::filesystem::path dir;
    Machine machine;
    std::vector<std::uint64_t> devs;
    std::vector<std::string> paths;
    std::unique_ptr<Server> server;
};

}  // namespace blkferry::producer
