// SPDX-License-Identifier: Apache-2.0
#include "base/fd.hpp"

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace blkferry {

Fd& Fd::operator=(Fd&& other) noexcept {
    if (this != &other) {
        reset();
        fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
}

void Fd::reset() noexcept {
    if (fd_ >= 0)
        ::close(std::exchange(fd_, -1));
}

Result<Fd> open_file(const std::filesystem::path& path, int flags, mode_t mode) {
    return open_file_at(AT_FDCWD, path, flags, mode);
}

Result<Fd> open_file_at(int dir, const std::filesystem::path& path, int flags, mode_t mode) {
    int fd = -1;
    do {
        fd = ::openat(dir, path.c_str(), flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return fail_errno(errno, fmt::format("cannot open {}", path.string()));
    return Fd(fd);
}

Result<void> read_full_at(int fd, std::span<std::byte> data, std::uint64_t offset, std::string_view what) {
    while (!data.empty()) {
        const ssize_t n = ::pread(fd, data.data(), data.size(), static_cast<off_t>(offset));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return fail_errno(errno, fmt::format("cannot read {} at byte {}", what, offset));
        }
        if (n == 0)
            return fail(Errc::corrupt, fmt::format("{} ends at byte {}, {} more expected", what, offset, data.size()));
        data = data.subspan(static_cast<std::size_t>(n));
        offset += static_cast<std::uint64_t>(n);
    }
    return {};
}

Result<void> write_full_at(int fd, std::span<const std::byte> data, std::uint64_t offset, std::string_view what) {
    while (!data.empty()) {
        const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return fail_errno(errno, fmt::format("cannot write {} at byte {}", what, offset));
        }
        data = data.subspan(static_cast<std::size_t>(n));
        offset += static_cast<std::uint64_t>(n);
    }
    return {};
}

Result<std::string> read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
    BLKFERRY_TRY_ASSIGN(Fd fd, open_file(path, O_RDONLY));
    std::string text;
    char buffer[16384];
    for (;;) {
        const ssize_t n = ::read(fd.get(), buffer, sizeof(buffer));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return fail_errno(errno, fmt::format("cannot read {}", path.string()));
        }
        if (n == 0)
            return text;
        if (text.size() + static_cast<std::size_t>(n) > max_bytes)
            return fail(Errc::invalid, fmt::format("{} is larger than {} bytes", path.string(), max_bytes));
        text.append(buffer, static_cast<std::size_t>(n));
    }
}

Result<void> sync_dir(const std::filesystem::path& dir) {
    BLKFERRY_TRY_ASSIGN(Fd fd, open_file(dir, O_RDONLY | O_DIRECTORY));
    if (::fsync(fd.get()) != 0)
        return fail_errno(errno, fmt::format("cannot sync folder {}", dir.string()));
    return {};
}

Result<void> write_file_durable(const std::filesystem::path& path, std::string_view text, mode_t mode) {
    std::filesystem::path tmp = path;
    tmp += fmt::format(".tmp{}", ::getpid());
    {
        BLKFERRY_TRY_ASSIGN(Fd fd, open_file(tmp, O_WRONLY | O_CREAT | O_TRUNC, mode));
        BLKFERRY_TRY(write_full_at(fd.get(), std::as_bytes(std::span(text)), 0, tmp.string()));
        if (::fsync(fd.get()) != 0)
            return fail_errno(errno, fmt::format("cannot sync {}", tmp.string()));
    }
    if (::rename(tmp.c_str(), path.c_str()) != 0)
        return fail_errno(errno, fmt::format("cannot rename {} to {}", tmp.string(), path.string()));
    return sync_dir(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    if (this != &other) {
        reset();
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
    }
    return *this;
}

Result<Mapping> Mapping::map(int fd, std::size_t size, int prot, std::uint64_t offset, std::string_view what) {
    void* p = ::mmap(nullptr, size, prot, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (p == MAP_FAILED)
        return fail_errno(errno, fmt::format("cannot map {} bytes of {}", size, what));
    Mapping m;
    m.data_ = static_cast<std::byte*>(p);
    m.size_ = size;
    return m;
}

void Mapping::reset() noexcept {
    if (data_ != nullptr)
        ::munmap(std::exchange(data_, nullptr), std::exchange(size_, 0));
}

}  // namespace blkferry
