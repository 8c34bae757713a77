// SPDX-License-Identifier: Apache-2.0
#include "store/journal_format.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/hash.hpp"

namespace blkferry::store {

namespace {
constexpr std::uint64_t segment_magic = 0x31304C4E524A4642;  // "BFJRNL01"
constexpr std::uint32_t segment_version = 2;
constexpr std::uint32_t entry_magic = 0x454A4642;  // "BFJE"
}  // namespace

std::string_view to_string(EntryType type) noexcept {
    switch (type) {
        case EntryType::frame: return "FRAME";
        case EntryType::session: return "SESSION";
        case EntryType::point: return "POINT";
        case EntryType::pad: return "PAD";
    }
    return "UNKNOWN";
}

SegmentHeaderBytes encode(const SegmentHeader& h) noexcept {
    SegmentHeaderBytes raw{};
    store_le(raw.data(), segment_magic);
    store_le(raw.data() + 8, segment_version);
    std::memcpy(raw.data() + 16, h.store.bytes.data(), h.store.bytes.size());
    store_le(raw.data() + 32, h.number);
    store_le(raw.data() + 40, h.first);
    store_le(raw.data() + 48, h.salt);
    store_le(raw.data() + 56, h.committed);
    store_le(raw.data() + 64, crc32c(std::span(raw).first(64)));
    return raw;
}

Result<SegmentHeader> decode_segment_header(std::span<const std::byte, segment_header_bytes> raw) {
    if (load_le<std::uint64_t>(raw.data()) != segment_magic)
        return fail(Errc::corrupt, "segment header has a wrong magic number");
    if (load_le<std::uint32_t>(raw.data() + 64) != crc32c(raw.first(64)))
        return fail(Errc::corrupt, "segment header checksum is wrong");
    const auto version = load_le<std::uint32_t>(raw.data() + 8);
    if (version != segment_version)
        return fail(Errc::unsupported, fmt::format("segment has format version {}, this program reads {}", version,
                                                   segment_version));
    const auto rest = raw.subspan(68);
    if (load_le<std::uint32_t>(raw.data() + 12) != 0 ||
        !std::ranges::all_of(rest, [](std::byte b) { return b == std::byte{0}; }))
        return fail(Errc::corrupt, "segment header has reserved bytes that are not zero");
    SegmentHeader h;
    std::memcpy(h.store.bytes.data(), raw.data() + 16, h.store.bytes.size());
    h.number = load_le<std::uint64_t>(raw.data() + 32);
    h.first = load_le<std::uint64_t>(raw.data() + 40);
    h.salt = load_le<std::uint64_t>(raw.data() + 48);
    h.committed = load_le<std::uint64_t>(raw.data() + 56);
    if (h.first % entry_align != 0 || h.committed > h.first || h.first > position_max)
        return fail(Errc::corrupt, "segment header has impossible positions");
    return h;
}

EntryHeaderBytes encode(const EntryHeader& h) noexcept {
    EntryHeaderBytes raw{};
    store_le(raw.data(), entry_magic);
    raw[4] = static_cast<std::byte>(h.type);
    store_le(raw.data() + 8, h.length);
    store_le(raw.data() + 12, h.body_crc);
    store_le(raw.data() + 16, h.position);
    store_le(raw.data() + 24, h.committed);
    store_le(raw.data() + 32, h.salt);
    store_le(raw.data() + 44, crc32c(std::span(raw).first(44)));
    return raw;
}

Result<EntryHeader> decode_entry_header(std::span<const std::byte, entry_header_bytes> raw) {
    if (load_le<std::uint32_t>(raw.data()) != entry_magic)
        return fail(Errc::corrupt, "entry has a wrong magic number");
    if (load_le<std::uint32_t>(raw.data() + 44) != crc32c(raw.first(44)))
        return fail(Errc::corrupt, "entry header checksum is wrong");
    const auto type = std::to_integer<unsigned>(raw[4]);
    if (type < static_cast<unsigned>(EntryType::frame) || type > static_cast<unsigned>(EntryType::pad))
        return fail(Errc::corrupt, fmt::format("entry has unknown type {}", type));
    if (raw[5] != std::byte{0} || raw[6] != std::byte{0} || raw[7] != std::byte{0} ||
        load_le<std::uint32_t>(raw.data() + 40) != 0)
        return fail(Errc::corrupt, "entry header has reserved bytes that are not zero");
    EntryHeader h;
    h.type = static_cast<EntryType>(type);
    h.length = load_le<std::uint32_t>(raw.data() + 8);
    h.body_crc = load_le<std::uint32_t>(raw.data() + 12);
    h.position = load_le<std::uint64_t>(raw.data() + 16);
    h.committed = load_le<std::uint64_t>(raw.data() + 24);
    h.salt = load_le<std::uint64_t>(raw.data() + 32);
    const std::uint64_t allowed = h.type == EntryType::pad ? pad_body_bytes_max : entry_body_bytes_max;
    if (h.length > allowed)
        return fail(Errc::corrupt, fmt::format("entry has a body of {} bytes, {} allowed", h.length, allowed));
    if (h.position % entry_align != 0 || h.committed > h.position || h.position > position_max)
        return fail(Errc::corrupt, "entry has impossible positions");
    return h;
}

std::string segment_name(std::uint64_t number) {
    return fmt::format("{:020}.seg", number);
}

std::optional<std::uint64_t> parse_segment_name(std::string_view name) noexcept {
    if (name.size() != 24 || !name.ends_with(".seg"))
        return std::nullopt;
    std::uint64_t number = 0;
    for (const char c : name.substr(0, 20)) {
        if (c < '0' || c > '9' || number > (UINT64_MAX - 9) / 10)
            return std::nullopt;
        number = number * 10 + static_cast<std::uint64_t>(c - '0');
    }
    return number;
}

}  // namespace blkferry::store
