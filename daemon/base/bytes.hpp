// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace blkferry {

/// Little-endian load and store by explicit byte order; received bytes are never cast to a struct.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T load_le(const std::byte* p) noexcept {
    T v = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        v = static_cast<T>(v | static_cast<T>(static_cast<T>(std::to_integer<std::uint8_t>(p[i])) << (8 * i)));
    return v;
}

template <std::unsigned_integral T>
constexpr void store_le(std::byte* p, T v) noexcept {
    for (std::size_t i = 0; i < sizeof(T); ++i)
        p[i] = static_cast<std::byte>(static_cast<std::uint8_t>(v >> (8 * i)));
}

/// Reads fields from a span in order. A read past the end makes the reader bad and yields 0: check ok() once at the end.
class ByteReader {
public:
    explicit ByteReader(std::span<const std::byte> data) noexcept : data_(data) {}

    template <std::unsigned_integral T>
    [[nodiscard]] T get() noexcept {
        const auto s = bytes(sizeof(T));
        return s.size() == sizeof(T) ? load_le<T>(s.data()) : T{0};
    }
    /// The next n bytes as a view, or an empty span (and a bad reader) if there are fewer.
    [[nodiscard]] std::span<const std::byte> bytes(std::size_t n) noexcept {
        if (bad_ || n > data_.size()) {
            bad_ = true;
            return {};
        }
        auto s = data_.first(n);
        data_ = data_.subspan(n);
        return s;
    }
    [[nodiscard]] std::span<const std::byte> rest() const noexcept { return data_; }
    [[nodiscard]] bool ok() const noexcept { return !bad_; }
    /// Everything was read and nothing was missing.
    [[nodiscard]] bool done() const noexcept { return !bad_ && data_.empty(); }

private:
    std::span<const std::byte> data_;
    bool bad_ = false;
};

/// Appends fields to a vector in little-endian order.
class ByteWriter {
public:
    explicit ByteWriter(std::vector<std::byte>& out) noexcept : out_(out) {}
    template <std::unsigned_integral T>
    void put(T v) {
        const std::size_t at = out_.size();
        out_.resize(at + sizeof(T));
        store_le(out_.data() + at, v);
    }
    void bytes(std::span<const std::byte> s) { out_.insert(out_.end(), s.begin(), s.end()); }

private:
    std::vector<std::byte>& out_;
};

}  // namespace blkferry
