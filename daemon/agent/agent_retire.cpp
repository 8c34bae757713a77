// SPDX-License-Identifier: Apache-2.0
// The end of a source: `retire` of docs/control.md.
#include "agent/agent.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace blkferry::agent {

using control::Json;
using control::Reply;

namespace {
constexpr std::uint64_t answer_ns_max = 15'000'000'000;
}

/// First the server, while there is a session to tell it in; then the disks, whatever it said.
void Agent::command_retire(const Json& request, Reply reply) {
    const auto tell = control::get_bool(request, "tell_server", true);
    if (!tell)
        return reply.fail(tell.error());
    if (retiring_)
        return reply.fail({Errc::busy, 0, "the source is retiring already"});
    retiring_ = std::make_unique<Reply>(std::move(reply));
    log_.info("source={} event=retire tell_server={}", config_.source, *tell);
    if (!*tell)
        return retire_answered("it was not told, as asked for");
    if (!session_->established())
        return retire_answered(fmt::format("there is no session with it: {}", session_->cause().empty() ? "no disk is protected" : session_->cause()));
    if (!can_retire_)
        return retire_answered("it is too old to be told");
    retire_timer_ = loop_.after(answer_ns_max, [this] { retire_answered("it did not answer"); });
    session_->retire();
}

void Agent::retire_answered(const std::string& why_not) {
    retire_timer_.reset();
    if (!retiring_)
        return;
    const auto reply = std::move(retiring_);
    const std::size_t disks = registry_->disks().size();
    release_disks();
    reply->done({{"told", why_not.empty()}, {"reason", why_not}, {"disks", disks - registry_->disks().size()}});
}

void Agent::release_disks() {
    session_->stop();
    for (const ProtectedDisk& disk : std::vector(registry_->disks())) {
        detach(disk.slot, true);
        std::erase_if(missing_, [&](const Missing& m) { return m.record.slot == disk.slot; });
        if (auto r = registry_->remove(disk.disk_id); !r)
            log_.error("source={} event=registry error={}", config_.source, service::quote(r.error().text));
    }
    shipper_.set_incomplete(!missing_.empty());
    update_state();
}

}  // namespace blkferry::agent
