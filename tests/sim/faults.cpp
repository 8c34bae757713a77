// SPDX-License-Identifier: Apache-2.0
// What a seed does to its machines, beside their work: faults, and what operators ask for.
#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "scenario_impl.hpp"
#include "store/chunk_store.hpp"

namespace blkferry::sim {

namespace {
constexpr std::uint64_t kinds = 18;
constexpr std::uint64_t chunk_bytes = 512U << 10;
}  // namespace

void Scenario::plan_faults() {
    if (!faulty_)
        return;
    world_.in(world_.between(1, 2 * fault_gap_ms_) * ms, [this] {
        if (!faulty_)
            return;
        one_fault();
        plan_faults();
    });
}

void Scenario::one_fault() {
    const std::uint64_t kind = world_.below(kinds);
    if ((faults_ >> kind & 1) == 0)
        return;
    switch (kind) {
        case 0:
            if (agent_)
                crash_agent();
            break;
        case 1:
            if (server_)
                crash_server();
            break;
        case 2:  // at the n-th operation of the store's disk from here
            if (server_ && !world_.disk.dead())
                world_.disk.die_at(world_.between(1, 200));
            break;
        case 3:
            world_.note("--- link: reset");
            for (const auto& [fd, end] : world_.ends)
                end->reset = true;
            break;
        case 4:
            world_.note("--- link: silence");
            for (const auto& [fd, end] : world_.ends)
                end->silent = end->silent || world_.below(2) == 0;
            break;
        case 5:
            world_.weather = {world_.between(1, 50'000) * us, std::uint64_t{10} << world_.below(14), world_.one_in(3)};
            world_.note("--- link: other weather");
            break;
        case 6:
            world_.chances.source_read_error = world_.below(2) == 0 ? 0 : 20;
            world_.chances.short_io = world_.below(2) == 0 ? 0 : 10;
            world_.chances.journal_error = world_.below(2) == 0 ? 0 : 30;
            break;
        case 7:
            world_.wall_offset += world_.below(2) == 0 ? 3600 * second : 0 - 7200 * second;
            world_.note("--- wall clock jumps");
            break;
        case 8:
        case 9:
            if (kind == 8 || world_.one_in(4))
                crash_source();
            break;
        case 10: cut_streams(); break;
        case 11: stall_streams(); break;
        case 12: trouble_store(); break;
        case 13:
            if (world_.one_in(2))
                rot();
            break;
        case 14:
        case 16: ask_for_mark(); break;
        default: ask_to_delete(); break;
    }
}

/// The machine of the source, with all that it knew. It writes before its agent runs again.
void Scenario::crash_source() {
    const bool power = world_.below(2) == 0;
    world_.trace("--- source goes down, {}", power ? "power cut" : "reset");
    ++out_.reboots;
    if (power)
        for (const auto& [fd, end] : world_.ends)
            end->silent = true;
    agent_.reset();
    agent_loop_.reset();
    source_->reboot(power);
    source_down_ = true;
    world_.in(world_.between(1, 2000) * ms, [this, life = source_->lives()] {
        if (life != source_->lives())
            return;
        source_down_ = false;
        if (!agent_)
            start_agent();
    });
}

/// At any byte of what is on its way; the ends hear of it later.
void Scenario::cut_streams() {
    world_.note("--- link: cut in the stream");
    world_.chances.short_stream = world_.below(2) == 0 ? 0 : world_.between(1, 20);
    for (const auto& [fd, end] : world_.ends) {
        std::size_t keep = world_.below(end->held + 1);
        end->held = keep;
        end->silent = true;
        auto piece = end->arriving.begin();
        for (; piece != end->arriving.end() && keep > 0; ++piece) {
            piece->bytes.resize(std::min(keep, piece->bytes.size()));
            keep -= piece->bytes.size();
        }
        end->arriving.erase(piece, end->arriving.end());
        world_.in(world_.between(1, 500) * ms, [weak = std::weak_ptr<End>(end)] {
            if (const auto here = weak.lock())
                here->reset = true;
        });
    }
}

/// All that is on its way comes later, as when routers queue or a path is lost for a while.
void Scenario::stall_streams() {
    const std::uint64_t more = world_.one_in(4) ? world_.between(1, 60) * second : world_.between(1, 3000) * ms;
    world_.trace("--- link: stalls for {} ms", more / ms);
    for (const auto& [fd, end] : world_.ends) {
        end->last_ready_ns += more;
        for (End::Piece& piece : end->arriving) {
            piece.ready_ns += more;
            world_.at(piece.ready_ns, [] {});
        }
    }
}

void Scenario::trouble_store() {
    world_.note("--- the store's disk fails now and then, or is full");
    if (world_.below(2) == 0)
        world_.chances.store_error = world_.between(3, 300);
    else
        world_.chances.store_full = true;
    world_.in(world_.between(10, 1500) * ms, [this] {
        world_.chances.store_error = 0;
        world_.chances.store_full = false;
    });
}

int Scenario::store_trouble(std::string_view what, const std::string& path) {
    const bool reads = what == "read" || what == "open" || what == "list" || what == "look";
    const bool grows = what == "create" || what == "write" || what == "allocate" || what == "reflink" || what == "copy";
    int err = 0;
    if (grows && world_.chances.store_full)
        err = ENOSPC;
    else if (world_.one_in(world_.chances.store_error))
        err = !reads && world_.below(2) == 0 ? ENOSPC : EIO;
    if (err == 0)
        return 0;
    ++out_.store_errors;
    const bool lie = plan_.mutation == Mutation::lie_about_write && what == "write" && path.find("/disks/") != std::string::npos;
    return lie ? test::CrashFs::pretend : err;
}

/// One bit of a file of the store turns over where it lies.
void Scenario::rot() {
    const std::uint64_t kind = world_.below(5);
    const char* const folders[] = {"/disks/", "/points/", "/journal/", "/checkpoint.json", "/maps/"};
    std::vector<std::string> found;
    for (const std::string& path : world_.disk.paths())
        if (path.find(folders[kind]) != std::string::npos && !world_.disk.contents(path)->empty() && !path.ends_with(".new") &&
            (kind != 1 || (path.ends_with(".json"))) && (kind != 2 || path.ends_with(".seg")))
            found.push_back(path);
    if (found.empty())
        return;
    const std::string path = found[world_.below(found.size())];
    auto& bytes = *world_.disk.contents(path);
    ++out_.rots;
    world_.trace("--- a bit turns over in {}", path.substr(dir_.path.string().size()));
    if (kind == 0)
        return rot_chunk(path, bytes);
    // A journal file holds little at its begin, then zeroes.
    const std::size_t end = kind == 2 ? std::min<std::size_t>(bytes.size(), std::size_t{8192} << world_.below(8)) : bytes.size();
    bytes[world_.below(end)] ^= static_cast<std::byte>(1U << world_.below(8));
    if (kind == 1)
        rotten_points_.insert(std::filesystem::path(path).stem().string());
    journal_rotten_ = journal_rotten_ || kind == 2;
}

void Scenario::rot_chunk(const std::string& path, std::vector<std::byte>& bytes) {
    const std::filesystem::path p(path);
    const auto name = store::parse_chunk_name(p.filename().string());
    BLKFERRY_ASSERT(name.has_value());
    const std::size_t at = world_.below(bytes.size());
    bytes[at] ^= static_cast<std::byte>(1U << world_.below(8));
    const auto disk = std::strtoull(p.parent_path().filename().string().c_str(), nullptr, 10);
    rots_.push_back({disk, name->chunk * (chunk_bytes / 512) + at / 512});
}

void Scenario::ask_for_mark() {
    const auto it = world_.sockets.find("agent");
    if (it == world_.sockets.end())
        return;
    const std::string name = fmt::format("asked-{}", ++marks_asked_);
    const bool fs = world_.below(2) == 0;
    world_.trace("--- operator: mark {}{}", name, fs ? " with frozen file systems" : "");
    it->second(fmt::format(R"({{"cmd":"mark","fs":{},"name":"{}"}})", fs, name), [this, name](bool ok, const std::string& line) {
        world_.trace("mark {}: {}", name, line);
        if (!ok || asked_.contains(name) || deleted_.contains(name))
            return;
        const std::size_t at = line.find("\"mark\":");
        points_[name] = std::strtoull(line.c_str() + at + 7, nullptr, 10);
    });
}

void Scenario::ask_to_delete() {
    const auto it = world_.sockets.find("server");
    if (it == world_.sockets.end() || points_.empty())
        return;
    const auto [name, mark] = *std::next(points_.begin(), static_cast<std::ptrdiff_t>(world_.below(points_.size())));
    world_.trace("--- operator: delete {}", name);
    points_.erase(name);
    asked_.insert(name);
    it->second(fmt::format(R"({{"cmd":"point_delete","source":"src","point":"{}"}})", name),
               [this, name = name, mark = mark](bool ok, const std::string& line) {
                   world_.trace("delete {}: {}", name, line);
                   if (!ok && (line.find("the request was dropped") != std::string::npos ||
                               line.find("not decided") != std::string::npos))
                       return;
                   asked_.erase(name);
                   if (ok) {
                       deleted_.insert(name);
                       ++out_.deletions;
                   } else {
                       points_[name] = mark;
                   }
               });
}

void Scenario::heal() {
    world_.note("--- faults end");
    faulty_ = false;
    world_.weather = {};
    world_.weather.refuses = world_.mutation == Mutation::dead_link && out_.agent_crashes + out_.reboots > 0;
    world_.chances = {};
}

}  // namespace blkferry::sim
