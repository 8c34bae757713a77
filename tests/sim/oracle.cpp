// SPDX-License-Identifier: Apache-2.0
// What has to hold when the faults have ended.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <optional>

#include "scenario_impl.hpp"
#include "store/checkpoint.hpp"
#include "store/export.hpp"

namespace blkferry::sim {

namespace {
constexpr std::uint64_t alone_ns_max = 40 * second;
constexpr std::uint64_t verify_ns_max = 180 * second;
constexpr std::uint64_t repair_ns_max = 180 * second;
constexpr std::size_t spares_max = 2;
const volatile void* leaked = nullptr;  ///< keeps the compiler from seeing that nobody needs it
}  // namespace

/// A server that died between making a point and saying so left it behind.
void Scenario::note_points() {
    const auto store = open_store();
    if (!store)
        return;
    for (const store::Manifest& m : store->points().list()) {
        if (deleted_.contains(m.name))
            problem(fmt::format("C7: point {} was deleted and is there again", m.name));
        if (!asked_.contains(m.name))
            points_[m.name] = m.mark;
    }
}

bool Scenario::recovered() {
    if (!source_->idle() || !agent_ || agent_->state() != agent::SourceState::continuous)
        return false;
    note_points();
    return std::ranges::any_of(points_, [&](const auto& p) { return source_->has_all(p.second); });
}

/// The source is away for long, its agent may have died inside of a batch: what the server holds at a consistent mark becomes a
/// recovery point all the same.
void Scenario::check_alone() {
    if (plan_.die_at != 0 || !world_.one_in(4) || !agent_)
        return;
    agent_held_ = true;
    crash_agent();
    run_until("a point of what the server holds", alone_ns_max, [this] {
        const auto store = open_store();
        if (!store)
            return false;
        const auto status = store->status();
        return status.backlog_bytes == 0 &&
               (!status.settled || !status.durable.consistent || status.newest_point_mark == status.durable.mark);
    });
    agent_held_ = false;
    if (out_.problem.empty() && !agent_)
        start_agent();
}

/// Where bits turned over in the store: all of it is read again, what differs is named and shipped anew.
void Scenario::verify() {
    if (out_.rots == 0 || !out_.problem.empty())
        return;
    if (plan_.mutation == Mutation::hide_rot) {
        for (Rot& r : rots_)
            r.fixed = 0;
        return;
    }
    crash_server();
    run_until("recovery behind a restart", repair_ns_max, [this] { return recovered(); });
    bool verified = false;
    bool waiting = false;
    run_until("the verification", verify_ns_max, [&] {
        const auto it = world_.sockets.find("agent");
        if (verified || waiting || it == world_.sockets.end())
            return verified;
        waiting = true;
        it->second(R"({"cmd":"verify_source"})", [&](bool ok, const std::string& line) {
            world_.trace("verify: {}", line);
            waiting = false;
            verified = ok;
        });
        return false;
    });
    if (!out_.problem.empty())
        return;
    source_->write_one();
    for (Rot& r : rots_)
        r.fixed = source_->last_seq();
    run_until("the repair", repair_ns_max, [this] { return recovered(); });
}

/// O1: every recovery point that was published is there and equals the source at its mark.
void Scenario::check_points() {
    std::vector<std::pair<std::uint64_t, std::string>> by_mark;
    for (const auto& [name, mark] : points_)
        by_mark.emplace_back(mark, name);
    std::ranges::sort(by_mark);
    for (std::size_t i = 0; i < source_->disks() && out_.problem.empty(); ++i) {
        Source::Replay replay(*source_, i);
        for (const auto& [mark, name] : by_mark)
            check_point(replay, i, mark, name);
        if (out_.problem.empty() && replay.at(UINT64_MAX) != source_->medium(i))
            problem("the simulation's own history is wrong");
    }
}

void Scenario::check_point(Source::Replay& replay, std::size_t disk, std::uint64_t mark, const std::string& name) {
    const auto files = store::make_posix_file_system();
    const auto* signer = &server_->store().signer();
    const auto reader = store::PointReader::open_in(*files, source_dir_, name, static_cast<std::uint16_t>(disk), signer);
    if (!reader) {
        if (!rotten_points_.contains(name))
            problem(fmt::format("O1: point {} disk {}: {}", name, disk, reader.error().text));
        return;
    }
    std::vector<std::byte> got((*reader)->bytes());
    if (const auto r = (*reader)->read(0, got); !r)
        return problem(fmt::format("O1: point {} disk {}: {}", name, disk, r.error().text));
    const auto& want = replay.at(mark);
    for (const Rot& r : rots_)
        if (r.disk == disk && mark < r.fixed && (r.sector + 1) * 512 <= std::min(got.size(), want.size()))
            std::memcpy(got.data() + r.sector * 512, want.data() + r.sector * 512, 512);
    if (const auto bad = replay.first_difference(mark, got))
        return problem(fmt::format("O1: point {} (mark {}) differs from the source on disk {} at sector {}", name, mark, disk, *bad));
    check_frozen(disk, mark, name, got);
}

/// A cut with frozen file systems: nothing was written from its mark until they were thawed.
void Scenario::check_frozen(std::size_t disk, std::uint64_t mark, const std::string& name, std::span<const std::byte> got) {
    for (const Frozen& f : world_.frozen)
        if (f.mark == mark && f.life == source_->life_of(mark) && !std::ranges::equal(f.media.at(disk), got) && rots_.empty())
            problem(fmt::format("O1: point {} (mark {}) differs on disk {} from what the frozen file systems held", name, mark, disk));
}

/// O5: when all is at rest and the server has stopped, every file of the store is one that is needed, and none is open.
void Scenario::check_store() {
    if (!out_.problem.empty())
        return;
    (void)server_->replicas().at("src")->submit([](store::SourceStore&) {});
    run_until(world_.now + 2 * second);
    if (!server_ || !out_.problem.empty())
        return;
    stop_server();
    if (!out_.problem.empty())
        return;
    if (plan_.mutation == Mutation::orphan)
        (void)world_.disk.open(source_dir_ / "disks/000/00000000.0000000000000000", store::OpenMode::create,
                               store::Caching::page_cache);
    if (plan_.mutation == Mutation::leak_file)
        (void)::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (plan_.mutation == Mutation::leak_memory)
        leaked = std::make_unique<std::vector<std::byte>>(1U << 20).release();
    if (world_.disk.open_files() != 0)
        problem(fmt::format("O5: {} files of the store are open", world_.disk.open_files()));
    std::map<std::string, std::vector<std::string>> folders;
    std::size_t spares = 0;
    for (const std::string& path : world_.disk.paths()) {
        const std::filesystem::path p(path);
        const std::string name = p.filename().string();
        const std::string folder = p.parent_path().lexically_relative(source_dir_).string();
        folders[folder].push_back(name);
        const bool spare = folder == "journal" && name.ends_with(".spare");
        spares += spare ? 1U : 0U;
        const bool left = name.ends_with(".new") || folder == "maps" || (spare && spares > spares_max) ||
                          (name.ends_with(".damaged") && out_.rots == 0) ||
                          (folder == "points" && name.ends_with(".json") && !points_.contains(p.stem().string()) &&
                           !asked_.contains(p.stem().string()) && !rotten_points_.contains(p.stem().string()));
        if (left)
            problem(fmt::format("O5: {} is left in the store", path.substr(dir_.path.string().size())));
    }
    if (rotten_points_.empty())
        for (const auto& [folder, names] : folders)
            if (folder.starts_with("disks/"))
                check_chunks(folder, names, static_cast<std::uint16_t>(std::strtoul(folder.c_str() + 6, nullptr, 10)));
}

/// A chunk file is needed if a recovery point or staging sees it.
void Scenario::check_chunks(const std::string& folder, const std::vector<std::string>& names, std::uint16_t slot) {
    const auto files = store::make_posix_file_system();
    const auto points = store::PointStore::open(*files, source_dir_ / "points", nullptr, store::PointStore::Access::look);
    const auto text = files->read_text(source_dir_ / "checkpoint.json", store::checkpoint_bytes_max);
    const auto checkpoint = text ? store::decode_checkpoint(*text) : std::unexpected(text.error());
    if (!points || !checkpoint)
        return problem("O5: the store cannot be read after its server has stopped");
    std::vector<store::Generation> live = (*points)->generations(slot);
    live.push_back(checkpoint->generation);
    for (const std::string& name : names) {
        const auto chunk = store::parse_chunk_name(name);
        const bool needed = chunk && std::ranges::any_of(live, [&](store::Generation g) {
            return chunk->generation <= g && std::ranges::none_of(names, [&](const std::string& other) {
                       const auto o = store::parse_chunk_name(other);
                       return o && o->chunk == chunk->chunk && o->generation > chunk->generation && o->generation <= g;
                   });
        });
        if (!needed)
            problem(fmt::format("O5: {}/{} is left in the store, nothing needs it", folder, name));
    }
}

}  // namespace blkferry::sim
