// SPDX-License-Identifier: Apache-2.0
#include "store/file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/fd.hpp"
#include "store/io_buffer.hpp"

namespace blkferry::store {

namespace {

class PosixFile final : public File {
public:
    PosixFile(Fd fd, std::string path, bool direct) : fd_(std::move(fd)), path_(std::move(path)), direct_(direct) {}

    Result<std::size_t> read(std::span<std::byte> data, std::uint64_t offset) override {
        std::size_t done = 0;
        while (done < data.size()) {
            const ssize_t n = ::pread(fd_.get(), data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
            if (n < 0) {
                if (errno == EINTR)
                    continue;
                return error("read", offset + done);
            }
            if (n == 0)
                break;
            done += static_cast<std::size_t>(n);
            if (direct_ && done % io_align != 0)
                break;  // the end of the file
        }
        return done;
    }

    Result<void> write(std::span<const std::span<const std::byte>> parts, std::uint64_t offset) override {
        std::array<iovec, 8> iov;
        while (!parts.empty()) {
            const std::size_t count = std::min(parts.size(), iov.size());
            for (std::size_t i = 0; i < count; ++i)
                iov[i] = {const_cast<std::byte*>(parts[i].data()), parts[i].size()};
            BLKFERRY_TRY(write_vector(std::span(iov).first(count), offset));
            for (std::size_t i = 0; i < count; ++i)
                offset += parts[i].size();
            parts = parts.subspan(count);
        }
        return {};
    }

    Result<void> punch(std::uint64_t offset, std::uint64_t bytes) override {
        const auto at = static_cast<off_t>(offset);
        const auto length = static_cast<off_t>(bytes);
        if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length) == 0)
            return {};
        if (errno != EOPNOTSUPP)
            return error("punch", offset);
        return write_zeroes(offset, bytes);
    }

    Result<void> truncate(std::uint64_t bytes) override {
        if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0)
            return error("truncate", bytes);
        return {};
    }

    Result<void> allocate(std::uint64_t offset, std::uint64_t bytes) override {
        int r = 0;
        do
            r = ::fallocate(fd_.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(bytes));
        while (r != 0 && errno == EINTR);
        if (r != 0 && errno != EOPNOTSUPP)
            return error("allocate", offset);
        return {};
    }

    Result<std::uint64_t> size() override {
        struct stat st {};
        if (::fstat(fd_.get(), &st) != 0)
            return error("stat", 0);
        return static_cast<std::uint64_t>(st.st_size);
    }

    Result<std::uint64_t> allocated() override {
        struct stat st {};
        if (::fstat(fd_.get(), &st) != 0)
            return error("stat", 0);
        return static_cast<std::uint64_t>(st.st_blocks) * 512;
    }

    Result<std::optional<std::uint64_t>> next_data(std::uint64_t offset) override {
        const off_t at = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
        if (at >= 0)
            return static_cast<std::uint64_t>(at);
        if (errno == ENXIO)
            return std::nullopt;
        if (errno != EINVAL && errno != EOPNOTSUPP)
            return error("seek", offset);
        BLKFERRY_TRY_ASSIGN(const std::uint64_t end, size());
        return offset < end ? std::optional(offset) : std::nullopt;
    }

    Result<std::uint64_t> next_hole(std::uint64_t offset) override {
        const off_t at = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_HOLE);
        if (at >= 0)
            return static_cast<std::uint64_t>(at);
        if (errno == ENXIO)
            return offset;
        if (errno != EINVAL && errno != EOPNOTSUPP)
            return error("seek", offset);
        BLKFERRY_TRY_ASSIGN(const std::uint64_t end, size());
        return std::max(end, offset);
    }

    Result<void> sync() override {
        if (::fdatasync(fd_.get()) != 0)
            return error("sync", 0);
        return {};
    }

    void start_writeback(std::uint64_t offset, std::uint64_t bytes) noexcept override {
        (void)::sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
    }

    Result<void> reflink_from(File& source) override {
        if (::ioctl(fd_.get(), FICLONE, source.fd()) == 0)
            return {};
        if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV || errno == EINVAL)
            return fail(Errc::unsupported, fmt::format("{}: the file system cannot share blocks (reflink)", path_));
        return error("reflink", 0);
    }

    Result<void> copy_from(File& source, std::uint64_t offset, std::uint64_t bytes) override {
        auto from = static_cast<off_t>(offset);
        auto to = from;
        while (bytes > 0) {
            const ssize_t n = ::copy_file_range(source.fd(), &from, fd_.get(), &to, bytes, 0);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS))
                return copy_by_hand(source, static_cast<std::uint64_t>(to), bytes);
            if (n < 0)
                return error("copy", static_cast<std::uint64_t>(to));
            if (n == 0)
                break;
            bytes -= static_cast<std::uint64_t>(n);
        }
        return {};
    }

    int fd() const noexcept override { return fd_.get(); }
    bool direct() const noexcept override { return direct_; }

private:
    std::unexpected<Error> error(std::string_view verb, std::uint64_t offset) const {
        return fail_errno(errno, fmt::format("cannot {} {} at byte {}", verb, path_, offset));
    }

    Result<void> write_vector(std::span<iovec> iov, std::uint64_t offset) {
        while (!iov.empty()) {
            const ssize_t n = ::pwritev(fd_.get(), iov.data(), static_cast<int>(iov.size()), static_cast<off_t>(offset));
            if (n < 0) {
                if (errno == EINTR)
                    continue;
                return error("write", offset);
            }
            auto left = static_cast<std::size_t>(n);
            offset += left;
            while (!iov.empty() && left >= iov.front().iov_len) {
                left -= iov.front().iov_len;
                iov = iov.subspan(1);
            }
            if (!iov.empty()) {
                iov.front().iov_base = static_cast<std::byte*>(iov.front().iov_base) + left;
                iov.front().iov_len -= left;
            }
        }
        return {};
    }

    Result<void> write_zeroes(std::uint64_t offset, std::uint64_t bytes) {
        static constexpr std::array<std::byte, 65536> zeroes{};
        BLKFERRY_TRY_ASSIGN(const std::uint64_t end, size());
        bytes = offset < end ? std::min(bytes, end - offset) : 0;
        while (bytes > 0) {
            const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, zeroes.size()));
            BLKFERRY_TRY(File::write(std::span(zeroes).first(part), offset));
            offset += part;
            bytes -= part;
        }
        return {};
    }

    Result<void> copy_by_hand(File& source, std::uint64_t offset, std::uint64_t bytes) {
        std::vector<std::byte> buffer(256U << 10);
        while (bytes > 0) {
            const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, buffer.size()));
            BLKFERRY_TRY_ASSIGN(const std::size_t n, source.read(std::span(buffer).first(part), offset));
            if (n == 0)
                break;
            BLKFERRY_TRY(File::write(std::span(buffer).first(n), offset));
            offset += n;
            bytes -= n;
        }
        return {};
    }

    Fd fd_;
    const std::string path_;
    const bool direct_;
};

class PosixFileSystem final : public FileSystem {
public:
    Result<std::unique_ptr<File>> open(const std::filesystem::path& path, OpenMode mode, Caching caching) override {
        int flags = O_NOFOLLOW;
        switch (mode) {
            case OpenMode::read: flags |= O_RDONLY; break;
            case OpenMode::update: flags |= O_RDWR; break;
            case OpenMode::create: flags |= O_RDWR | O_CREAT | O_TRUNC; break;
        }
        if (caching == Caching::direct) {
            auto fd = open_file(path, flags | O_DIRECT, 0600);
            if (fd)
                return std::make_unique<PosixFile>(std::move(*fd), path.string(), true);
            if (fd.error().sys_errno != EINVAL)
                return std::unexpected(std::move(fd).error());
        }
        BLKFERRY_TRY_ASSIGN(Fd fd, open_file(path, flags, 0600));
        return std::make_unique<PosixFile>(std::move(fd), path.string(), false);
    }

    Result<void> rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
        if (::rename(from.c_str(), to.c_str()) != 0)
            return fail_errno(errno, fmt::format("cannot rename {} to {}", from.string(), to.string()));
        return {};
    }

    Result<void> remove(const std::filesystem::path& path) override {
        if (::unlink(path.c_str()) != 0 && errno != ENOENT)
            return fail_errno(errno, fmt::format("cannot remove {}", path.string()));
        return {};
    }

    Result<void> make_dir(const std::filesystem::path& path) override {
        if (::mkdir(path.c_str(), 0700) == 0)
            return blkferry::sync_dir(path.parent_path());
        const int err = errno;
        struct stat st {};
        if (err == EEXIST && ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode))
            return {};
        return fail_errno(err, fmt::format("cannot make folder {}", path.string()));
    }

    Result<std::vector<std::string>> list(const std::filesystem::path& dir) override {
        std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(dir.c_str()), &::closedir);
        if (!stream)
            return fail_errno(errno, fmt::format("cannot list {}", dir.string()));
        std::vector<std::string> names;
        for (;;) {
            errno = 0;
            const dirent* entry = ::readdir(stream.get());
            if (entry == nullptr) {
                if (errno != 0)
                    return fail_errno(errno, fmt::format("cannot list {}", dir.string()));
                return names;
            }
            const bool plain = entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN;
            if (plain && entry->d_name[0] != '.')
                names.emplace_back(entry->d_name);
        }
    }

    Result<void> sync_dir(const std::filesystem::path& dir) override { return blkferry::sync_dir(dir); }

    Result<void> sync_all(const std::filesystem::path& dir) override {
        BLKFERRY_TRY_ASSIGN(Fd fd, open_file(dir, O_RDONLY | O_DIRECTORY));
        if (::syncfs(fd.get()) != 0)
            return fail_errno(errno, fmt::format("cannot sync the file system of {}", dir.string()));
        return {};
    }
};

}  // namespace

Result<std::string> FileSystem::read_text(const std::filesystem::path& path, std::size_t max_bytes) {
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> file, open(path, OpenMode::read));
    BLKFERRY_TRY_ASSIGN(const std::uint64_t bytes, file->size());
    if (bytes > max_bytes)
        return fail(Errc::invalid, fmt::format("{} has {} bytes, {} allowed", path.string(), bytes, max_bytes));
    std::string text(static_cast<std::size_t>(bytes), '\0');
    BLKFERRY_TRY_ASSIGN(const std::size_t n, file->read(std::as_writable_bytes(std::span(text)), 0));
    text.resize(n);
    return text;
}

Result<void> FileSystem::write_text_durable(const std::filesystem::path& path, std::string_view text) {
    std::filesystem::path fresh = path;
    fresh += ".new";
    {
        BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> file, open(fresh, OpenMode::create));
        BLKFERRY_TRY(file->write(std::as_bytes(std::span(text)), 0));
        BLKFERRY_TRY(file->sync());
    }
    BLKFERRY_TRY(rename(fresh, path));
    return sync_dir(path.parent_path());
}

std::unique_ptr<FileSystem> make_posix_file_system() {
    return std::make_unique<PosixFileSystem>();
}

}  // namespace blkferry::store
