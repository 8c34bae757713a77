// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../unit/store/crash_fs.hpp"
#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "store/disk_table.hpp"
#include "store/journal.hpp"

/// A hostile segment file: scan, cut and append behind it; and the JSON of its entries. The first byte chooses whether the
/// checksums of entries are made right (so that the fuzzer gets behind them).
using namespace blkferry;
using namespace blkferry::store;

namespace {

void repair(std::vector<std::byte>& raw) {
    for (std::size_t at = segment_header_bytes; raw.size() >= at + entry_header_bytes;) {
        std::byte* h = raw.data() + at;
        store_le<std::uint32_t>(h, 0x454A4642);
        h[5] = h[6] = h[7] = std::byte{0};
        store_le<std::uint64_t>(h + 16, at - segment_header_bytes);
        store_le<std::uint64_t>(h + 32, 1);
        store_le<std::uint32_t>(h + 40, 0);
        const std::size_t length = load_le<std::uint32_t>(h + 8) % 4096;
        store_le<std::uint32_t>(h + 8, static_cast<std::uint32_t>(length));
        const std::size_t whole = (entry_header_bytes + length + entry_align - 1) / entry_align * entry_align;
        if (whole > raw.size() - at)
            length == 0 ? void() : raw.resize(at + whole);
        store_le<std::uint32_t>(h = raw.data() + at, 0x454A4642);
        store_le<std::uint32_t>(h + 12, crc32c({h + entry_header_bytes, std::min(length, raw.size() - at - entry_header_bytes)}));
        store_le<std::uint32_t>(h + 44, crc32c({h, 44}));
        at += whole;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    const auto* p = reinterpret_cast<const std::byte*>(data);
    const Uuid id{};
    std::vector<std::byte> raw(segment_header_bytes);
    std::ranges::copy(encode(SegmentHeader{id, 1, 0, 1}), raw.begin());
    raw.insert(raw.end(), p + 1, p + size);
    if ((data[0] & 1U) != 0)
        repair(raw);
    if ((data[0] & 2U) != 0)
        std::copy(p + 1, p + std::min(size, segment_header_bytes), raw.begin());

    test::CrashFs fs;
    auto file = fs.open("/journal/" + segment_name(1), OpenMode::create);
    BLKFERRY_ASSERT(file && (*file)->write(raw, 0));
    std::size_t entries = 0;
    const auto visit = [&](const EntryView& e) -> Result<void> {
        ++entries;
        BLKFERRY_ASSERT(e.body.size() == e.header.length && e.end() > e.position());
        if (auto session = decode_session(e.body)) {
            const std::string text = encode(*session);
            BLKFERRY_ASSERT(decode_session(std::as_bytes(std::span(text))).value() == *session);
            DiskTable table;
            (void)table.begin_session(*session);
        }
        if (auto point = decode_point_entry(e.body)) {
            const std::string text = encode(*point);
            BLKFERRY_ASSERT(decode_point_entry(std::as_bytes(std::span(text))).value() == *point);
        }
        return {};
    };
    auto scan = journal_scan(fs, "/journal", id, 0, visit);
    if (!scan)
        return 0;
    // Whatever was readable stays readable, and what is appended behind it comes next.
    const std::size_t before = entries;
    auto journal = Journal::resume(fs, "/journal", id, {.segment_bytes = segment_bytes_min}, *scan, scan->end);
    BLKFERRY_ASSERT(journal && (*journal)->append(EntryType::frame, std::as_bytes(std::span("abc"))) && (*journal)->commit());
    entries = 0;
    BLKFERRY_ASSERT(journal_scan(fs, "/journal", id, 0, visit));
    BLKFERRY_ASSERT(entries == before + 1);
    return 0;
}
