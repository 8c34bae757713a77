// SPDX-License-Identifier: Apache-2.0
#include "store/block_writer.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/result.hpp"

namespace blkferry::store {

void BlockWriter::begin(std::shared_ptr<File> file, std::uint64_t offset) {
    BLKFERRY_ASSERT(offset % io_align == 0 && emitted_ == used_ && full_.empty());
    file_ = std::move(file);
    // The rest of the buffer is as good for the next file.
    base_ = offset - used_;
}

void BlockWriter::cut(std::vector<WriteTicket>& out) {
    const std::size_t end = static_cast<std::size_t>(align_down(used_));
    if (end == emitted_)
        return;
    out.push_back({++number_, file_, buffer_, buffer_->bytes().subspan(emitted_, end - emitted_), base_ + emitted_});
    emitted_ = end;
}

BlockWriter::Piece BlockWriter::reserve(std::size_t bytes) {
    BLKFERRY_ASSERT(bytes + 2 * io_align <= pool_.buffer_bytes());
    if (!buffer_ || buffer_->size() - used_ < bytes) {
        std::shared_ptr<IoBuffer> next = pool_.take();
        std::size_t carried = 0;
        if (buffer_) {
            cut(full_);
            carried = used_ - emitted_;
            std::memcpy(next->data(), buffer_->data() + emitted_, carried);
        }
        base_ += emitted_;
        used_ = carried;
        emitted_ = 0;
        buffer_ = std::move(next);
    }
    const auto piece = buffer_->bytes().subspan(used_, bytes);
    used_ += bytes;
    return {piece, buffer_};
}

void BlockWriter::fill_block() noexcept {
    if (partial() == 0)
        return;
    const auto end = static_cast<std::size_t>(align_up(used_));
    std::memset(buffer_->data() + used_, 0, end - used_);
    used_ = end;
}

void BlockWriter::emit(std::vector<WriteTicket>& out) {
    std::ranges::move(full_, std::back_inserter(out));
    full_.clear();
    cut(out);
}

void BlockWriter::trim() noexcept {
    if (!buffer_ || emitted_ != used_)
        return;
    base_ += used_;
    used_ = emitted_ = 0;
    buffer_.reset();
}

}  // namespace blkferry::store
