// SPDX-License-Identifier: Apache-2.0
#include "store/point.hpp"

#include <algorithm>
#include <cerrno>
#include <sys/file.h>

#include "store/json_reader.hpp"

namespace blkferry::store {

namespace {

constexpr std::string_view log_name = "removed.log";
constexpr std::string_view lock_suffix = ".lock";
constexpr std::string_view no_parent = "0000000000000000000000000000000000000000000000000000000000000000";
constexpr std::size_t log_bytes_max = 256U << 20;

nlohmann::json to_json(const RemovedPoint& p) {
    return {{"serial", p.serial},
            {"name", p.name},
            {"hash", p.hash},
            {"parent", p.parent_hash},
            {"removed_ns", p.removed_ns}};
}

Result<std::string> encode_line(const RemovedPoint& p, const Signer* signer) {
    nlohmann::json j = to_json(p);
    if (signer != nullptr) {
        BLKFERRY_TRY_ASSIGN(const std::string signature, signer->sign(dump_json(j)));
        j["signature"] = signature;
    }
    return dump_json(j) + "\n";
}

Result<RemovedPoint> decode_line(std::string_view line, const Signer* verifier) {
    BLKFERRY_TRY_ASSIGN(const nlohmann::json j, parse_json(line, 4096, "removed point"));
    JsonReader in(j, "removed point");
    RemovedPoint p;
    p.serial = in.integer("serial");
    p.name = in.text("name", proto::name_bytes_max);
    p.hash = in.text("hash", 64);
    p.parent_hash = in.text("parent", 64);
    p.removed_ns = in.integer("removed_ns");
    const std::string signature = in.has("signature") ? in.text("signature", 512) : std::string();
    BLKFERRY_TRY(in.finish());
    if (verifier != nullptr)
        BLKFERRY_TRY(verifier->verify(dump_json(to_json(p)), signature));
    return p;
}

}  // namespace

PointStore::PointStore(FileSystem& files, std::filesystem::path dir, const Signer* signer)
    : files_(files), dir_(std::move(dir)), signer_(signer) {}

std::filesystem::path PointStore::path_of(std::string_view name) const {
    return dir_ / (std::string(name) + ".json");
}

Result<std::unique_ptr<PointStore>> PointStore::open(FileSystem& files, std::filesystem::path dir, const Signer* signer) {
    BLKFERRY_TRY(files.make_dir(dir));
    std::unique_ptr<PointStore> store(new PointStore(files, std::move(dir), signer));
    BLKFERRY_TRY(store->load());
    return store;
}

Result<void> PointStore::load() {
    BLKFERRY_TRY(load_removed());
    BLKFERRY_TRY_ASSIGN(const std::vector<std::string> names, files_.list(dir_));
    for (const std::string& file : names) {
        const auto path = dir_ / file;
        if (file == log_name || file.ends_with(lock_suffix))
            continue;
        if (file.ends_with(".new")) {
            BLKFERRY_TRY(files_.remove(path));
            continue;
        }
        auto loaded = load_one(file);
        if (!loaded && loaded.error().code == Errc::corrupt) {
            damaged_.push_back({path, std::move(loaded).error()});
            continue;
        }
        if (!loaded)
            return std::unexpected(std::move(loaded).error());
        Manifest& m = *loaded;
        // Its removal was logged, then a crash came: the log must be durable before the manifest goes.
        const bool gone = std::ranges::any_of(removed_, [&](const auto& r) { return r.serial == m.serial; });
        if (gone) {
            BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> log, files_.open(dir_ / log_name, OpenMode::update));
            BLKFERRY_TRY(log->sync());
            BLKFERRY_TRY(files_.sync_dir(dir_));
            BLKFERRY_TRY(files_.remove(path));
        } else {
            points_.emplace(m.name, std::move(m));
        }
    }
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

Result<void> PointStore::load_removed() {
    auto text = files_.read_text(dir_ / log_name, log_bytes_max);
    if (!text && text.error().code == Errc::not_found)
        return {};
    if (!text)
        return std::unexpected(std::move(text).error());
    std::string_view rest = *text;
    for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
        auto line = decode_line(rest.substr(0, end), signer_);
        if (!line)
            return std::unexpected(std::move(line).error().with(fmt::format("{} at byte {}", (dir_ / log_name).string(),
                                                                            log_bytes_)));
        removed_.push_back(std::move(*line));
        log_bytes_ += end + 1;
        rest.remove_prefix(end + 1);
    }
    return {};  // a last line without its end was never durable; the next one overwrites it
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
    points_.emplace(manifest.name, manifest);
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

Result<void> PointStore::remove(std::string_view name, std::uint64_t now_ns) {
    const std::scoped_lock guard(lock_);
    const auto it = points_.find(name);
    if (it == points_.end())
        return fail(Errc::not_found, fmt::format("there is no recovery point {}", name));
    const auto lock_path = dir_ / (std::string(name) + std::string(lock_suffix));
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> held, files_.open(lock_path, OpenMode::create));
    if (held->fd() >= 0 && ::flock(held->fd(), LOCK_EX | LOCK_NB) != 0)
        return fail(Errc::busy, fmt::format("recovery point {} is being read (export, launch or NBD): end that first", name));
    const Manifest& m = it->second;
    const RemovedPoint line{m.serial, m.name, m.hash(), m.parent_hash, now_ns};
    BLKFERRY_TRY_ASSIGN(const std::string text, encode_line(line, signer_));
    auto log = files_.open(dir_ / log_name, OpenMode::update);
    if (!log && log.error().code == Errc::not_found)
        log = files_.open(dir_ / log_name, OpenMode::create);
    if (!log)
        return std::unexpected(std::move(log).error());
    BLKFERRY_TRY((*log)->truncate(log_bytes_));
    BLKFERRY_TRY((*log)->write(std::as_bytes(std::span(text)), log_bytes_));
    BLKFERRY_TRY((*log)->sync());
    BLKFERRY_TRY(files_.sync_dir(dir_));
    log_bytes_ += text.size();
    removed_.push_back(line);
    points_.erase(it);  // from here on it is gone: load() finishes what an error leaves
    BLKFERRY_TRY(files_.remove(path_of(line.name)));
    BLKFERRY_TRY(files_.remove(lock_path));
    return files_.sync_dir(dir_);
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

Result<void> PointStore::verify_chain(std::uint64_t head_serial, std::string_view head_hash) const {
    struct Link {
        std::string name, hash, parent;
    };
    std::map<std::uint64_t, Link> chain;
    {
        const std::scoped_lock guard(lock_);
        for (const auto& r : removed_)
            chain[r.serial] = {r.name, r.hash, r.parent_hash};
        for (const auto& [name, m] : points_) {
            const auto [it, fresh] = chain.try_emplace(m.serial, Link{name, m.hash(), m.parent_hash});
            if (!fresh)
                return fail(Errc::corrupt, fmt::format("points {} and {} have the same serial {}", name, it->second.name,
                                                       m.serial));
        }
    }
    std::string parent(no_parent);
    std::uint64_t serial = 0;
    for (const auto& [number, link] : chain) {
        if (number != serial + 1)
            return fail(Errc::corrupt, fmt::format("the recovery point with serial {} is missing and was never removed",
                                                   serial + 1));
        if (link.parent != parent)
            return fail(Errc::corrupt, fmt::format("recovery point {} (serial {}) does not follow the one before it: a "
                                                   "manifest was changed",
                                                   link.name, number));
        parent = link.hash;
        serial = number;
    }
    if (head_serial != 0 && (serial != head_serial || parent != head_hash))
        return fail(Errc::corrupt, fmt::format("the newest recovery point has serial {}, {} is expected: a manifest is "
                                               "missing or was changed",
                                               serial, head_serial));
    return {};
}

}  // namespace blkferry::store
