// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"

/// The seam between the store and the disk it lives on: the server uses PosixFileSystem, the crash tests one that loses
/// and tears what was not synced.
namespace blkferry::store {

/// One open file. Closed on destruction (without a sync). One thread at a time, except read() and fd().
class File {
public:
    virtual ~File() = default;
    File() = default;
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    /// Reads up to data.size() bytes at `offset`; fewer only at the end of the file.
    [[nodiscard]] virtual Result<std::size_t> read(std::span<std::byte> data, std::uint64_t offset) = 0;
    /// Writes the parts one behind the other at `offset`, as one request where the system can.
    [[nodiscard]] virtual Result<void> write(std::span<const std::span<const std::byte>> parts, std::uint64_t offset) = 0;
    [[nodiscard]] Result<void> write(std::span<const std::byte> data, std::uint64_t offset) {
        return write(std::span(&data, 1), offset);
    }
    /// Makes a range read as zeroes and frees its blocks where the file system can; never changes the size.
    [[nodiscard]] virtual Result<void> punch(std::uint64_t offset, std::uint64_t bytes) = 0;
    [[nodiscard]] virtual Result<void> truncate(std::uint64_t bytes) = 0;
    /// Takes blocks for a range that reads as zeroes until it is written; makes the file longer if it ends before. Where the
    /// file system cannot it does nothing.
    [[nodiscard]] virtual Result<void> allocate(std::uint64_t offset, std::uint64_t bytes) = 0;
    [[nodiscard]] virtual Result<std::uint64_t> size() = 0;
    /// Bytes of the disk that the file takes.
    [[nodiscard]] virtual Result<std::uint64_t> allocated() = 0;
    /// First byte at or after `offset` that may not be zero, or nothing up to the end of the file.
    [[nodiscard]] virtual Result<std::optional<std::uint64_t>> next_data(std::uint64_t offset) = 0;
    /// First byte at or after `offset` that is in a hole (the end of the file counts as one).
    [[nodiscard]] virtual Result<std::uint64_t> next_hole(std::uint64_t offset) = 0;
    /// fdatasync: contents and size are durable afterwards. After an error nothing may be assumed.
    [[nodiscard]] virtual Result<void> sync() = 0;
    /// Starts writing out a range without waiting. A hint.
    virtual void start_writeback(std::uint64_t offset, std::uint64_t bytes) noexcept = 0;
    /// Makes this (empty) file share all blocks of `source` (FICLONE). Errc::unsupported where it cannot.
    [[nodiscard]] virtual Result<void> reflink_from(File& source) = 0;
    /// Copies a range of `source` to the same offset of this file.
    [[nodiscard]] virtual Result<void> copy_from(File& source, std::uint64_t offset, std::uint64_t bytes) = 0;
    /// The descriptor for io_uring, or -1 if there is none behind it (tests).
    [[nodiscard]] virtual int fd() const noexcept = 0;
    /// Reads and writes go around the page cache: offsets, lengths and memory must be multiples of io_align.
    [[nodiscard]] virtual bool direct() const noexcept { return false; }
};

enum class OpenMode : std::uint8_t {
    read,         ///< existing file, read-only
    update,       ///< existing file, read-write
    create,       ///< new file or existing one emptied, read-write
};

enum class Caching : std::uint8_t {
    page_cache,
    direct,       ///< O_DIRECT where the file system has it, else through the page cache: File::direct() tells
};

/// Names, folders and files. Paths are absolute. Thread-safe.
class FileSystem {
public:
    virtual ~FileSystem() = default;
    /// The error names the path; Errc::not_found if there is no such file.
    [[nodiscard]] virtual Result<std::unique_ptr<File>> open(const std::filesystem::path& path, OpenMode mode,
                                                             Caching caching) = 0;
    [[nodiscard]] Result<std::unique_ptr<File>> open(const std::filesystem::path& path, OpenMode mode) {
        return open(path, mode, Caching::page_cache);
    }
    [[nodiscard]] virtual Result<void> rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
    /// Removes a file; one that does not exist is no error.
    [[nodiscard]] virtual Result<void> remove(const std::filesystem::path& path) = 0;
    /// Makes a folder (its parent exists) and syncs the parent; one that exists is no error.
    [[nodiscard]] virtual Result<void> make_dir(const std::filesystem::path& path) = 0;
    /// Names of the plain files in a folder, unordered.
    [[nodiscard]] virtual Result<std::vector<std::string>> list(const std::filesystem::path& dir) = 0;
    /// Makes the names in a folder durable.
    [[nodiscard]] virtual Result<void> sync_dir(const std::filesystem::path& dir) = 0;
    /// Makes everything on the file system of `dir` durable and reports write errors since the last call.
    [[nodiscard]] virtual Result<void> sync_all(const std::filesystem::path& dir) = 0;

    /// A whole small file as text; larger than `max_bytes` is Errc::invalid.
    [[nodiscard]] Result<std::string> read_text(const std::filesystem::path& path, std::size_t max_bytes);
    /// Replaces a file atomically and durably: temporary file, sync, rename, sync of the folder.
    [[nodiscard]] Result<void> write_text_durable(const std::filesystem::path& path, std::string_view text);
};

/// The real one. It has no state but one descriptor for sync_all(); make one and give it to everybody.
[[nodiscard]] std::unique_ptr<FileSystem> make_posix_file_system();

}  // namespace blkferry::store
