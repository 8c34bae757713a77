// SPDX-License-Identifier: Apache-2.0
#include "proto/hashing.hpp"

#include <algorithm>
#include <bit>

#include "base/bytes.hpp"
#include "extent/extent.hpp"

namespace blkferry::proto {

void encode(const HashAsk& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.request);
    w.put(m.slot);
    w.put<std::uint16_t>(0);
    w.put(m.block_bytes);
    w.put(m.sector);
    w.put(static_cast<std::uint32_t>(m.hashes.size()));
    w.put<std::uint32_t>(0);
    for (const Sha256& h : m.hashes)
        w.bytes(h);
}

Result<HashAsk> decode_hash_ask(std::span<const std::byte> body) {
    ByteReader in(body);
    HashAsk m;
    m.request = in.get<std::uint64_t>();
    m.slot = in.get<std::uint16_t>();
    const auto pad = in.get<std::uint16_t>();
    m.block_bytes = in.get<std::uint32_t>();
    m.sector = in.get<std::uint64_t>();
    const auto count = in.get<std::uint32_t>();
    const auto zero = in.get<std::uint32_t>();
    if (!in.ok() || pad != 0 || zero != 0 || m.slot >= disks_max || count == 0 || count > hash_blocks_max ||
        !std::has_single_bit(m.block_bytes) || m.block_bytes < hash_block_bytes_min ||
        m.block_bytes > hash_block_bytes_max || m.sector >= disk_sectors_max ||
        m.sector % (m.block_bytes / sector_bytes) != 0)
        return fail(Errc::invalid, "HASH_ASK refused: a field is out of range");
    m.hashes.resize(count);
    for (Sha256& h : m.hashes) {
        const auto raw = in.bytes(h.size());
        if (raw.size() == h.size())
            std::ranges::copy(raw, h.begin());
    }
    if (!in.done())
        return fail(Errc::invalid, "HASH_ASK refused: wrong length");
    return m;
}

void encode(const HashReply& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.request);
    w.put(static_cast<std::uint32_t>(m.differs.size()));
    w.put<std::uint32_t>(0);
    std::vector<std::byte> bits((m.differs.size() + 7) / 8);
    for (std::size_t i = 0; i < m.differs.size(); ++i)
        if (m.differs[i])
            bits[i / 8] |= static_cast<std::byte>(1U << (i % 8));
    w.bytes(bits);
}

Result<HashReply> decode_hash_reply(std::span<const std::byte> body) {
    ByteReader in(body);
    HashReply m;
    m.request = in.get<std::uint64_t>();
    const auto count = in.get<std::uint32_t>();
    const auto zero = in.get<std::uint32_t>();
    if (!in.ok() || zero != 0 || count == 0 || count > hash_blocks_max)
        return fail(Errc::invalid, "HASH_REPLY refused: a field is out of range");
    const auto bits = in.bytes((count + 7) / 8);
    if (!in.done())
        return fail(Errc::invalid, "HASH_REPLY refused: wrong length");
    m.differs.resize(count);
    for (std::uint32_t i = 0; i < count; ++i)
        m.differs[i] = ((std::to_integer<unsigned>(bits[i / 8]) >> (i % 8)) & 1U) != 0;
    if (count % 8 != 0 && (std::to_integer<unsigned>(bits.back()) >> (count % 8)) != 0)
        return fail(Errc::invalid, "HASH_REPLY refused: a bit beyond the last block is set");
    return m;
}

}  // namespace blkferry::proto
