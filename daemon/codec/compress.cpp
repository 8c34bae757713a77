// SPDX-License-Identifier: Apache-2.0
#include "codec/compress.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <lz4.h>
#include <zstd.h>

namespace blkferry {

std::string_view to_string(Codec codec) noexcept {
    switch (codec) {
        case Codec::none: return "none";
        case Codec::lz4: return "lz4";
        case Codec::zstd: return "zstd";
    }
    return "unknown";
}

Result<Codec> parse_codec(std::string_view text) {
    for (const Codec c : {Codec::none, Codec::lz4, Codec::zstd})
        if (text == to_string(c))
            return c;
    return fail(Errc::invalid, fmt::format("'{}' is not a compression; use none, lz4 or zstd", text.substr(0, 32)));
}

struct Compressor::Impl {
    Codec codec;
    int level;
    ZSTD_CCtx* zstd = nullptr;
    std::vector<char> lz4_state;
};

Compressor::Compressor(Codec codec, int level) : impl_(std::make_unique<Impl>(codec, level)) {
    if (codec == Codec::zstd) {
        impl_->zstd = ZSTD_createCCtx();
        BLKFERRY_ASSERT(impl_->zstd != nullptr);
    } else if (codec == Codec::lz4) {
        impl_->lz4_state.resize(static_cast<std::size_t>(LZ4_sizeofState()));
    }
}

Compressor::~Compressor() {
    if (impl_)
        ZSTD_freeCCtx(impl_->zstd);
}
Compressor::Compressor(Compressor&&) noexcept = default;
Compressor& Compressor::operator=(Compressor&& other) noexcept {
    std::swap(impl_, other.impl_);
    return *this;
}

Codec Compressor::codec() const noexcept {
    return impl_->codec;
}

bool Compressor::compress(std::span<const std::byte> raw, std::vector<std::byte>& out) {
    const std::size_t at = out.size();
    if (impl_->codec == Codec::none || raw.empty())
        return false;
    out.resize(at + room(raw.size()));
    const std::size_t n = compress_into(raw, std::span(out).subspan(at));
    out.resize(at + n);
    return n != 0;
}

std::size_t Compressor::compress_into(std::span<const std::byte> raw, std::span<std::byte> out) {
    const std::size_t limit = room(raw.size());
    if (impl_->codec == Codec::none || limit == 0)
        return 0;
    BLKFERRY_ASSERT(out.size() >= limit);
    if (impl_->codec == Codec::zstd) {
        const std::size_t n = ZSTD_compressCCtx(impl_->zstd, out.data(), limit, raw.data(), raw.size(), impl_->level);
        return ZSTD_isError(n) ? 0 : n;
    }
    const int n = LZ4_compress_fast_extState(impl_->lz4_state.data(), reinterpret_cast<const char*>(raw.data()),
                                             reinterpret_cast<char*>(out.data()), static_cast<int>(raw.size()),
                                             static_cast<int>(limit), 1);
    return n > 0 ? static_cast<std::size_t>(n) : 0;
}

struct Decompressor::Impl {
    ZSTD_DCtx* zstd = nullptr;
};

Decompressor::Decompressor() : impl_(std::make_unique<Impl>()) {}
Decompressor::~Decompressor() {
    if (impl_)
        ZSTD_freeDCtx(impl_->zstd);
}
Decompressor::Decompressor(Decompressor&&) noexcept = default;
Decompressor& Decompressor::operator=(Decompressor&& other) noexcept {
    std::swap(impl_, other.impl_);
    return *this;
}

Result<void> Decompressor::decompress(Codec codec, std::span<const std::byte> wire, std::span<std::byte> raw) {
    switch (codec) {
        case Codec::none:
            if (wire.size() != raw.size())
                return fail(Errc::corrupt, "body length differs from its stated length");
            std::ranges::copy(wire, raw.begin());
            return {};
        case Codec::lz4: {
            const int n = LZ4_decompress_safe(reinterpret_cast<const char*>(wire.data()),
                                              reinterpret_cast<char*>(raw.data()), static_cast<int>(wire.size()),
                                              static_cast<int>(raw.size()));
            if (n < 0 || static_cast<std::size_t>(n) != raw.size())
                return fail(Errc::corrupt, "lz4 body does not decompress to its stated length");
            return {};
        }
        case Codec::zstd: {
            if (impl_->zstd == nullptr) {
                impl_->zstd = ZSTD_createDCtx();
                BLKFERRY_ASSERT(impl_->zstd != nullptr);
            }
            const std::size_t n =
                ZSTD_decompressDCtx(impl_->zstd, raw.data(), raw.size(), wire.data(), wire.size());
            if (ZSTD_isError(n) || n != raw.size())
                return fail(Errc::corrupt, "zstd body does not decompress to its stated length");
            return {};
        }
    }
    return fail(Errc::invalid, fmt::format("unknown compression {}", static_cast<unsigned>(codec)));
}

}  // namespace blkferry
