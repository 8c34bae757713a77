// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "store/file.hpp"
#include "store/io_buffer.hpp"

namespace blkferry::store {

/// Pieces that follow each other in one file, gathered in aligned memory and written around the page cache in few large
/// writes. What was appended is not in the file before flush(): the owner flushes before anything else touches the range.
/// One thread. An error leaves the run unusable: what was appended may be there in part.
class DirectRun {
public:
    /// Memory of `buffer_bytes` (rounded up to io_align) is taken at the first use.
    explicit DirectRun(std::size_t buffer_bytes) : buffer_bytes_(align_up(buffer_bytes)) {}

    /// `direct` and `cached` are the same file; the last part of a block goes through `cached`. `offset` is a multiple of
    /// io_align. The run before was flushed.
    void begin(std::shared_ptr<File> direct, std::shared_ptr<File> cached, std::uint64_t offset);
    [[nodiscard]] bool open() const noexcept { return direct_ != nullptr; }
    /// Where the next piece of an open run goes.
    [[nodiscard]] std::uint64_t end() const noexcept { return offset_ + used_; }
    /// Whether some of these bytes wait in memory.
    [[nodiscard]] bool holds(std::uint64_t offset, std::uint64_t bytes) const noexcept {
        return used_ > 0 && offset < end() && offset_ < offset + bytes;
    }
    /// Adds what lies at end().
    [[nodiscard]] Result<void> append(std::span<const std::byte> data);
    /// Writes what waits and closes the run. It is no more durable than any other write.
    [[nodiscard]] Result<void> flush();
    /// Gives the memory back; nothing waits.
    void release() noexcept { buffer_ = {}; }

private:
    [[nodiscard]] Result<void> write_out();

    const std::size_t buffer_bytes_;
    std::shared_ptr<File> direct_;
    std::shared_ptr<File> cached_;
    IoBuffer buffer_;
    std::uint64_t offset_ = 0;  ///< in the file, of the first byte that waits
    std::size_t used_ = 0;
};

}  // namespace blkferry::store
