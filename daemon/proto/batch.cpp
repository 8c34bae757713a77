// SPDX-License-Identifier: Apache-2.0
#include "proto/batch.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/bytes.hpp"

namespace blkferry::proto {

namespace {

bool valid_extent(const Extent& e) noexcept {
    return e.count > 0 && e.sector < disk_sectors_max && e.count <= disk_sectors_max - e.sector;
}

bool valid_slot(std::uint16_t slot) noexcept {
    return slot < disks_max;
}

}  // namespace

std::string_view to_string(EpochKind kind) noexcept {
    switch (kind) {
        case EpochKind::initial: return "initial";
        case EpochKind::gap: return "gap";
        case EpochKind::rescan: return "rescan";
    }
    return "unknown";
}

std::string_view to_string(PointKind kind) noexcept {
    switch (kind) {
        case PointKind::crash: return "crash-consistent";
        case PointKind::fs: return "file-system-consistent";
    }
    return "unknown";
}

bool valid_name(std::string_view name) noexcept {
    const auto alnum = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    if (name.empty() || name.size() > name_bytes_max || !alnum(name.front()))
        return false;
    return std::ranges::all_of(name, [&](char c) { return alnum(c) || c == '.' || c == '_' || c == '-'; });
}

Result<ExtentsView> decode_extents(std::span<const std::byte> body) {
    ByteReader in(body);
    const auto count = in.get<std::uint32_t>();
    const auto zero = in.get<std::uint32_t>();
    if (!in.ok() || zero != 0 || count == 0 || count > frame_extents_max)
        return fail(Errc::invalid, fmt::format("EXTENTS refused: {} entries, 1 to {} allowed", count, frame_extents_max));
    ExtentsView view;
    view.entries.reserve(count);
    std::uint64_t payload = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        ExtentEntry e;
        e.slot = in.get<std::uint16_t>();
        const auto kind = in.get<std::uint8_t>();
        const auto pad = in.get<std::uint8_t>();
        e.extent.count = in.get<std::uint32_t>();
        e.extent.sector = in.get<std::uint64_t>();
        if (!in.ok())
            return fail(Errc::invalid, "EXTENTS refused: table is cut short");
        if (kind < 1 || kind > static_cast<unsigned>(ExtentKind::resync_same) || pad != 0)
            return fail(Errc::invalid, fmt::format("EXTENTS refused: entry {} has unknown kind {}", i, kind));
        e.kind = static_cast<ExtentKind>(kind);
        if (!valid_slot(e.slot) || !valid_extent(e.extent))
            return fail(Errc::invalid, fmt::format("EXTENTS refused: entry {} (disk slot {}, sector {}, {} sectors) is out "
                                                   "of range",
                                                   i, e.slot, e.extent.sector, e.extent.count));
        payload += has_payload(e.kind) ? e.extent.count * sector_bytes : 0;  // at most 4096 * 2^41: no overflow
        view.entries.push_back(e);
    }
    view.payload = in.rest();
    if (payload != view.payload.size())
        return fail(Errc::invalid, fmt::format("EXTENTS refused: {} payload bytes, the table says {}",
                                               view.payload.size(), payload));
    return view;
}

void encode_extents_head(std::span<const ExtentEntry> entries, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put<std::uint32_t>(static_cast<std::uint32_t>(entries.size()));
    w.put<std::uint32_t>(0);
    for (const ExtentEntry& e : entries) {
        w.put<std::uint16_t>(e.slot);
        w.put<std::uint8_t>(static_cast<std::uint8_t>(e.kind));
        w.put<std::uint8_t>(0);
        w.put<std::uint32_t>(static_cast<std::uint32_t>(e.extent.count));
        w.put<std::uint64_t>(e.extent.sector);
    }
}

void encode(const BatchBegin& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.prev_mark);
    w.put(m.mark);
    w.put(m.time_ns);
    w.put<std::uint64_t>(0);
}

Result<BatchBegin> decode_batch_begin(std::span<const std::byte> body) {
    ByteReader in(body);
    BatchBegin m;
    m.prev_mark = in.get<std::uint64_t>();
    m.mark = in.get<std::uint64_t>();
    m.time_ns = in.get<std::uint64_t>();
    const auto zero = in.get<std::uint64_t>();
    if (!in.done() || zero != 0 || m.mark < m.prev_mark)
        return fail(Errc::invalid, "BATCH_BEGIN refused: wrong length, reserved field or order of marks");
    return m;
}

void encode(const EpochBegin& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.slot);
    w.put(static_cast<std::uint8_t>(m.kind));
    w.put<std::uint8_t>(0);
    w.put(m.block_shift);
    w.put(m.seq0);
    w.put(m.sectors);
    w.put(m.digest);
    w.put<std::uint64_t>(0);
}

Result<EpochBegin> decode_epoch_begin(std::span<const std::byte> body) {
    ByteReader in(body);
    EpochBegin m;
    m.slot = in.get<std::uint16_t>();
    const auto kind = in.get<std::uint8_t>();
    const auto pad = in.get<std::uint8_t>();
    m.block_shift = in.get<std::uint32_t>();
    m.seq0 = in.get<std::uint64_t>();
    m.sectors = in.get<std::uint64_t>();
    m.digest = in.get<std::uint64_t>();
    const auto zero = in.get<std::uint64_t>();
    if (!in.done() || pad != 0 || zero != 0 || !valid_slot(m.slot) || kind < 1 || kind > 3 || m.block_shift < 12 ||
        m.block_shift > 30 || m.sectors > disk_sectors_max)
        return fail(Errc::invalid, "EPOCH_BEGIN refused: wrong length or a field out of range");
    m.kind = static_cast<EpochKind>(kind);
    return m;
}

void encode(const EpochEnd& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.slot);
    w.put<std::uint16_t>(0);
    w.put<std::uint32_t>(0);
    w.put(m.seq0);
    w.put(m.sectors);
    w.put(m.digest);
}

Result<EpochEnd> decode_epoch_end(std::span<const std::byte> body) {
    ByteReader in(body);
    EpochEnd m;
    m.slot = in.get<std::uint16_t>();
    const auto pad16 = in.get<std::uint16_t>();
    const auto pad32 = in.get<std::uint32_t>();
    m.seq0 = in.get<std::uint64_t>();
    m.sectors = in.get<std::uint64_t>();
    m.digest = in.get<std::uint64_t>();
    if (!in.done() || pad16 != 0 || pad32 != 0 || !valid_slot(m.slot) || m.sectors > disk_sectors_max)
        return fail(Errc::invalid, "EPOCH_END refused: wrong length or a field out of range");
    return m;
}

void encode(const PointRequest& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.request);
    w.put(static_cast<std::uint8_t>(m.kind));
    w.put(static_cast<std::uint8_t>(m.name.size()));
    w.bytes(std::as_bytes(std::span(m.name)));
}

Result<PointRequest> decode_point_request(std::span<const std::byte> body) {
    ByteReader in(body);
    PointRequest m;
    m.request = in.get<std::uint64_t>();
    const auto kind = in.get<std::uint8_t>();
    const auto length = in.get<std::uint8_t>();
    const auto name = in.bytes(length);
    if (!in.done() || kind < 1 || kind > 2)
        return fail(Errc::invalid, "POINT_REQUEST refused: wrong length or unknown kind");
    m.kind = static_cast<PointKind>(kind);
    m.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
    if (!m.name.empty() && !valid_name(m.name))
        return fail(Errc::invalid, "POINT_REQUEST refused: the name may hold letters, digits, '.', '_' and '-' only");
    return m;
}

void encode(const BatchEnd& m, std::vector<std::byte>& out) {
    ByteWriter w(out);
    w.put(m.extents);
    w.put<std::uint32_t>(m.consistent ? 1 : 0);
    w.put(m.payload_bytes);
    w.put(m.sectors);
    w.put(m.digest);
    w.put<std::uint64_t>(0);
}

Result<BatchEnd> decode_batch_end(std::span<const std::byte> body) {
    ByteReader in(body);
    BatchEnd m;
    m.extents = in.get<std::uint32_t>();
    const auto flags = in.get<std::uint32_t>();
    m.payload_bytes = in.get<std::uint64_t>();
    m.sectors = in.get<std::uint64_t>();
    m.digest = in.get<std::uint64_t>();
    const auto zero = in.get<std::uint64_t>();
    if (!in.done() || zero != 0 || flags > 1 || m.extents > batch_extents_max || m.payload_bytes > batch_payload_bytes_max)
        return fail(Errc::invalid, "BATCH_END refused: wrong length or a field out of range");
    m.consistent = flags == 1;
    return m;
}

}  // namespace blkferry::proto
