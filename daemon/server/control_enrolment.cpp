// SPDX-License-Identifier: Apache-2.0
// The commands about tokens and certificates: docs/control.md.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/control.hpp"
#include "server/server.hpp"

namespace blkferry::server {

using control::Json;
using control::Reply;

namespace {

constexpr std::uint64_t token_life_ms = 86'400'000;

std::string user_text(const Reply& reply) { return fmt::format("uid {}", reply.uid()); }

/// Runs `work` in the enrolment's thread and `then` in the loop's; an error of either is the answer.
template <class Work, class Then>
void run(Server& server, std::shared_ptr<const std::atomic<bool>> stop, Reply reply, Work work, Then then) {
    if (server.enrolment() == nullptr)
        return reply.fail({Errc::unsupported, 0, "this server makes no certificates: set the key 'pki' ('blkferry server init' makes a CA)"});
    auto owed = std::make_shared<Reply>(std::move(reply));
    server.enrolment_pool().submit([&server, &loop = server.loop(), owed, stop = std::move(stop), work = std::move(work), then = std::move(then)]() mutable {
        auto result = work(*server.enrolment());
        loop.post([owed = std::move(owed), stop, result = std::move(result), then = std::move(then)]() mutable {
            if (stop->load())
                return;
            if (!result)
                return owed->fail(result.error());
            Result<Json> answer = then(*result);
            if (answer)
                owed->done(*answer);
            else
                owed->fail(answer.error());
        });
    });
}

Result<Json> as_it_is(Json& answer) { return std::move(answer); }

}  // namespace

void Control::enroll_token(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {"source", "life_ms"}); !r)
        return reply.fail(r.error());
    const auto source = control::get_string(request, "source", "");
    const auto life = control::get_u64(request, "life_ms", token_life_ms);
    if (!source || !life)
        return reply.fail(!source ? source.error() : life.error());
    const std::string by = user_text(reply);
    run(server_, stop_, std::move(reply),
        [source = *source, life = *life, by](Enrolment& e) -> Result<Json> {
            BLKFERRY_TRY_ASSIGN(const auto made, e.make_token(source, life, by));
            return Json{{"token", made.token}, {"id", made.id}, {"source", source}, {"expires_ms", made.expires_ms}};
        },
        as_it_is);
}

void Control::tokens(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {}); !r)
        return reply.fail(r.error());
    run(server_, stop_, std::move(reply),
        [](Enrolment& e) -> Result<Json> {
            const std::uint64_t now = SystemClock().realtime_ns() / 1'000'000;
            Json rows = Json::array();
            for (const StoredToken& t : e.tokens())
                rows.push_back({{"id", t.id}, {"state", to_string(t.state(now))}, {"source", t.used_by.empty() ? t.source : t.used_by},
                                {"made_ms", t.made_ms}, {"expires_ms", t.expires_ms}, {"used_ms", t.used_ms}, {"serial", t.serial}});
            return Json{{"tokens", std::move(rows)}};
        },
        as_it_is);
}

void Control::token_revoke(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {"id"}); !r)
        return reply.fail(r.error());
    const auto id = control::need_string(request, "id");
    if (!id)
        return reply.fail(id.error());
    const std::string by = user_text(reply);
    run(server_, stop_, std::move(reply),
        [id = *id, by](Enrolment& e) -> Result<Json> {
            BLKFERRY_TRY(e.revoke_token(id, by));
            return Json::object();
        },
        as_it_is);
}

void Control::revoke(const Json& request, Reply reply) {
    if (const auto r = control::only_members(request, {"source"}); !r)
        return reply.fail(r.error());
    const auto source = control::need_string(request, "source");
    if (!source)
        return reply.fail(source.error());
    const std::string by = user_text(reply);
    run(server_, stop_, std::move(reply), [source = *source, by](Enrolment& e) { return e.revoke(source, by); },
        [&server = server_](const std::vector<std::string>& serials) -> Result<Json> {
            BLKFERRY_TRY_ASSIGN(const std::size_t ended, server.enforce_revocation());
            return Json{{"serials", serials}, {"sessions_ended", ended}};
        });
}

Json Control::enrolment_status() {
    Enrolment* e = server_.enrolment();
    if (e == nullptr)
        return nullptr;
    const auto& c = e->counters();
    return {{"pki", server_.options().pki.string()},
            {"audit_log", server_.options().audit.string()},
            {"open", e->open_now()},
            {"counters", {{"enrolled", c.enrolled.load()}, {"refused", c.refused.load()}, {"renewed", c.renewed.load()},
                          {"revoked", c.revoked.load()}}}};
}

}  // namespace blkferry::server
