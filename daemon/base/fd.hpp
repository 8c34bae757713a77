// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include <sys/types.h>

#include "base/result.hpp"

namespace blkferry {

/// The only owner of a file descriptor; move-only, closes on destruction.
class Fd {
public:
    Fd() noexcept = default;
    explicit Fd(int fd) noexcept : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept;
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() { reset(); }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    void reset() noexcept;

private:
    int fd_ = -1;
};

/// open(2) with O_CLOEXEC added; the error names the path.
[[nodiscard]] Result<Fd> open_file(const std::filesystem::path& path, int flags, mode_t mode = 0600);
/// openat(2) with O_CLOEXEC added.
[[nodiscard]] Result<Fd> open_file_at(int dir, const std::filesystem::path& path, int flags, mode_t mode = 0600);

/// Reads exactly data.size() bytes at `offset` (restarts short reads and EINTR). End of file before that is Errc::corrupt.
[[nodiscard]] Result<void> read_full_at(int fd, std::span<std::byte> data, std::uint64_t offset, std::string_view what);
/// Writes all of `data` at `offset` (restarts short writes and EINTR).
[[nodiscard]] Result<void> write_full_at(int fd, std::span<const std::byte> data, std::uint64_t offset,
                                         std::string_view what);
/// Reads a whole file of at most `max_bytes`; larger is Errc::invalid.
[[nodiscard]] Result<std::string> read_text_file(const std::filesystem::path& path, std::size_t max_bytes);
/// Replaces a file atomically and durably: temporary file in the same folder, fsync, rename, fsync of the folder.
[[nodiscard]] Result<void> write_file_durable(const std::filesystem::path& path, std::string_view text,
                                              mode_t mode = 0600);
/// fsync of a folder, so that names in it are durable.
[[nodiscard]] Result<void> sync_dir(const std::filesystem::path& dir);

/// A shared memory mapping; move-only, unmaps on destruction.
class Mapping {
public:
    Mapping() noexcept = default;
    Mapping(Mapping&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Mapping& operator=(Mapping&& other) noexcept;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() { reset(); }

    /// mmap(2) MAP_SHARED of `size` bytes at `offset`.
    [[nodiscard]] static Result<Mapping> map(int fd, std::size_t size, int prot, std::uint64_t offset,
                                             std::string_view what);
    [[nodiscard]] std::byte* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    void reset() noexcept;

private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace blkferry
