// SPDX-License-Identifier: Apache-2.0
#include "store/sector_map.hpp"

#include <algorithm>
#include <bit>

#include "base/bytes.hpp"
#include "extent/extent_set.hpp"

namespace blkferry::store {

namespace {

constexpr std::uint64_t page_sectors = SectorMap::page_bytes * 8;
constexpr std::size_t page_words = SectorMap::page_bytes / 8;

void words_from_bytes(std::span<const std::byte> raw, std::span<std::uint64_t> words) noexcept {
    for (std::size_t i = 0; i < words.size(); ++i)
        words[i] = load_le<std::uint64_t>(raw.data() + 8 * i);
}

void bytes_from_words(std::span<const std::uint64_t> words, std::span<std::byte> raw) noexcept {
    for (std::size_t i = 0; i < words.size(); ++i)
        store_le(raw.data() + 8 * i, words[i]);
}

/// Bits [from, end) of one word, end <= 64.
constexpr std::uint64_t word_mask(std::uint64_t from, std::uint64_t end) noexcept {
    return (end == 64 ? ~0ULL : (1ULL << end) - 1) & (~0ULL << from);
}

void set_bits(std::span<std::uint64_t> words, std::uint64_t from, std::uint64_t end) noexcept {
    while (from < end) {
        const std::uint64_t inside = from % 64;
        const std::uint64_t stop = std::min<std::uint64_t>(64, inside + (end - from));
        words[from / 64] |= word_mask(inside, stop);
        from += stop - inside;
    }
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

SectorMap::SectorMap(std::unique_ptr<File> file, std::size_t pages_max)
    : file_(std::move(file)), pages_max_(std::max<std::size_t>(pages_max, 1)) {}

Result<std::unique_ptr<SectorMap>> SectorMap::create(FileSystem& files, const std::filesystem::path& path,
                                                     std::size_t pages_max) {
    BLKFERRY_TRY_ASSIGN(std::unique_ptr<File> file, files.open(path, OpenMode::create));
    std::unique_ptr<SectorMap> map(new SectorMap(std::move(file), pages_max));
    map->unsynced_ = true;
    return map;
}

Result<std::unique_ptr<SectorMap>> SectorMap::open(FileSystem& files, const std::filesystem::path& path,
                                                   std::size_t pages_max) {
    BLKFERRY_TRY_ASSIGN(std::unique_ptr<File> file, files.open(path, OpenMode::update));
    return std::unique_ptr<SectorMap>(new SectorMap(std::move(file), pages_max));
}

Result<void> SectorMap::write_back(std::uint64_t number, Page& page) {
    std::array<std::byte, page_bytes> raw;
    bytes_from_words(page.words, raw);
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
        std::array<std::byte, page_bytes> raw{};
        BLKFERRY_TRY(file_->read(raw, number * page_bytes));
        words_from_bytes(raw, fresh.words);
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
        set_bits(p->words, at - base, end - base);
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

Result<SectorMap::Summary> SectorMap::summary() {
    BLKFERRY_TRY(flush());
    constexpr std::size_t window = 64U << 10;
    std::vector<std::byte> raw(window);
    std::vector<std::uint64_t> words(window / 8);
    Summary out;
    SetDigest digest;
    Extent run;
    const auto end_run = [&] {
        if (run.count > 0)
            digest.add(0, run);
        out.sectors += run.count;
        run = {};
    };
    std::uint64_t offset = 0;
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const std::optional<std::uint64_t> data, file_->next_data(offset));
        if (!data)
            break;
        offset = std::max(offset, *data / page_bytes * page_bytes);
        BLKFERRY_TRY_ASSIGN(const std::size_t n, file_->read(raw, offset));
        std::fill(raw.begin() + static_cast<std::ptrdiff_t>(n), raw.end(), std::byte{0});
        words_from_bytes(raw, words);
        const std::uint64_t bits = n / 8 * 64 + n % 8 * 8;
        for (std::uint64_t bit = 0; bit < bits;) {
            const std::uint64_t first = find_bit(words, bit, bits, true);
            const std::uint64_t end = find_bit(words, first, bits, false);
            if (first < end) {
                if (run.count > 0 && run.end() == offset * 8 + first) {
                    run.count += end - first;
                } else {
                    end_run();
                    run = {offset * 8 + first, end - first};
                }
            }
            bit = end;
        }
        offset += n;
        if (n < window)
            break;
    }
    end_run();
    out.digest = digest.value();
    return out;
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
