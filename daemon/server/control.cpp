// SPDX-License-Identifier: Apache-2.0
#include "server/control.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/alarms.hpp"
#include "server/long_job.hpp"
#include "server/own_bytes.hpp"
#include "server/server.hpp"
#include "server/verify_point.hpp"
#include "store/export.hpp"
#include "tls/renewal.hpp"

namespace blkferry::server {

namespace {

using control::Json;
using control::Reply;

std::string hex(const Sha256& hash) {
    std::string s;
    for (const std::byte b : hash)
        s += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return s;
}

Json disk_rows(store::Store& store, const std::string& source) {
    Json rows = Json::array();
    const auto disks = store.catalogue().disks(source);
    if (!disks)
        return rows;
    for (const auto& d : *disks)
        if (d.present)
            rows.push_back({{"slot", d.slot}, {"name", d.name}, {"size_bytes", d.sectors * sector_bytes}, {"synced", d.synced}});
    return rows;
}

Json source_row(Server& server, const Replica& replica) {
    const Replica::Report r = replica.report();
    const auto store = replica.store();
    std::string newest;
    if (store) {
        if (const auto m = store->points().nearest(~0ULL))
            newest = m->name;
    }
    Json alarms = Json::array();
    if (store)
        for (const Alarm& a : alarms_of(*store))
            alarms.push_back({{"reason", a.reason}, {"point", a.point}, {"error", a.error}, {"action", a.action}});
    std::string cause = r.cause.empty() ? r.agent.cause : r.cause;
    return {{"source", replica.name()},
            {"store_state", to_string(r.state)},
            {"connected", r.connected},
            {"retired_ms", server.retired_ms(replica.name()) == 0 ? Json(nullptr) : Json(server.retired_ms(replica.name()))},
            {"peer", r.address},
            {"session", r.session},
            {"agent_version", r.agent_version},
            {"state", r.connected ? (r.agent.state.empty() ? "INITIATING" : r.agent.state) : "DISCONNECTED"},
            {"cause", cause},
            {"agent_backlog_bytes", r.agent.backlog_bytes},
            {"progress_permille", r.agent.progress_permille},
            {"durable_mark", r.store.durable.mark},
            {"durable_batch", r.store.durable.batch},
            {"applied_mark", r.store.applied_mark},
            {"journal_bytes", r.store.backlog_bytes},
            {"lag_ms", r.store.durable.time_ns == 0 ? Json(nullptr) : Json(r.lag_ms)},
            {"points", r.store.points},
            {"newest_point", newest},
            {"used_bytes", r.store.used_bytes},
            {"rates", {{"in_bytes", r.bytes_in_per_s}, {"applied_bytes", r.applied_bytes_per_s}}},
            {"disks", disk_rows(server.store(), replica.name())},
            {"error", r.error},
            {"alarms", alarms}};
}

Json point_row(const store::Manifest& m, std::uint64_t own) {
    Json disks = Json::array();
    for (const auto& d : m.disks)
        disks.push_back({{"slot", d.slot}, {"name", d.name}, {"size_bytes", d.sectors * sector_bytes}});
    return {{"source", m.source},
            {"point", m.name},
            {"serial", m.serial},
            {"mark", m.mark},
            {"time_ms", m.mark_time_ns / 1'000'000},
            {"made_ms", m.made_ns / 1'000'000},
            {"kind", m.kind == proto::PointKind::fs ? "fs" : "crash"},
            {"scheduled", m.scheduled},
            {"launchable", m.launchable == store::Launchable::launchable},
            {"verified", !m.digests.empty()},
            {"bytes", own},
            {"disks", disks}};
}

Result<std::shared_ptr<Replica>> find_replica(const Server& server, const std::string& source) {
    const auto it = server.replicas().find(source);
    if (it == server.replicas().end())
        return fail(Errc::not_found, fmt::format("{}: no such source on this server", source.substr(0, 64)));
    return it->second;
}

/// `source` and `point` of a request, looked up. A damaged point is Errc::corrupt.
Result<PointTarget> find_point(const Server& server, const Json& request) {
    PointTarget t;
    BLKFERRY_TRY_ASSIGN(t.source, control::need_string(request, "source"));
    BLKFERRY_TRY_ASSIGN(t.point, control::need_string(request, "point"));
    BLKFERRY_TRY_ASSIGN(const auto replica, find_replica(server, t.source));
    t.store = replica->store();
    if (!t.store)
        return fail(Errc::busy, fmt::format("the store of source {} is {}", t.source, to_string(replica->state())));
    if (!proto::valid_name(t.point))
        return fail(Errc::not_found, fmt::format("source {} has no recovery point of this name", t.source));
    auto manifest = t.store->points().find(t.point);
    if (!manifest) {
        const auto damaged = t.store->points().damaged();
        const auto it = std::ranges::find(damaged, t.point, &store::PointStore::Damaged::name);
        return it == damaged.end() ? std::unexpected(manifest.error())
                                   : fail(Errc::corrupt, fmt::format("recovery point {} is damaged: {}", t.point, it->error.text));
    }
    t.manifest = std::move(*manifest);
    return t;
}

}  // namespace

Result<std::unique_ptr<Control>> Control::create(Server& server) {
    BLKFERRY_TRY_ASSIGN(auto socket, control::ControlServer::create(server.loop(), server.options().control_socket));
    return std::unique_ptr<Control>(new Control(server, std::move(socket)));
}

Control::Control(Server& server, std::unique_ptr<control::ControlServer> socket)
    : server_(server), started_ns_(loop::Loop::now_ns()), socket_(std::move(socket)) {
    const auto on = [this](const char* command, void (Control::*handler)(const Json&, Reply)) {
        socket_->on(command, [this, handler](const Json& request, Reply reply) { (this->*handler)(request, std::move(reply)); });
    };
    on("status", &Control::status);
    on("points", &Control::points);
    on("point_delete", &Control::point_delete);
    on("verify_point", &Control::verify_point);
    on("export", &Control::export_point);
    on("reload", &Control::reload);
    on("enroll_token", &Control::enroll_token);
    on("tokens", &Control::tokens);
    on("token_revoke", &Control::token_revoke);
    on("revoke", &Control::revoke);
}

Control::~Control() {
    stop_->store(true);
}

void Control::status(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {}); !r)
        return reply.fail(r.error());
    const auto& c = server_.counters();
    Json sources = Json::array();
    for (const auto& [name, replica] : server_.replicas())
        sources.push_back(source_row(server_, *replica));
    reply.done({{"version", BLKFERRY_VERSION},
                {"server", server_.tls().identity().name},
                {"certificate_not_after_ms", server_.tls().not_after() * 1000},
                {"certificate", certificate_status()},
                {"listen", server_.options().listen},
                {"ports", server_.ports()},
                {"store", server_.options().store_dir.string()},
                {"free_bytes", server_.free_bytes()},
                {"engine", server_.store().engine().name()},
                {"uptime_ms", (loop::Loop::now_ns() - started_ns_) / 1'000'000},
                {"counters",
                 {{"accepted", c.accepted},
                  {"refused_admission", c.refused_admission},
                  {"refused_handshake", c.refused_tls},
                  {"refused_frames", c.refused_frames},
                  {"refused_floods", c.refused_floods},
                  {"accept_pauses", c.accept_pauses},
                  {"connections", server_.sessions()}}},
                {"enrolment", enrolment_status()},
                {"sources", sources}});
}

Json Control::certificate_status() const {
    const OwnCertificate& own = server_.own_certificate();
    const auto from = server_.tls().not_before();
    const auto to = server_.tls().not_after();
    const auto now = static_cast<std::int64_t>(server_.clock().realtime_ns() / 1'000'000'000);
    return {{"not_after_ms", to * 1000},
            {"days_left", OwnCertificate::days_left(to, now)},
            {"renewable", own.renewable},
            {"renew_ms", own.renewable ? Json(tls::renewal_due_s(from, to) * 1000) : Json()},
            {"renewed", own.renewed},
            {"failed", own.failed},
            {"warning", own.warning(from, to, now)}};
}

void Control::points(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {"source"}); !r)
        return reply.fail(r.error());
    const auto source = control::get_string(request, "source", "");
    if (!source)
        return reply.fail(source.error());
    struct OfSource {
        std::filesystem::path dir;
        std::vector<store::Manifest> points;
    };
    std::vector<OfSource> found;
    const auto add = [&](const Replica& replica) {
        if (const auto store = replica.store())
            found.push_back({store::Store::source_dir(server_.options().store_dir, replica.name()), store->points().list()});
    };
    if (source->empty()) {
        for (const auto& [name, replica] : server_.replicas())
            add(*replica);
    } else {
        const auto replica = find_replica(server_, *source);
        if (!replica)
            return reply.fail(replica.error());
        add(**replica);
    }
    LongJob::start(server_.loop(), server_.lookups(), std::move(reply), stop_,
                   [found = std::move(found)](LongJob&) -> Result<Json> {
                       Json rows = Json::array();
                       for (const OfSource& s : found) {
                           const auto bytes = own_bytes(s.dir, s.points);
                           for (std::size_t i = 0; i < s.points.size(); ++i)
                               rows.push_back(point_row(s.points[i], bytes[i]));
                       }
                       return Json{{"points", std::move(rows)}};
                   });
}

void Control::point_delete(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {"source", "point"}); !r)
        return reply.fail(r.error());
    const auto target = find_point(server_, request);
    if (!target && target.error().code != Errc::corrupt)
        return reply.fail(target.error());
    // Also a damaged one: that it can be given up is the way out.
    const std::string point = *control::need_string(request, "point");
    const auto replica = find_replica(server_, *control::need_string(request, "source"));
    // Shared, because a task that is never run still owes an answer: dropping the last owner gives one.
    auto owed = std::make_shared<Reply>(std::move(reply));
    const auto submitted = (*replica)->submit(
        [&loop = server_.loop(), owed, point](store::SourceStore& store) mutable {
            loop.post([owed = std::move(owed), result = store.remove_point(point)] {
                if (result)
                    owed->done();
                else
                    owed->fail(result.error());
            });
        });
    if (!submitted)
        owed->fail(submitted.error());
}

void Control::verify_point(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {"source", "point"}); !r)
        return reply.fail(r.error());
    auto target = find_point(server_, request);
    if (!target)
        return reply.fail(target.error());
    const auto dir = store::Store::source_dir(server_.options().store_dir, target->source);
    LongJob::start(server_.loop(), server_.readers(), std::move(reply), stop_,
                   [t = std::move(*target), dir, &signer = server_.store().signer()](LongJob& job) {
                       return server::verify_point(t, dir, signer, [&](std::uint64_t done, std::uint64_t total) {
                           return job.progress(done, total);
                       });
                   });
}

void Control::export_point(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {"source", "point", "slot", "file"}); !r)
        return reply.fail(r.error());
    auto target = find_point(server_, request);
    if (!target)
        return reply.fail(target.error());
    const auto file = control::need_string(request, "file");
    if (!file)
        return reply.fail(file.error());
    if (!file->starts_with('/'))
        return reply.fail({Errc::invalid, 0, fmt::format("member 'file': '{}' is not an absolute path", *file)});
    const auto& disks = target->manifest.disks;
    const bool has_slot = request.contains("slot");
    if (!has_slot && disks.size() != 1)
        return reply.fail({Errc::invalid, 0,
                           fmt::format("recovery point {} has {} disks: name one by its slot", target->point, disks.size())});
    const auto slot = has_slot ? control::need_u64(request, "slot") : Result<std::uint64_t>(disks.front().slot);
    if (!slot)
        return reply.fail(slot.error());
    if (*slot >= proto::disks_max || target->manifest.disk(static_cast<std::uint16_t>(*slot)) == nullptr)
        return reply.fail({Errc::not_found, 0, fmt::format("recovery point {} has no disk in slot {}", target->point, *slot)});
    const auto dir = store::Store::source_dir(server_.options().store_dir, target->source);
    LongJob::start(
        server_.loop(), server_.readers(), std::move(reply), stop_,
        [t = std::move(*target), dir, &signer = server_.store().signer(), path = *file,
         slot = static_cast<std::uint16_t>(*slot)](LongJob& job) -> Result<Json> {
            if (std::error_code ignored; std::filesystem::exists(std::filesystem::symlink_status(path, ignored)))
                return fail(Errc::exists, fmt::format("{} exists", path));
            BLKFERRY_TRY_ASSIGN(const auto reader, store::PointReader::open(dir, t.point, slot, &signer));
            const std::uint64_t total = reader->bytes();
            BLKFERRY_TRY_ASSIGN(const auto done, store::export_image(*reader, path, [&](std::uint64_t bytes) {
                                    return job.progress(bytes, total);
                                }));
            return Json{{"file", path}, {"bytes", done.bytes}, {"data_bytes", done.data_bytes}, {"sha256", hex(done.sha256)}};
        });
}

void Control::reload(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {}); !r)
        return reply.fail(r.error());
    if (!server_.on_reload) {
        if (const auto r = server_.reload_tls(); !r)
            return reply.fail(r.error());
        return reply.done({{"changed", Json::array()}, {"needs_restart", Json::array()}});
    }
    const auto changes = server_.on_reload();
    if (!changes)
        return reply.fail(changes.error());
    reply.done({{"changed", changes->first}, {"needs_restart", changes->second}});
}

}  // namespace blkferry::server
