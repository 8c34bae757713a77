// SPDX-License-Identifier: Apache-2.0
// Verifications of source against replica: asked for, scheduled, or left unfinished by an earlier life of the agent.
//
//     verify_source ──┐
//     schedule ───────┼─ begin_verify → Verify ── end ────────→ last result, next due time
//     verify.json ────┘      ↑            ├─ session lost ──→ place kept, goes on with the next session
//                            └────────────┘
#include "agent/agent.hpp"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "agent/verify.hpp"

namespace blkferry::agent {

using control::Json;
using control::Reply;

namespace {

constexpr std::size_t devices_max = 64;
constexpr std::uint64_t progress_ns = 500'000'000;
/// How often the place of a running verification is stored.
constexpr std::uint64_t save_ns = 5'000'000'000;

std::uint64_t realtime_ms() {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

}  // namespace

void Agent::open_verify_state() {
    std::optional<Error> damage;
    verify_state_.emplace(VerifyState::open(config_.state_dir, realtime_ms(), damage));
    if (damage)
        log_.warn("source={} event=verify_state error={}", config_.source, service::quote(damage->text));
    save_verify_state();
}

void Agent::save_verify_state() {
    verify_saved_ns_ = loop::Loop::now_ns();
    if (verify_ && !verify_->ended() && verify_state_->running) {
        auto& r = *verify_state_->running;
        r.place = verify_->place();
        r.differing_bytes = verify_before_ + verify_->outcome().differing_bytes;
    }
    if (auto r = verify_state_->save(); !r)
        log_.error("source={} event=verify_state error={}", config_.source, service::quote(r.error().text));
}

bool Agent::verifying() const noexcept { return verify_ && !verify_->ended(); }

void Agent::begin_verify(VerifyState::Running running) {
    std::vector<Verify::Target> targets;
    for (const auto& m : members_)
        if (std::ranges::find(running.slots, m->disk.slot()) != running.slots.end())
            targets.push_back({&m->disk, m->resync.get()});
    std::ranges::sort(targets, {}, [](const Verify::Target& t) { return t.disk->slot(); });
    verify_before_ = running.differing_bytes;
    verify_state_->running = running;
    verify_ = std::make_unique<Verify>(
        Verify::Parts{*tracker_, shipper_, read_pool_, hashes_, loop_, verify_bucket_}, std::move(targets), running.place,
        [this](const Verify::Range& r) {
            verify_differing_ += r.bytes;
            // The first ones by name; all of them count.
            if (verify_->outcome().ranges.size() < Verify::ranges_max)
                log_.warn("source={} disk={} event=differs offset={} bytes={}", config_.source, r.device, r.offset, r.bytes);
        },
        [this](Result<Verify::Outcome> r) { verify_ended(std::move(r)); });
    const auto p = verify_->progress();
    log_.info("source={} event=verify scheduled={} from_bytes={} total_bytes={}", config_.source, running.scheduled, p.done_bytes,
              p.total_bytes);
    save_verify_state();
    verify_progress_ = loop_.every(progress_ns, [this] { verify_reports(); });
    verify_->step();
}

void Agent::verify_ended(Result<Verify::Outcome> outcome) {
    verify_progress_.stop();
    auto followers = std::exchange(verify_followers_, {});
    const bool owned = std::exchange(verify_owned_, false);
    if (!outcome) {
        const Error& e = outcome.error();
        const bool goes_on = e.code == Errc::closed && !(owned && verify_abandoned_);
        log_.warn("source={} event=verify_stopped goes_on={} error={}", config_.source, goes_on, service::quote(e.text));
        auto& running = verify_state_->running;
        if (goes_on) {
            running->place = verify_->place();
            running->differing_bytes = verify_before_ + verify_->outcome().differing_bytes;
        } else {
            if (!verify_abandoned_)
                verify_state_->last = {running->began_ms, realtime_ms(), 0, running->differing_bytes, 0, e.text};
            running.reset();
        }
        for (const auto& f : followers)
            f->fail(goes_on ? Error{e.code, 0, e.text + "; the verification goes on by itself with the next session"} : e);
        save_verify_state();
        return;
    }
    const VerifyState::Running began = *std::exchange(verify_state_->running, std::nullopt);
    const VerifyState::Last last{began.began_ms, realtime_ms(), outcome->compared_bytes, verify_before_ + outcome->differing_bytes,
                                 outcome->unsettled_bytes, {}};
    verify_state_->last = last;
    save_verify_state();
    log_.info("source={} event=verified compared_bytes={} differing_bytes={} unsettled_bytes={}", config_.source, last.compared_bytes,
              last.differing_bytes, last.unsettled_bytes);
    Json ranges = Json::array();
    for (const auto& range : outcome->ranges)
        ranges.push_back({{"device", range.device}, {"offset", range.offset}, {"bytes", range.bytes}});
    for (const auto& f : followers)
        f->done({{"equal", last.equal()},
                 {"compared_bytes", last.compared_bytes},
                 {"differing_bytes", last.differing_bytes},
                 {"unsettled_bytes", last.unsettled_bytes},
                 {"ranges", ranges}});
}

/// Progress for those who wait; one that a client began ends when nobody waits any more.
void Agent::verify_reports() {
    if (!verifying())
        return;
    std::erase_if(verify_followers_, [](const auto& f) { return f->abandoned(); });
    if (verify_owned_ && verify_followers_.empty()) {
        verify_abandoned_ = true;
        verify_->abandon();
        return;
    }
    const auto p = verify_->progress();
    for (const auto& f : verify_followers_)
        f->line({{"progress",
                  {{"done_bytes", p.done_bytes},
                   {"total_bytes", p.total_bytes},
                   {"differing_bytes", verify_before_ + p.differing_bytes}}}});
}

void Agent::verify_tick(std::uint64_t now) {
    if (verifying()) {
        verify_->step();
        if (verifying() && now - verify_saved_ns_ >= save_ns)
            save_verify_state();
        return;
    }
    if (!session_->established() || members_.empty() || tracker_->only_marks())
        return;
    if (verify_state_->running) {
        VerifyState::Running r = *verify_state_->running;
        std::erase_if(r.slots, [this](std::uint16_t slot) { return member(slot) == nullptr; });
        // Disks that are missing for now keep it waiting; if all of them were unprotected it is over.
        if (!r.slots.empty())
            begin_verify(std::move(r));
        else if (missing_.empty())
            verify_state_->running.reset();
        return;
    }
    const std::uint64_t now_ms = realtime_ms();
    const std::uint64_t due = verify_state_->due_ms(config_.verify_interval_ms, now_ms);
    if (due == 0 || now_ms < due || state_ != SourceState::continuous)
        return;
    VerifyState::Running r;
    for (const auto& m : members_)
        r.slots.push_back(m->disk.slot());
    std::ranges::sort(r.slots);
    r.place.slot = r.slots.front();
    r.began_ms = now_ms;
    r.scheduled = true;
    begin_verify(std::move(r));
}

void Agent::command_verify(const Json& request, Reply reply) {
    if (tracker_->only_marks()) {
        reply.fail({Errc::unsupported, 0, "without the module single writes are not known, so what differs cannot be told from what was just "
                                          "written; every start of the agent compares all blocks with the replica"});
        return;
    }
    const auto names = control::get_strings(request, "devices", devices_max);
    if (!names) {
        reply.fail(names.error());
        return;
    }
    auto slots = slots_of(*names);
    if (!slots) {
        reply.fail(slots.error());
        return;
    }
    if (slots->empty())
        for (const auto& m : members_)
            slots->push_back(m->disk.slot());
    std::ranges::sort(*slots);
    slots->erase(std::ranges::unique(*slots).begin(), slots->end());
    if (!session_->established() || slots->empty()) {
        reply.fail({Errc::closed, 0, "there is no session with the server"});
        return;
    }
    if (std::ranges::any_of(*slots, [this](std::uint16_t s) { return member(s) == nullptr; })) {
        reply.fail({Errc::not_found, 0, "one of the disks is not attached; see 'blkferry status'"});
        return;
    }
    if (verify_state_->running && verify_state_->running->slots != *slots) {
        reply.fail({Errc::busy, 0, "a verification of other disks is running already"});
        return;
    }
    verify_followers_.push_back(std::make_shared<Reply>(std::move(reply)));
    if (verifying())
        return;
    VerifyState::Running r;
    if (verify_state_->running) {
        r = *verify_state_->running;  // goes on
    } else {
        r.place.slot = slots->front();
        r.slots = std::move(*slots);
        r.began_ms = realtime_ms();
        verify_owned_ = true;
    }
    verify_abandoned_ = false;
    begin_verify(std::move(r));
}

Json Agent::verify_status() const {
    const std::uint64_t now_ms = realtime_ms();
    const bool unfinished = verify_state_->running.has_value();
    Json j = {{"running", verifying()}, {"waiting", unfinished && !verifying()}};
    if (verifying()) {
        const auto p = verify_->progress();
        j["progress"] = {{"done_bytes", p.done_bytes}, {"total_bytes", p.total_bytes}};
        j["differing_bytes"] = verify_before_ + p.differing_bytes;
    }
    if (unfinished) {
        j["scheduled"] = verify_state_->running->scheduled;
        j["began_ms"] = verify_state_->running->began_ms;
    }
    if (const auto due = verify_state_->due_ms(config_.verify_interval_ms, now_ms); due != 0 && !unfinished)
        j["next_ms"] = due;
    if (const auto& last = verify_state_->last) {
        j["last"] = {{"began_ms", last->began_ms},
                     {"ended_ms", last->ended_ms},
                     {"equal", last->equal()},
                     {"compared_bytes", last->compared_bytes},
                     {"differing_bytes", last->differing_bytes},
                     {"unsettled_bytes", last->unsettled_bytes}};
        if (!last->error.empty())
            j["last"]["error"] = last->error;
    }
    return j;
}

}  // namespace blkferry::agent
