// SPDX-License-Identifier: Apache-2.0
// The requests of the control socket: docs/control.md, "Agent".
#include "agent/agent.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace blkferry::agent {

using control::Json;
using control::Reply;

namespace {

constexpr std::size_t devices_max = 64;
/// After this the module thaws by itself.
constexpr std::uint32_t freeze_ms_max = 2000;

/// Runs a handler that gives its answer at once.
template <class F>
void answer(Reply& reply, F&& handler) {
    Result<Json> r = handler();
    if (r)
        reply.done(*r);
    else
        reply.fail(r.error());
}

}  // namespace

void Agent::add_commands() {
    using control::only_members;
    const auto simple = [this](const char* name, std::initializer_list<std::string_view> keys, auto handler) {
        const std::vector<std::string> allowed(keys.begin(), keys.end());
        control_->on(name, [allowed, handler](const Json& request, Reply reply) mutable {
            for (const auto& [key, value] : request.items())
                if (key != "cmd" && std::ranges::find(allowed, key) == allowed.end()) {
                    reply.fail({Errc::invalid, 0, fmt::format("unknown member '{}'", key)});
                    return;
                }
            handler(request, std::move(reply));
        });
    };
    simple("status", {}, [this](const Json&, Reply reply) {
        update_state();  // a gap that opened since the last tick shows in the rings already
        reply.done(status());
    });
    simple("disks", {}, [this](const Json&, Reply reply) { command_disks(std::move(reply)); });
    simple("protect", {"devices", "replicate"}, [this](const Json& q, Reply reply) { command_protect(q, std::move(reply)); });
    simple("unprotect", {"devices"}, [this](const Json& q, Reply reply) { command_unprotect(q, std::move(reply)); });
    simple("mark", {"fs", "name"}, [this](const Json& q, Reply reply) { command_mark(q, std::move(reply)); });
    simple("throttle", {"rate_bytes"}, [this](const Json& q, Reply reply) { command_throttle(q, std::move(reply)); });
    simple("verify_source", {"devices"}, [this](const Json& q, Reply reply) { command_verify(q, std::move(reply)); });
    simple("retire", {"tell_server"}, [this](const Json& q, Reply reply) { command_retire(q, std::move(reply)); });
    simple("pause", {}, [this](const Json&, Reply reply) { command_pause(true, std::move(reply)); });
    simple("resume", {}, [this](const Json&, Reply reply) { command_pause(false, std::move(reply)); });
    simple("reload", {}, [this](const Json&, Reply reply) {
        answer(reply, [this]() -> Result<Json> {
            BLKFERRY_TRY_ASSIGN(const auto changes, reload());
            return Json{{"changed", changes.changed}, {"needs_restart", changes.needs_restart}};
        });
    });
}

void Agent::command_disks(Reply reply) {
    Json list = Json::array();
    for (const BlockDevice& d : devices()) {
        const bool taken = std::ranges::any_of(members_, [&](const auto& m) { return m->disk.dev == d.dev; });
        const std::string reason = taken ? "it is protected already" : d.obstacle;
        list.push_back({{"device", d.path},
                        {"name", d.identity.name},
                        {"size_bytes", d.identity.sectors * sector_bytes},
                        {"identity", d.identity.str()},
                        {"model", d.model},
                        {"content", d.label},
                        {"mounts", d.mounts},
                        {"protected", taken},
                        {"registered", taken || is_held(d)},
                        {"left_out", d.left_out},
                        {"protectable", reason.empty()},
                        {"reason", reason}});
    }
    reply.done({{"disks", std::move(list)}});
}

/// The record of a disk: the one of a disk that was only registered, or a new one.
Result<ProtectedDisk> Agent::register_disk(const BlockDevice& device, bool held) {
    for (ProtectedDisk record : registry_->disks()) {
        if (!record.held || !find_device(record.identity, std::vector<BlockDevice>{device}))
            continue;
        if (held)
            return fail(Errc::exists, "it is registered already");
        record.held = false;
        BLKFERRY_TRY(registry_->update(record));
        return record;
    }
    return registry_->add(device.identity, held);
}

/// Whether a disk is registered without being replicated.
bool Agent::is_held(const BlockDevice& device) const {
    return std::ranges::any_of(registry_->disks(), [&](const ProtectedDisk& p) {
        return p.held && find_device(p.identity, std::vector<BlockDevice>{device}).has_value();
    });
}

void Agent::command_protect(const Json& request, Reply reply) {
    answer(reply, [&]() -> Result<Json> {
        BLKFERRY_TRY_ASSIGN(const auto paths, control::get_strings(request, "devices", devices_max));
        if (paths.empty())
            return fail(Errc::invalid, "'devices' names no device");
        BLKFERRY_TRY_ASSIGN(const bool replicate, control::get_bool(request, "replicate", true));
        std::vector<BlockDevice> wanted;
        std::set<std::uint64_t> seen;
        for (const std::string& path : paths) {
            BLKFERRY_TRY_ASSIGN(auto d, device(path));
            if (!d.obstacle.empty())
                return fail(Errc::unsupported, fmt::format("{} cannot be protected: {}", path, d.obstacle));
            if (!seen.insert(d.dev).second)
                return fail(Errc::invalid, fmt::format("{} is named twice", path));
            if (std::ranges::any_of(members_, [&](const auto& m) { return m->disk.dev == d.dev; }))
                return fail(Errc::exists, fmt::format("{} is protected already", path));
            wanted.push_back(std::move(d));
        }
        // All or none: what was attached is taken back if a later one fails.
        std::vector<ProtectedDisk> done;
        Json list = Json::array();
        for (const BlockDevice& d : wanted) {
            auto record = register_disk(d, !replicate);
            if (record)
                done.push_back(*record);
            Result<void> r;
            if (!record)
                r = std::unexpected(record.error());
            else if (replicate)
                r = attach(*record, std::vector<BlockDevice>{d});
            if (!r) {
                for (const ProtectedDisk& p : done) {
                    detach(p.slot, true);
                    (void)registry_->remove(p.disk_id);
                }
                Error e = std::move(r).error();
                return std::unexpected(std::move(e).with(fmt::format("{} cannot be protected", d.path)));
            }
            list.push_back({{"device", d.path}, {"slot", record->slot}, {"disk_id", record->disk_id.str()}, {"replicated", replicate}});
        }
        if (!replicate)
            return Json{{"disks", std::move(list)}};
        session_->start();
        session_->restart("the set of protected disks changed");
        update_state();
        return Json{{"disks", std::move(list)}};
    });
}

Result<std::vector<std::uint16_t>> Agent::slots_of(const std::vector<std::string>& devices) const {
    std::vector<std::uint16_t> slots;
    for (const std::string& name : devices) {
        // A path may be any of the device's names: a link, a /dev/mapper node.
        const Result<std::uint64_t> number =
            name.starts_with('/') ? tracker_->find_device(name) : fail(Errc::not_found, "");
        const auto same = [&](const Disk& d) {
            return d.path == name || d.name == name || "/dev/" + d.name == name || (number && *number == d.dev);
        };
        const auto m = std::ranges::find_if(members_, [&](const auto& x) { return same(x->disk); });
        const auto gone = std::ranges::find_if(missing_, [&](const Missing& x) {
            return x.record.identity.name == name || "/dev/" + x.record.identity.name == name;
        });
        if (m != members_.end())
            slots.push_back((*m)->disk.slot());
        else if (gone != missing_.end())
            slots.push_back(gone->record.slot);
        else if (const auto held = std::ranges::find_if(registry_->disks(), [&](const ProtectedDisk& p) {
                     return p.held && (p.identity.name == name || "/dev/" + p.identity.name == name);
                 });
                 held != registry_->disks().end())
            slots.push_back(held->slot);
        else
            return fail(Errc::not_found, fmt::format("{} is not protected; see 'blkferry status'", name));
    }
    return slots;
}

void Agent::command_unprotect(const Json& request, Reply reply) {
    answer(reply, [&]() -> Result<Json> {
        BLKFERRY_TRY_ASSIGN(const auto names, control::get_strings(request, "devices", devices_max));
        if (names.empty())
            return fail(Errc::invalid, "'devices' names no device");
        BLKFERRY_TRY_ASSIGN(const auto slots, slots_of(names));
        Json list = Json::array();
        for (std::size_t i = 0; i < slots.size(); ++i) {
            const auto record = std::ranges::find(registry_->disks(), slots[i], &ProtectedDisk::slot);
            if (record == registry_->disks().end())
                continue;
            const Uuid id = record->disk_id;
            detach(slots[i], true);
            std::erase_if(missing_, [&](const Missing& m) { return m.record.slot == slots[i]; });
            BLKFERRY_TRY(registry_->remove(id));
            list.push_back({{"device", names[i]}, {"slot", slots[i]}});
        }
        shipper_.set_incomplete(!missing_.empty());
        if (members_.empty())
            session_->stop();
        else
            session_->restart("the set of protected disks changed");
        update_state();
        return Json{{"disks", std::move(list)}};
    });
}

void Agent::command_mark(const Json& request, Reply reply) {
    const auto fs = control::get_bool(request, "fs", false);
    auto name = control::get_string(request, "name", "");
    if (!fs || !name) {
        reply.fail(!fs ? fs.error() : name.error());
        return;
    }
    if (!name->empty() && !proto::valid_name(*name)) {
        reply.fail({Errc::invalid, 0, "'name' may hold letters, digits, '.', '_' and '-' only, at most 64, the first a letter or digit"});
        return;
    }
    if (!session_->established()) {
        reply.fail({Errc::closed, 0, fmt::format("there is no session with the server: {}", session_->cause())});
        return;
    }
    std::vector<std::uint64_t> freeze;
    if (*fs) {
        std::vector<std::uint64_t> devs;
        for (const auto& m : members_)
            devs.push_back(m->disk.dev);
        freeze = mounted_on(devs);
        if (freeze.empty()) {
            reply.fail({Errc::not_found, 0, "no mounted file system lies on a protected disk; ask for a mark without 'fs'"});
            return;
        }
    }
    reply.line({{"progress", {{"step", "cut"}, {"backlog_bytes", backlog_bytes()}}}});
    const std::uint64_t began = loop::Loop::now_ns();
    auto shared = std::make_shared<Reply>(std::move(reply));
    Points::Request r{.name = std::move(*name), .fs = *fs};
    Points::Done done = [shared, began](Result<PointOutcome> outcome) {
        if (outcome)
            shared->done({{"mark", outcome->mark},
                          {"point", outcome->name},
                          {"fs", outcome->fs},
                          {"took_ms", (loop::Loop::now_ns() - began) / 1'000'000}});
        else
            shared->fail(outcome.error());
    };
    const auto shipping = [this, shared] {
        if (!shared->ended())
            shared->line({{"progress", {{"step", "shipping"}, {"backlog_bytes", backlog_bytes()}}}});
        work_soon();
    };
    if (tracker_->only_marks()) {
        quiet_mark(std::move(r), std::move(freeze), std::move(done));
        shipping();
        return;
    }
    if (!*fs) {
        points_->ask(std::move(r), std::move(done));
        shipping();
        return;
    }
    // The rings are left alone until the mark is known: its batch must not close before the request for the point is in it.
    if (!freeze_cut_->running())
        shipper_.set_paused(true);
    freeze_cut_->start(std::move(freeze), freeze_ms_max,
                       [this, shipping, r = std::move(r), done = std::move(done)](Result<std::uint64_t> seq) mutable {
                           points_->taken(seq, std::move(r), std::move(done));
                           if (!freeze_cut_->running())
                               shipper_.set_paused(paused_);
                           shipping();
                       });
}

void Agent::command_throttle(const Json& request, Reply reply) {
    answer(reply, [&]() -> Result<Json> {
        BLKFERRY_TRY_ASSIGN(const std::uint64_t rate, control::get_u64(request, "rate_bytes", bucket_.rate()));
        if (rate != 0 && rate < 1000)
            return fail(Errc::invalid, "'rate_bytes' must be 0 (no limit) or at least 1000");
        if (rate != bucket_.rate()) {
            bucket_.set_rate(rate, loop::Loop::now_ns());
            config_.bandwidth = rate;
            rates_.forget_drain();
            log_.info("source={} event=throttle bandwidth={}", config_.source, config::format_rate(rate));
            session_->kick();
        }
        return Json{{"rate_bytes", rate}};
    });
}

void Agent::command_pause(bool paused, Reply reply) {
    paused_ = paused;
    shipper_.set_paused(paused || freeze_cut_->running());
    log_.info("source={} event={}", config_.source, paused ? "pause" : "resume");
    update_state();
    work_soon();
    reply.done({{"paused", paused}});
}

}  // namespace blkferry::agent
