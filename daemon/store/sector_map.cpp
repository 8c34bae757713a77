// SPDX-License-Identifier: Apache-2.0
#include "store/sector_map.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "extent/extent_set.hpp"

namespace blkferry::store {

namespace {

constexpr std::size_t block_words = SectorMap::block_sectors / 64;
constexpr std::size_t page_words = SectorMap::page_sectors / 64;
constexpr std::size_t page_blocks = SectorMap::page_bytes / SectorMap::block_bytes;
constexpr std::size_t checksum_at = SectorMap::block_bytes - 4;
static_assert(page_blocks == 8);  // Page::damaged
using RawPage = std::array<std::byte, SectorMap::page_bytes>;

/// A block of zeroes is a hole, or was never written.
bool intact(std::span<const std::byte> block) noexcept {
    const auto told = load_le<std::uint32_t>(block.data() + checksum_at);
    if (told == crc32c(block.first(checksum_at)))
        return true;
    return told == 0 && std::ranges::all_of(block, [](std::byte b) { return b == std::byte{0}; });
}

/// The blocks whose checksum is wrong; their words are those of `damaged`.
std::uint8_t decode(const RawPage& raw, SectorMap::Damaged damaged, std::span<std::uint64_t> words) noexcept {
    std::uint8_t wrong = 0;
    for (std::size_t b = 0; b < page_blocks; ++b) {
        const auto block = std::span(raw).subspan(b * SectorMap::block_bytes, SectorMap::block_bytes);
        const auto out = words.subspan(b * block_words, block_words);
        if (intact(block)) {
            for (std::size_t i = 0; i < block_words; ++i)
                out[i] = load_le<std::uint64_t>(block.data() + 8 * i);
        } else {
            wrong |= static_cast<std::uint8_t>(1U << b);
            std::ranges::fill(out, damaged == SectorMap::Damaged::full ? ~0ULL : 0);
        }
    }
    return wrong;
}

void encode(std::span<const std::uint64_t> words, std::uint8_t damaged, RawPage& raw) noexcept {
    raw.fill(std::byte{0});
    for (std::size_t b = 0; b < page_blocks; ++b) {
        const auto block = std::span(raw).subspan(b * SectorMap::block_bytes, SectorMap::block_bytes);
        for (std::size_t i = 0; i < block_words; ++i)
            store_le(block.data() + 8 * i, words[b * block_words + i]);
        const std::uint32_t sum = crc32c(block.first(checksum_at));
        store_le(block.data() + checksum_at, (damaged >> b & 1) != 0 ? ~sum : sum);
    }
}

/// Bits [from, end) of one word, end <= 64.
constexpr std::uint64_t word_mask(std::uint64_t from, std::uint64_t end) noexcept {
    return (end == 64 ? ~0ULL : (1ULL << end) - 1) & (~0ULL << from);
}

/// Whether that changed any.
bool set_bits(std::span<std::uint64_t> words, std::uint64_t from, std::uint64_t end) noexcept {
    bool changed = false;
    while (from < end) {
        const std::uint64_t inside = from % 64;
        const std::uint64_t stop = std::min<std::uint64_t>(64, inside + (end - from));
        const std::uint64_t mask = word_mask(inside, stop);
        changed = changed || (~words[from / 64] & mask) != 0;
        words[from / 64] |= mask;
        from += stop - inside;
    }
    return changed;
}

/// First bit at or after `from` whose value is `value`, or `end`.
std::uint64_t find_bit(std::span<const std::uint64_t> words, std::uint64_t from, std::uint64_t end, bool value) noexcept {
    while (from < end) {
        const std::uint64_t word = (value ? words[from / 64] : ~words[from / 64]) & (~0ULL << from % 64);
        if (word != 0)
            return std::min(end, from / 64 * 64 + static_cast<std::uint64_t>(std::countr_zero(word)));
        from = (from / 64 + 1) * 64;
    }
    return end;
}

}  // namespace

SectorMap::SectorMap(std::unique_ptr<File> file, Damaged damaged, std::size_t pages_max)
    : file_(std::move(file)), damaged_(damaged), pages_max_(std::max<std::size_t>(pages_max, 1)) {}

Result<std::unique_ptr<SectorMap>> SectorMap::create(FileSystem& files, const std::filesystem::path& path,
                                                     Damaged damaged, std::size_t pages_max) {
    BLKFERRY_TRY_ASSIGN(std::unique_ptr<File> file, files.open(path, OpenMode::create));
    std::unique_ptr<SectorMap> map(new SectorMap(std::move(file), damaged, pages_max));
    map->unsynced_ = true;
    return map;
}

Result<std::unique_ptr<SectorMap>> SectorMap::open(FileSystem& files, const std::filesystem::path& path,
                                                   Damaged damaged, std::size_t pages_max) {
    BLKFERRY_TRY_ASSIGN(std::unique_ptr<File> file, files.open(path, OpenMode::update));
    return std::unique_ptr<SectorMap>(new SectorMap(std::move(file), damaged, pages_max));
}

Result<void> SectorMap::write_back(std::uint64_t number, Page& page) {
    RawPage raw;
    encode(page.words, page.damaged, raw);
    BLKFERRY_TRY(file_->write(raw, number * page_bytes));
    page.dirty = false;
    unsynced_ = true;
    return {};
}

Result<SectorMap::Page*> SectorMap::page(std::uint64_t number, bool overwrite) {
    const auto it = pages_.find(number);
    if (it != pages_.end()) {
        recent_.splice(recent_.begin(), recent_, it->second.at);
        return &it->second;
    }
    if (pages_.size() >= pages_max_) {
        const std::uint64_t oldest = recent_.back();
        Page& old = pages_.at(oldest);
        if (old.dirty)
            BLKFERRY_TRY(write_back(oldest, old));
        recent_.pop_back();
        pages_.erase(oldest);
    }
    Page fresh;
    fresh.words.assign(page_words, 0);
    if (!overwrite) {
        RawPage raw{};
        BLKFERRY_TRY(file_->read(raw, number * page_bytes));
        const std::uint8_t wrong = decode(raw, damaged_, fresh.words);
        fresh.damaged = damaged_ == Damaged::full ? wrong : std::uint8_t{0};
    }
    recent_.push_front(number);
    fresh.at = recent_.begin();
    return &pages_.emplace(number, std::move(fresh)).first->second;
}

Result<void> SectorMap::set(Extent extent) {
    for (const Extent& part : full_.missing(extent))
        BLKFERRY_TRY(set_new(part));
    return {};
}

Result<void> SectorMap::set_new(Extent extent) {
    for (std::uint64_t at = extent.sector; at < extent.end();) {
        const std::uint64_t number = at / page_sectors;
        const std::uint64_t base = number * page_sectors;
        const std::uint64_t end = std::min(extent.end(), base + page_sectors);
        BLKFERRY_TRY_ASSIGN(Page * p, page(number, end - at == page_sectors));
        if (set_bits(p->words, at - base, end - base))
            p->dirty = true;
        at = end;
    }
    const std::uint64_t first = (extent.sector + page_sectors - 1) / page_sectors * page_sectors;
    const std::uint64_t past = extent.end() / page_sectors * page_sectors;
    if (first < past) {
        if (full_.runs() >= full_runs_max)
            full_.clear();
        full_.insert({first, past - first});
    }
    return {};
}

Result<std::vector<Extent>> SectorMap::missing(Extent extent) {
    std::vector<Extent> out;
    for (const Extent& part : full_.missing(extent))
        BLKFERRY_TRY(missing_of(part, out));
    return out;
}

Result<void> SectorMap::missing_of(Extent extent, std::vector<Extent>& out) {
    for (std::uint64_t at = extent.sector; at < extent.end();) {
        const std::uint64_t number = at / page_sectors;
        const std::uint64_t base = number * page_sectors;
        const std::uint64_t end = std::min(extent.end(), base + page_sectors) - base;
        BLKFERRY_TRY_ASSIGN(const Page* p, page(number, false));
        for (std::uint64_t bit = at - base; bit < end;) {
            const std::uint64_t first = find_bit(p->words, bit, end, false);
            bit = find_bit(p->words, first, end, true);
            if (first == bit)
                break;
            if (!out.empty() && out.back().end() == base + first)
                out.back().count += bit - first;
            else
                out.push_back({base + first, bit - first});
        }
        at = base + end;
    }
    return {};
}

Result<bool> SectorMap::test(std::uint64_t sector) {
    BLKFERRY_TRY_ASSIGN(const std::vector<Extent> gone, missing({sector, 1}));
    return gone.empty();
}

template <class Visit>
Result<void> SectorMap::each_page(Visit visit) {
    BLKFERRY_TRY(flush());
    constexpr std::size_t window = 16;
    std::vector<RawPage> raw(window);
    std::uint64_t number = 0;
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const std::optional<std::uint64_t> data, file_->next_data(number * page_bytes));
        if (!data)
            return {};
        number = std::max(number, *data / page_bytes);
        const std::span<std::byte> bytes(raw.front().data(), window * page_bytes);
        BLKFERRY_TRY_ASSIGN(const std::size_t n, file_->read(bytes, number * page_bytes));
        std::ranges::fill(bytes.subspan(n), std::byte{0});
        const std::size_t pages = (n + page_bytes - 1) / page_bytes;
        for (std::size_t i = 0; i < pages; ++i)
            visit(number + i, raw[i]);
        number += pages;
        if (n < bytes.size())
            return {};
    }
}

Result<SectorMap::Summary> SectorMap::summary() {
    std::vector<std::uint64_t> words(page_words);
    Summary out;
    SetDigest digest;
    Extent run;
    const auto end_run = [&] {
        if (run.count > 0)
            digest.add(0, run);
        out.sectors += run.count;
        run = {};
    };
    BLKFERRY_TRY(each_page([&](std::uint64_t number, const RawPage& raw) {
        decode(raw, damaged_, words);
        const std::uint64_t base = number * page_sectors;
        for (std::uint64_t bit = 0; bit < page_sectors;) {
            const std::uint64_t first = find_bit(words, bit, page_sectors, true);
            const std::uint64_t end = find_bit(words, first, page_sectors, false);
            if (first < end) {
                if (run.count > 0 && run.end() == base + first) {
                    run.count += end - first;
                } else {
                    end_run();
                    run = {base + first, end - first};
                }
            }
            bit = end;
        }
    }));
    end_run();
    out.digest = digest.value();
    return out;
}

Result<bool> SectorMap::any_damaged() {
    std::vector<std::uint64_t> words(page_words);
    bool damaged = false;
    BLKFERRY_TRY(each_page([&](std::uint64_t, const RawPage& raw) { damaged = damaged || decode(raw, damaged_, words) != 0; }));
    return damaged;
}

Result<void> SectorMap::flush() {
    for (auto& [number, p] : pages_)
        if (p.dirty)
            BLKFERRY_TRY(write_back(number, p));
    return {};
}

Result<void> SectorMap::sync() {
    BLKFERRY_TRY(flush());
    if (unsynced_)
        BLKFERRY_TRY(file_->sync());
    unsynced_ = false;
    return {};
}

}  // namespace blkferry::store
