// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace blkferry::store {

/// Files opened with Caching::direct take offsets, lengths and memory in multiples of this.
inline constexpr std::size_t io_align = 4096;

[[nodiscard]] constexpr std::uint64_t align_down(std::uint64_t n) noexcept { return n / io_align * io_align; }
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t n) noexcept { return align_down(n + io_align - 1); }

/// Memory at a multiple of io_align, not initialised.
class IoBuffer {
public:
    IoBuffer() noexcept = default;
    /// `bytes` is rounded up to io_align.
    explicit IoBuffer(std::size_t bytes);

    [[nodiscard]] std::byte* data() const noexcept { return data_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_.get(), size_}; }

private:
    struct Free {
        void operator()(std::byte* p) const noexcept;
    };
    std::unique_ptr<std::byte, Free> data_;
    std::size_t size_ = 0;
};

/// Buffers of one size, used again and again so that their pages need not be faulted in each time. take() and the release
/// of what it gave may happen in any thread; buffers may outlive the pool.
class BufferPool {
public:
    /// Keeps at most `keep_max` buffers that nobody uses.
    BufferPool(std::size_t buffer_bytes, std::size_t keep_max);

    [[nodiscard]] std::shared_ptr<IoBuffer> take();
    /// Gives the unused ones back to the system.
    void trim() noexcept;
    [[nodiscard]] std::size_t buffer_bytes() const noexcept { return shelf_->buffer_bytes; }

private:
    struct Shelf {
        std::size_t buffer_bytes = 0;
        std::size_t keep_max = 0;
        std::mutex lock;
        std::vector<std::unique_ptr<IoBuffer>> free;
    };
    std::shared_ptr<Shelf> shelf_;
};

}  // namespace blkferry::store
