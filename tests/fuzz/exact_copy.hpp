// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

/// The input behind its first byte in memory of exactly its size, so that a sanitizer sees what reads beyond it, aligned as a receive buffer is.
class ExactCopy {
public:
    /// `size` is at least 1.
    ExactCopy(const std::uint8_t* data, std::size_t size) : raw_(std::malloc(size == 1 ? 1 : size - 1)), bytes_(static_cast<std::byte*>(raw_.get()), size - 1) {
        std::memcpy(raw_.get(), data + 1, size - 1);
    }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

private:
    struct Free {
        void operator()(void* p) const noexcept { std::free(p); }
    };
    std::unique_ptr<void, Free> raw_;
    std::span<std::byte> bytes_;
};
