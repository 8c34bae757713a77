// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "store/file.hpp"
#include "store/io_buffer.hpp"

namespace blkferry::store {

/// A piece of a file to be written, by io_uring or by file->write(data, offset): whole blocks, aligned for direct I/O. Holds
/// file and memory until it is dropped.
struct WriteTicket {
    std::uint64_t number = 0;            ///< counts up in one journal
    std::shared_ptr<File> file;
    std::shared_ptr<IoBuffer> buffer;
    std::span<const std::byte> data;     ///< in `buffer`
    std::uint64_t offset = 0;            ///< in `file`
};

/// Turns bytes that are appended to a file into tickets for whole blocks. Every block goes out once. Memory stays as it was
/// written for as long as somebody holds the buffer. One thread.
class BlockWriter {
public:
    /// A piece of a pooled buffer that holds what was appended.
    struct Piece {
        std::span<std::byte> bytes;
        std::shared_ptr<IoBuffer> owner;
    };

    explicit BlockWriter(BufferPool& pool) : pool_(pool) {}

    /// Goes on in another file, at `offset` (whole blocks). Everything before was emitted.
    void begin(std::shared_ptr<File> file, std::uint64_t offset);
    /// Room for `bytes` in one piece, to be filled by the caller before the next call. At most a buffer less two blocks.
    [[nodiscard]] Piece reserve(std::size_t bytes);
    /// Bytes in the last block, which is not full; 0 if it is.
    [[nodiscard]] std::size_t partial() const noexcept { return used_ % io_align; }
    /// Fills the last block up with zeroes.
    void fill_block() noexcept;
    /// Puts all full blocks that are not out yet into `out`.
    void emit(std::vector<WriteTicket>& out);
    /// What reserve() had to put out to make room, to be taken with the next emit().
    [[nodiscard]] bool has_full_buffer() const noexcept { return !full_.empty(); }
    /// Lets the buffer go; everything was emitted.
    void trim() noexcept;
    [[nodiscard]] std::uint64_t last_number() const noexcept { return number_; }

private:
    void cut(std::vector<WriteTicket>& out);

    BufferPool& pool_;
    std::shared_ptr<File> file_;
    std::shared_ptr<IoBuffer> buffer_;
    std::uint64_t base_ = 0;     ///< file offset of the buffer's begin
    std::size_t used_ = 0;
    std::size_t emitted_ = 0;    ///< whole blocks
    std::uint64_t number_ = 0;
    std::vector<WriteTicket> full_;
};

}  // namespace blkferry::store
