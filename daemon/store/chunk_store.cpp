// SPDX-License-Identifier: Apache-2.0
#include "store/chunk_store.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

#include <fmt/format.h>

namespace blkferry::store {

namespace {

std::optional<std::uint64_t> parse_hex(std::string_view text) noexcept {
    std::uint64_t v = 0;
    for (const char c : text) {
        const bool digit = c >= '0' && c <= '9';
        if (!digit && (c < 'a' || c > 'f'))
            return std::nullopt;
        v = v << 4 | static_cast<std::uint64_t>(digit ? c - '0' : c - 'a' + 10);
    }
    return v;
}

}  // namespace

std::string to_string(const ChunkName& name) {
    return fmt::format("{:08x}.{:016x}{}", name.chunk, name.generation, name.fresh ? ".new" : "");
}

std::optional<ChunkName> parse_chunk_name(std::string_view name) noexcept {
    ChunkName out;
    if (name.ends_with(".new")) {
        out.fresh = true;
        name.remove_suffix(4);
    }
    if (name.size() != 25 || name[8] != '.')
        return std::nullopt;
    const auto chunk = parse_hex(name.substr(0, 8));
    const auto generation = parse_hex(name.substr(9));
    if (!chunk || !generation)
        return std::nullopt;
    out.chunk = static_cast<std::uint32_t>(*chunk);
    out.generation = *generation;
    return out;
}

ChunkStore::ChunkStore(FileSystem& files, std::filesystem::path dir, const SnapshotEngine& engine, Options options,
                       Generation current)
    : files_(files),
      dir_(std::move(dir)),
      engine_(engine),
      options_(options),
      opened_at_(current),
      current_(current),
      run_(options.run_bytes) {}

Result<std::unique_ptr<ChunkStore>> ChunkStore::open(FileSystem& files, std::filesystem::path dir,
                                                     const SnapshotEngine& engine, Options options, Generation current) {
    if (options.chunk_bytes == 0 || options.chunk_bytes % chunk_bytes_unit != 0 || options.chunk_bytes > chunk_bytes_max)
        return fail(Errc::invalid, fmt::format("chunk size of {} bytes refused: a multiple of {} up to {} is allowed",
                                               options.chunk_bytes, chunk_bytes_unit, chunk_bytes_max));
    BLKFERRY_TRY(files.make_dir(dir));
    std::unique_ptr<ChunkStore> store(new ChunkStore(files, std::move(dir), engine, options, current));
    BLKFERRY_TRY(store->load());
    return store;
}

Result<void> ChunkStore::load() {
    BLKFERRY_TRY_ASSIGN(const std::vector<std::string> names, files_.list(dir_));
    for (const std::string& name : names) {
        const auto parsed = parse_chunk_name(name);
        if (!parsed)
            return fail(Errc::corrupt, fmt::format("{} is no chunk file: staging of this disk was tampered with",
                                                   (dir_ / name).string()));
        if (parsed->fresh || parsed->generation > current_) {
            BLKFERRY_TRY(files_.remove(dir_ / name));
            continue;
        }
        BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> file, files_.open(dir_ / name, OpenMode::read));
        Version v;
        BLKFERRY_TRY_ASSIGN(v.allocated, file->allocated());
        allocated_ += v.allocated;
        chunks_[parsed->chunk].emplace(parsed->generation, v);
        ++count_;
    }
    return files_.sync_dir(dir_);  // final names may come from a process that died before it made them durable
}

const std::map<Generation, ChunkStore::Version>* ChunkStore::versions(std::uint32_t chunk) const noexcept {
    const auto it = chunks_.find(chunk);
    return it == chunks_.end() ? nullptr : &it->second;
}

std::optional<Generation> ChunkStore::visible(std::uint32_t chunk, Generation at) const noexcept {
    const auto* all = versions(chunk);
    if (all == nullptr)
        return std::nullopt;
    const auto it = all->upper_bound(at);
    return it == all->begin() ? std::nullopt : std::optional(std::prev(it)->first);
}

std::filesystem::path ChunkStore::path_of(const Key& key) const {
    const auto* all = versions(key.first);
    const bool fresh = all != nullptr && all->contains(key.second) && all->at(key.second).fresh;
    return dir_ / to_string(ChunkName{key.first, key.second, fresh});
}

void ChunkStore::remember(const Key& key, std::shared_ptr<File> file) {
    recent_.push_front(key);
    open_.emplace(key, Open{std::move(file), recent_.begin()});
    while (open_.size() > options_.open_files_max) {
        const Key oldest = recent_.back();
        if (dirty_.contains(oldest)) {
            evicted_dirty_ = true;  // its sync goes over the whole file system: no write error is lost with the descriptor
            open_.at(oldest).file->start_writeback(0, 0);
        }
        forget(oldest);
    }
}

void ChunkStore::forget(const Key& key) {
    const auto it = open_.find(key);
    if (it == open_.end())
        return;
    recent_.erase(it->second.at);
    open_.erase(it);
}

Result<std::shared_ptr<File>> ChunkStore::open_version(const Key& key) {
    const auto it = open_.find(key);
    if (it != open_.end()) {
        recent_.splice(recent_.begin(), recent_, it->second.at);
        return it->second.file;
    }
    BLKFERRY_TRY_ASSIGN(std::shared_ptr<File> file,
                        files_.open(path_of(key), key.second == current_ ? OpenMode::update : OpenMode::read));
    remember(key, file);
    return file;
}

/// The chunk's file in the current generation, cloned from what is visible unless all of it (`whole`) is overwritten.
Result<std::shared_ptr<File>> ChunkStore::writable(std::uint32_t chunk, bool whole) {
    const Key key{chunk, current_};
    const auto before = visible(chunk, current_);
    if (before == current_) {
        BLKFERRY_TRY_ASSIGN(std::shared_ptr<File> file, open_version(key));
        dirty_.insert(key);
        return file;
    }
    std::shared_ptr<File> older;
    if (before && !whole) {
        BLKFERRY_TRY_ASSIGN(older, open_version({chunk, *before}));
    }
    const auto path = dir_ / to_string(ChunkName{chunk, current_, true});
    BLKFERRY_TRY_ASSIGN(std::shared_ptr<File> file, files_.open(path, OpenMode::create));
    if (older) {
        if (auto r = engine_.clone(*older, *file); !r) {
            (void)files_.remove(path);
            return std::unexpected(std::move(r).error().with(fmt::format("cannot clone chunk {} of {}", chunk, dir_.string())));
        }
    }
    chunks_[chunk].emplace(current_, Version{.fresh = true, .allocated = 0});
    ++count_;
    fresh_.insert(key);
    dirty_.insert(key);
    remember(key, file);
    return file;
}

Result<void> ChunkStore::write(Extent extent, std::span<const std::byte> data) {
    BLKFERRY_ASSERT(data.size() == extent.count * sector_bytes);
    std::uint64_t at = extent.sector * sector_bytes;
    while (!data.empty()) {
        const std::uint64_t number = at / options_.chunk_bytes;
        const std::uint64_t inside = at % options_.chunk_bytes;
        const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(data.size(), options_.chunk_bytes - inside));
        if (number > std::numeric_limits<std::uint32_t>::max())
            return fail(Errc::invalid, fmt::format("{}: sector {} is beyond 2^32 chunks", dir_.string(), extent.sector));
        BLKFERRY_TRY(write_part(static_cast<std::uint32_t>(number), inside, data.first(part)));
        data = data.subspan(part);
        at += part;
    }
    return {};
}

Result<void> ChunkStore::write_part(std::uint32_t chunk, std::uint64_t inside, std::span<const std::byte> data) {
    const Key key{chunk, current_};
    if (run_.open() && run_key_ != key && run_key_.first == chunk)
        BLKFERRY_TRY(run_.flush());  // the older version is cloned
    BLKFERRY_TRY_ASSIGN(const std::shared_ptr<File> file, writable(chunk, data.size() == options_.chunk_bytes));
    if (run_.open() && run_key_ == key) {
        if (run_.end() == inside)
            return run_.append(data);
        if (run_.holds(inside, data.size()))
            BLKFERRY_TRY(run_.flush());
    }
    if (options_.direct_bytes_min == 0 || data.size() < options_.direct_bytes_min || inside % io_align != 0)
        return file->write(data, inside);
    BLKFERRY_TRY(run_.flush());
    BLKFERRY_TRY_ASSIGN(std::shared_ptr<File> direct, direct_file(key));
    if (!direct)
        return file->write(data, inside);
    run_.begin(std::move(direct), file, inside);
    run_key_ = key;
    return run_.append(data);
}

/// The file of this version, around the page cache; null where the file system cannot.
Result<std::shared_ptr<File>> ChunkStore::direct_file(const Key& key) {
    if (!can_direct_)
        return nullptr;
    if (direct_ && direct_key_ == key)
        return direct_;
    direct_.reset();
    BLKFERRY_TRY_ASSIGN(std::shared_ptr<File> file, files_.open(path_of(key), OpenMode::update, Caching::direct));
    can_direct_ = file->direct();
    if (!can_direct_)
        return nullptr;
    direct_ = std::move(file);
    direct_key_ = key;
    return direct_;
}

/// Puts what waits in memory into the chunk's file, before anything but write_part() looks at it.
Result<void> ChunkStore::settle_chunk(std::uint32_t chunk) {
    return run_.open() && run_key_.first == chunk ? run_.flush() : Result<void>{};
}

Result<void> ChunkStore::zero(Extent extent) {
    const std::uint64_t begin = extent.sector * sector_bytes;
    const std::uint64_t end = extent.end() * sector_bytes;
    const std::uint64_t first = begin / options_.chunk_bytes;
    if (first > std::numeric_limits<std::uint32_t>::max())
        return {};
    // Only chunks that are there: a discard may span more of them than anybody could walk through.
    for (auto it = chunks_.lower_bound(static_cast<std::uint32_t>(first)); it != chunks_.end(); ++it) {
        const std::uint64_t base = it->first * options_.chunk_bytes;
        if (base >= end)
            break;
        const std::uint64_t from = std::max(begin, base);
        BLKFERRY_TRY(zero_part(it->first, from - base, std::min(end, base + options_.chunk_bytes) - from));
    }
    return {};
}

Result<void> ChunkStore::zero_part(std::uint32_t chunk, std::uint64_t inside, std::uint64_t bytes) {
    const auto before = visible(chunk, current_);
    if (!before)
        return {};
    BLKFERRY_TRY(settle_chunk(chunk));
    BLKFERRY_TRY_ASSIGN(const std::shared_ptr<File> seen, open_version({chunk, *before}));
    BLKFERRY_TRY_ASSIGN(const std::optional<std::uint64_t> data, seen->next_data(inside));
    // Zeroes already: no clone for it. But those that a dead process left in a file of this generation may not be durable.
    if ((!data || *data >= inside + bytes) && (*before != current_ || current_ != opened_at_))
        return {};
    const bool whole = bytes == options_.chunk_bytes;
    BLKFERRY_TRY_ASSIGN(const std::shared_ptr<File> file, writable(chunk, whole));
    return whole ? file->truncate(0) : file->punch(inside, bytes);
}

Result<void> ChunkStore::read(std::uint64_t sector, std::span<std::byte> out, Generation at_generation) {
    std::uint64_t at = sector * sector_bytes;
    while (!out.empty()) {
        const std::uint64_t number = at / options_.chunk_bytes;
        const std::uint64_t inside = at % options_.chunk_bytes;
        const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), options_.chunk_bytes - inside));
        std::size_t n = 0;
        if (number <= std::numeric_limits<std::uint32_t>::max()) {
            const auto chunk = static_cast<std::uint32_t>(number);
            if (const auto generation = visible(chunk, at_generation)) {
                BLKFERRY_TRY(settle_chunk(chunk));
                BLKFERRY_TRY_ASSIGN(const std::shared_ptr<File> file, open_version({chunk, *generation}));
                BLKFERRY_TRY_ASSIGN(n, file->read(out.first(part), inside));
            }
        }
        std::memset(out.data() + n, 0, part - n);
        out = out.subspan(part);
        at += part;
    }
    return {};
}

bool ChunkStore::absent(Extent extent, Generation at) const noexcept {
    const std::uint64_t first = extent.sector * sector_bytes / options_.chunk_bytes;
    const std::uint64_t last = (extent.end() * sector_bytes - 1) / options_.chunk_bytes;
    for (std::uint64_t c = first; c <= last && c <= std::numeric_limits<std::uint32_t>::max(); ++c)
        if (visible(static_cast<std::uint32_t>(c), at))
            return false;
    return true;
}

void ChunkStore::raise(Generation next) {
    BLKFERRY_ASSERT(next > current_);
    current_ = next;
}

Result<void> ChunkStore::sync_files() {
    if (evicted_dirty_) {
        BLKFERRY_TRY(files_.sync_all(dir_));
    } else {
        for (const Key& key : dirty_)
            open_.at(key).file->start_writeback(0, 0);
        for (const Key& key : dirty_)
            BLKFERRY_TRY(open_.at(key).file->sync());
    }
    for (const Key& key : dirty_) {
        const auto it = open_.find(key);
        if (it == open_.end())
            continue;
        auto& version = chunks_.at(key.first).at(key.second);
        BLKFERRY_TRY_ASSIGN(const std::uint64_t now, it->second.file->allocated());
        allocated_ += now - version.allocated;
        version.allocated = now;
    }
    evicted_dirty_ = false;
    dirty_.clear();
    return {};
}

Result<void> ChunkStore::sync() {
    if (!dirty())
        return {};
    BLKFERRY_TRY(run_.flush());
    run_.release();
    direct_.reset();
    BLKFERRY_TRY(sync_files());
    dir_dirty_ = dir_dirty_ || !fresh_.empty();
    while (!fresh_.empty()) {
        const Key key = *fresh_.begin();
        const auto from = path_of(key);
        BLKFERRY_TRY(files_.rename(from, dir_ / to_string(ChunkName{key.first, key.second, false})));
        chunks_.at(key.first).at(key.second).fresh = false;
        fresh_.erase(fresh_.begin());
    }
    if (dir_dirty_)
        BLKFERRY_TRY(files_.sync_dir(dir_));
    dir_dirty_ = false;
    return {};
}

Result<std::size_t> ChunkStore::collect(std::span<const Generation> live, std::size_t budget, Generation pinned) {
    if (dirty())
        return fail(Errc::busy, fmt::format("{} has changes that are not synced", dir_.string()));
    const auto seen_by_any = [&](Generation from, Generation end) {
        const auto it = std::lower_bound(live.begin(), live.end(), from);
        return (it != live.end() && *it < end) || (current_ >= from && current_ < end);
    };
    std::size_t removed = 0;
    for (auto chunk = chunks_.begin(); chunk != chunks_.end() && removed < budget;) {
        auto& all = chunk->second;
        for (auto it = all.begin(); it != all.end() && removed < budget;) {
            const auto next = std::next(it);
            const Generation end = next == all.end() ? std::numeric_limits<Generation>::max() : next->first;
            if (it->first <= pinned || seen_by_any(it->first, end)) {
                it = next;
                continue;
            }
            const Key key{chunk->first, it->first};
            BLKFERRY_TRY(files_.remove(path_of(key)));
            forget(key);
            allocated_ -= it->second.allocated;
            all.erase(it);
            it = next;
            --count_;
            ++removed;
        }
        chunk = all.empty() ? chunks_.erase(chunk) : std::next(chunk);
    }
    return removed;
}

}  // namespace blkferry::store
