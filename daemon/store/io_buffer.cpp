// SPDX-License-Identifier: Apache-2.0
#include "store/io_buffer.hpp"

#include <cstdlib>

#include "base/result.hpp"

namespace blkferry::store {

void IoBuffer::Free::operator()(std::byte* p) const noexcept {
    std::free(p);
}

IoBuffer::IoBuffer(std::size_t bytes) : size_((bytes + io_align - 1) / io_align * io_align) {
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(io_align, size_)));
    BLKFERRY_ASSERT(data_ != nullptr || size_ == 0);
}

BufferPool::BufferPool(std::size_t buffer_bytes, std::size_t keep_max) : shelf_(std::make_shared<Shelf>()) {
    shelf_->buffer_bytes = buffer_bytes;
    shelf_->keep_max = keep_max;
    shelf_->free.reserve(keep_max);
}

std::shared_ptr<IoBuffer> BufferPool::take() {
    std::unique_ptr<IoBuffer> buffer;
    {
        const std::scoped_lock guard(shelf_->lock);
        if (!shelf_->free.empty()) {
            buffer = std::move(shelf_->free.back());
            shelf_->free.pop_back();
        }
    }
    if (!buffer)
        buffer = std::make_unique<IoBuffer>(shelf_->buffer_bytes);
    return {buffer.release(), [shelf = shelf_](IoBuffer* used) {
                std::unique_ptr<IoBuffer> owned(used);
                const std::scoped_lock guard(shelf->lock);
                if (shelf->free.size() < shelf->keep_max)
                    shelf->free.push_back(std::move(owned));
            }};
}

void BufferPool::trim() noexcept {
    std::vector<std::unique_ptr<IoBuffer>> unused;
    const std::scoped_lock guard(shelf_->lock);
    unused.swap(shelf_->free);
}

}  // namespace blkferry::store
