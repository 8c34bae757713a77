// SPDX-License-Identifier: Apache-2.0
#include "base/hash.hpp"

#include <isa-l/crc.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include "base/result.hpp"

namespace blkferry {

std::uint32_t crc32c(std::span<const std::byte> data) noexcept {
    return crc32c(0, data);
}

std::uint32_t crc32c(std::uint32_t before, std::span<const std::byte> data) noexcept {
    // isa-l takes a non-const pointer but only reads.
    auto* p = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(data.data()));
    std::uint32_t crc = before ^ 0xffffffffU;
    constexpr std::size_t step = std::size_t{1} << 30;
    for (std::size_t at = 0; at < data.size(); at += step)
        crc = crc32_iscsi(p + at, static_cast<int>(data.size() - at < step ? data.size() - at : step), crc);
    return crc ^ 0xffffffffU;
}

std::uint64_t xxh3(std::span<const std::byte> data) noexcept {
    return XXH3_64bits(data.data(), data.size());
}

Sha256 sha256(std::span<const std::byte> data) {
    Sha256 out;
    unsigned int n = 0;
    BLKFERRY_ASSERT(EVP_Digest(data.data(), data.size(), reinterpret_cast<unsigned char*>(out.data()), &n, EVP_sha256(),
                               nullptr) == 1 &&
                    n == out.size());
    return out;
}

Sha256Stream::Sha256Stream() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    BLKFERRY_ASSERT(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256Stream::add(std::span<const std::byte> data) {
    BLKFERRY_ASSERT(EVP_DigestUpdate(context_.get(), data.data(), data.size()) == 1);
}

Sha256 Sha256Stream::value() {
    Sha256 out;
    BLKFERRY_ASSERT(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(out.data()), nullptr) == 1);
    return out;
}

}  // namespace blkferry
