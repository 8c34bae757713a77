// SPDX-License-Identifier: Apache-2.0
#include "store/point.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <sys/file.h>

#include <fmt/format.h>

namespace blkferry::store {

namespace {

constexpr std::string_view lock_suffix = ".lock";
constexpr std::string_view no_parent = "0000000000000000000000000000000000000000000000000000000000000000";

/// Which serial the file of a damaged point claims to have, if any. Good for a guess only.
std::uint64_t claimed_serial(std::string_view text) {
    constexpr std::string_view key = "\"serial\":";
    std::uint64_t serial = 0;
    if (const std::size_t at = text.find(key); at != std::string_view::npos)
        (void)std::from_chars(text.data() + at + key.size(), text.data() + text.size(), serial);
    return serial;
}

}  // namespace

PointStore::PointStore(FileSystem& files, std::filesystem::path dir, const Signer* signer)
    : files_(files), dir_(std::move(dir)), signer_(signer), removed_(files, dir_ / RemovedLog::file_name, signer) {}

std::filesystem::path PointStore::path_of(std::string_view name) const {
    return dir_ / (std::string(name) + ".json");
}

Result<std::unique_ptr<PointStore>> PointStore::open(FileSystem& files, std::filesystem::path dir, const Signer* signer,
                                                     Access access) {
    if (access == Access::own)
        BLKFERRY_TRY(files.make_dir(dir));
    std::unique_ptr<PointStore> store(new PointStore(files, std::move(dir), signer));
    BLKFERRY_TRY(store->load(access));
    return store;
}

Result<void> PointStore::load(Access access) {
    BLKFERRY_TRY(removed_.load());
    log_damage_ = removed_.damage();
    std::vector<std::filesystem::path> gone;
    const auto names = files_.list(dir_);
    if (!names && names.error().code == Errc::not_found && access == Access::look)
        return {};
    if (!names)
        return std::unexpected(names.error());
    for (const std::string& file : *names) {
        const auto path = dir_ / file;
        if (file.ends_with(".new")) {
            if (access == Access::own)
                BLKFERRY_TRY(files_.remove(path));
            continue;
        }
        const bool of_log = file == RemovedLog::file_name || (file.starts_with(RemovedLog::damaged_prefix) && !file.ends_with(".json"));
        if (of_log || file.ends_with(lock_suffix))
            continue;
        auto loaded = load_one(file);
        if (!loaded && loaded.error().code == Errc::corrupt) {
            damaged_.push_back({file.ends_with(".json") ? path.stem().string() : file, path, std::move(loaded).error()});
            continue;
        }
        if (!loaded)
            return std::unexpected(std::move(loaded).error());
        Manifest& m = *loaded;
        if (removed_.contains(m.serial))
            gone.push_back(path);
        else
            points_.emplace(m.name, std::move(m));
    }
    if (access == Access::look)
        return {};
    // A removal was logged, then came a crash: its line must be durable before the manifest goes. That it can be read does not
    // say so, nor would a sync of the file: where a sync failed before, the line is in memory only and counts as clean.
    if (!gone.empty() || removed_.wants_rewrite())
        BLKFERRY_TRY(removed_.rewrite());
    for (const auto& path : gone)
        BLKFERRY_TRY(files_.remove(path));
    return {};
}

Result<Manifest> PointStore::load_one(const std::string& file) const {
    const auto path = dir_ / file;
    if (!file.ends_with(".json"))
        return fail(Errc::corrupt, fmt::format("{} is no recovery point", path.string()));
    auto text = files_.read_text(path, manifest_bytes_max);
    if (!text && text.error().code == Errc::invalid)
        return fail(Errc::corrupt, text.error().text);
    if (!text)
        return std::unexpected(std::move(text).error());
    auto decoded = decode_manifest(*text, signer_);
    if (!decoded)
        return fail(Errc::corrupt, fmt::format("recovery point {}: {}", path.string(), decoded.error().text));
    if (decoded->manifest.name + ".json" != file)
        return fail(Errc::corrupt, fmt::format("{} holds the manifest of point {}", path.string(), decoded->manifest.name));
    return std::move(decoded->manifest);
}

std::vector<PointStore::Damaged> PointStore::damaged() const {
    const std::scoped_lock guard(lock_);
    return damaged_;
}

Result<void> PointStore::publish(const Manifest& manifest) {
    const std::scoped_lock guard(lock_);
    const auto it = points_.find(manifest.name);
    if (it != points_.end()) {
        if (it->second.hash() == manifest.hash()) {
            // Published by a process that died meanwhile: its name may not be durable yet.
            BLKFERRY_TRY_ASSIGN(const std::string same, encode(it->second, signer_));
            return files_.write_text_durable(path_of(manifest.name), same);
        }
        return fail(Errc::exists, fmt::format("recovery point {} exists already", manifest.name));
    }
    BLKFERRY_TRY_ASSIGN(const std::string text, encode(manifest, signer_));
    BLKFERRY_TRY(files_.write_text_durable(path_of(manifest.name), text));
    std::erase(leftovers_, path_of(manifest.name));  // a new point in the place of a removed one
    points_.emplace(manifest.name, manifest);
    std::erase_if(damaged_, [&](const Damaged& d) { return d.path == path_of(manifest.name); });
    return {};
}

Result<void> PointStore::set_proof(std::string_view name, Launchable launchable,
                                   std::map<std::uint16_t, std::string> digests) {
    const std::scoped_lock guard(lock_);
    const auto it = points_.find(name);
    if (it == points_.end())
        return fail(Errc::not_found, fmt::format("there is no recovery point {}", name));
    Manifest changed = it->second;
    changed.launchable = launchable;
    changed.digests = std::move(digests);
    BLKFERRY_TRY_ASSIGN(const std::string text, encode(changed, signer_));
    BLKFERRY_TRY(files_.write_text_durable(path_of(name), text));
    it->second = std::move(changed);
    return {};
}

Result<void> PointStore::remove(std::string_view name, std::uint64_t now_ns, const PointHead& head) {
    const std::scoped_lock guard(lock_);
    const auto it = points_.find(name);
    if (it == points_.end()) {
        const auto damaged = std::ranges::find(damaged_, name, &Damaged::name);
        if (damaged == damaged_.end())
            return fail(Errc::not_found, fmt::format("there is no recovery point {}", name));
        return remove_damaged(static_cast<std::size_t>(damaged - damaged_.begin()), now_ns, head);
    }
    const auto lock_path = dir_ / (std::string(name) + std::string(lock_suffix));
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> held, files_.open(lock_path, OpenMode::create));
    const bool locked = held->fd() < 0 || ::flock(held->fd(), LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno != EWOULDBLOCK)
        return fail_errno(errno, fmt::format("cannot lock {}", lock_path.string()));
    if (!locked)
        return fail(Errc::busy, fmt::format("recovery point {} is being read (export, launch or NBD): end that first", name));
    const Manifest& m = it->second;
    BLKFERRY_TRY(log_removal({m.serial, m.serial, m.name, m.hash(), m.parent_hash, now_ns}));
    // From here on it is gone, whatever becomes of its files: load() finishes what an error or a crash leaves.
    leftovers_.push_back(path_of(m.name));
    leftovers_.push_back(lock_path);
    points_.erase(it);
    clear_leftovers();
    return {};
}

/// Once the line is durable the removal has happened. A line that may have become durable although its append failed would let the
/// next start finish what the user was told has failed: it is taken back, by writing the log anew without it.
Result<void> PointStore::log_removal(const RemovedPoint& line) {
    auto logged = removed_.append(line);
    if (logged || !removed_.doubtful())
        return logged;
    if (const auto back = removed_.rewrite(); !back)
        return fail(logged.error().code, fmt::format("{}; it is not decided whether recovery point {} is removed, because that could not "
                                                     "be taken back either ({}): ask again, or look after the next start of the server",
                                                     logged.error().text, line.name, back.error().text));
    return std::unexpected(std::move(logged).error().with(fmt::format("recovery point {} was not removed", line.name)));
}

void PointStore::clear_leftovers() {
    bool removed = false;
    std::erase_if(leftovers_, [&](const std::filesystem::path& path) {
        const bool gone = files_.remove(path).has_value();
        removed = removed || gone;
        return gone;
    });
    if (removed)
        (void)files_.sync_dir(dir_);  // if it fails the files may be back at the next start, which removes them again
}

/// Its serial is one that is missing in the chain: the one that its file claims, else the first. If none is missing, the file
/// never was a point.
Result<void> PointStore::remove_damaged(std::size_t index, std::uint64_t now_ns, const PointHead& head) {
    const Damaged damaged = damaged_[index];
    BLKFERRY_TRY_ASSIGN(const Chain links, chain());
    const auto covered = [&](std::uint64_t serial) {
        const auto it = links.upper_bound(serial);
        return it != links.begin() && serial <= std::prev(it)->second.last;
    };
    const std::uint64_t end = std::max(head.serial, links.empty() ? 0 : std::prev(links.end())->second.last);
    const auto text = files_.read_text(damaged.path, manifest_bytes_max);
    std::uint64_t serial = text ? claimed_serial(*text) : 0;
    if (serial == 0 || serial > end || covered(serial)) {
        serial = 1;
        for (const auto& [first, link] : links) {
            if (serial < first)
                break;
            serial = link.last + 1;
        }
    }
    if (serial <= end) {
        RemovedPoint line{serial, serial, proto::valid_name(damaged.name) ? damaged.name : "damaged", {}, {}, now_ns};
        const auto after = links.upper_bound(serial);
        if (after != links.end() && after->first == serial + 1)
            line.hash = after->second.parent_hash;
        else if (serial == head.serial)
            line.hash = head.hash;
        if (serial == 1)
            line.parent_hash = no_parent;
        else if (after != links.begin() && std::prev(after)->second.last + 1 == serial)
            line.parent_hash = std::prev(after)->second.hash;
        BLKFERRY_TRY(log_removal(line));
    }
    // Nobody finishes this one: at the next start its file does not say any more that it was removed.
    BLKFERRY_TRY(files_.remove(damaged.path));
    damaged_.erase(damaged_.begin() + static_cast<std::ptrdiff_t>(index));
    if (auto r = files_.sync_dir(dir_); !r)
        return fail(r.error().code, fmt::format("{}; it is not decided whether the damaged recovery point {} is removed: look after the "
                                                "next start of the server", r.error().text, damaged.name));
    return {};
}

PointHead PointStore::head() const {
    const std::scoped_lock guard(lock_);
    PointHead out;
    for (const auto& [first, run] : removed_.runs())
        out = {run.serial, run.hash};
    for (const auto& [name, m] : points_)
        if (m.serial > out.serial)
            out = {m.serial, m.hash()};
    return out;
}

Result<Manifest> PointStore::find(std::string_view name) const {
    const std::scoped_lock guard(lock_);
    const auto it = points_.find(name);
    if (it == points_.end())
        return fail(Errc::not_found, fmt::format("there is no recovery point {}", name));
    return it->second;
}

std::vector<Manifest> PointStore::list() const {
    std::vector<Manifest> out;
    {
        const std::scoped_lock guard(lock_);
        for (const auto& [name, m] : points_)
            out.push_back(m);
    }
    std::ranges::sort(out, {}, &Manifest::serial);
    return out;
}

std::size_t PointStore::size() const {
    const std::scoped_lock guard(lock_);
    return points_.size();
}

std::vector<Generation> PointStore::generations(std::uint16_t slot) const {
    std::vector<Generation> out;
    const std::scoped_lock guard(lock_);
    for (const auto& [name, m] : points_)
        if (const ManifestDisk* disk = m.disk(slot))
            out.push_back(disk->generation);
    std::ranges::sort(out);
    return out;
}

Result<Manifest> PointStore::nearest(std::uint64_t mark) const {
    const std::scoped_lock guard(lock_);
    const Manifest* best = nullptr;
    for (const auto& [name, m] : points_)
        if (m.mark <= mark && (best == nullptr || m.serial > best->serial))
            best = &m;
    if (best == nullptr)
        return fail(Errc::not_found, fmt::format("there is no recovery point at or below mark {}", mark));
    return *best;
}

Result<PointStore::Chain> PointStore::chain() const {
    Chain links;
    for (const auto& [first, r] : removed_.runs())
        links[first] = {r.serial, r.name, r.hash, r.parent_hash};
    for (const auto& [name, m] : points_) {
        const auto [it, fresh] = links.try_emplace(m.serial, Link{m.serial, name, m.hash(), m.parent_hash});
        if (!fresh)
            return fail(Errc::corrupt, fmt::format("points {} and {} have the same serial {}", name, it->second.name, m.serial));
    }
    return links;
}

Result<void> PointStore::verify_chain(std::uint64_t head_serial, std::string_view head_hash) const {
    const std::scoped_lock guard(lock_);
    BLKFERRY_TRY_ASSIGN(const Chain links, chain());
    const auto differ = [](std::string_view a, std::string_view b) { return !a.empty() && !b.empty() && a != b; };
    std::string parent(no_parent);
    std::uint64_t serial = 0;
    for (const auto& [number, link] : links) {
        if (number != serial + 1)
            return fail(Errc::corrupt, fmt::format("the recovery point with serial {} is missing and was never removed",
                                                   serial + 1));
        if (differ(link.parent_hash, parent))
            return fail(Errc::corrupt, fmt::format("recovery point {} (serial {}) does not follow the one before it: a "
                                                   "manifest was changed",
                                                   link.name, number));
        parent = link.hash;
        serial = link.last;
    }
    if (head_serial != 0 && (serial != head_serial || differ(parent, head_hash)))
        return fail(Errc::corrupt, fmt::format("the newest recovery point has serial {}, {} is expected: a manifest is "
                                               "missing or was changed",
                                               serial, head_serial));
    return {};
}

}  // namespace blkferry::store
