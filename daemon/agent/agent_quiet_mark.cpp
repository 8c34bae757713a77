// SPDX-License-Identifier: Apache-2.0
// Marks without the module: see quiet_mark.hpp.
#include "agent/agent.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace blkferry::agent {

/// The replica equals every disk, as far as the last look at them tells.
bool Agent::all_quiet() const {
    return missing_.empty() && !members_.empty() && std::ranges::all_of(members_, [](const auto& m) {
        const auto st = m->disk.ring->status();
        return m->resync->settled() && st.state == capture::DiskState::ring && st.gap_seq == 0;
    });
}

void Agent::quiet_mark(Points::Request request, std::vector<std::uint64_t> freeze, Points::Done done) {
    if (quiet_mark_) {
        done(fail(Errc::busy, "another mark is being taken"));
        return;
    }
    quiet_mark_.emplace();
    quiet_mark_->request = std::move(request);
    quiet_mark_->freeze = std::move(freeze);
    quiet_mark_->done = std::move(done);
    quiet_mark_->until_ns = loop::Loop::now_ns() + QuietMark::copying_ns_max;
    for (const auto& m : members_) {
        // A round that runs began before: it is the one after it that counts.
        quiet_mark_->rounds[m->disk.slot()] = m->resync->rounds() + (m->resync->settled() ? 0 : 1);
        m->resync->cycle_now();
    }
    work_soon();
}

void Agent::quiet_mark_end(Result<void> r) {
    auto q = std::exchange(quiet_mark_, std::nullopt);
    if (!r) {
        q->freezer.reset();
        q->done(std::unexpected(std::move(r).error().with("no mark was taken")));
        return;
    }
    // Drawn while frozen; thawed before anything else is done with it.
    auto seq = tracker_->cut({}, 0);
    if (q->freezer)
        if (auto thawed = q->freezer->thaw(); !thawed && seq)
            seq = std::unexpected(std::move(thawed).error());
    q->freezer.reset();
    points_->taken(seq, std::move(q->request), std::move(q->done));
    work_soon();
}

void Agent::quiet_mark_frozen(Result<void> r) {
    if (!quiet_mark_)
        return;
    if (!r) {
        quiet_mark_end(std::move(r));
        return;
    }
    quiet_mark_->step = QuietMark::Step::settling;
    quiet_mark_->until_ns = loop::Loop::now_ns() + std::uint64_t{Freezer::ms_max} * 900'000;
    for (const auto& m : members_)
        m->resync->cycle_now();
    work_soon();
}

void Agent::quiet_mark_step() {
    if (!quiet_mark_)
        return;
    QuietMark& q = *quiet_mark_;
    if (!session_->established() || paused_) {
        quiet_mark_end(fail(Errc::closed, paused_ ? "replication is paused" : "the connection with the server was lost"));
        return;
    }
    const std::uint64_t now = loop::Loop::now_ns();
    if (now >= q.until_ns) {
        quiet_mark_end(fail(Errc::timeout,
                            q.step == QuietMark::Step::copying ? "the first round did not end in time; see 'blkferry status'"
                            : !q.freezer ? "the disks were written all the time, and without the module a mark needs a moment without "
                                           "writes; ask with 'blkferry mark --fs', which makes one, or load the module"
                                         : fmt::format("what was left to ship did not reach the server within the {} s that file systems "
                                                       "may be frozen", Freezer::ms_max / 1000)));
        return;
    }
    switch (q.step) {
        case QuietMark::Step::copying: {
            const bool copied = std::ranges::all_of(members_, [&](const auto& m) {
                const auto before = q.rounds.find(m->disk.slot());
                return before == q.rounds.end() || m->resync->rounds() > before->second;
            });
            if (!copied && !all_quiet()) {
                for (const auto& m : members_)
                    m->resync->cycle_now();
                return;
            }
            if (q.freeze.empty()) {
                q.step = QuietMark::Step::settling;
                q.until_ns = now + QuietMark::settling_ns_max;
                break;
            }
            q.step = QuietMark::Step::freezing;
            auto mounts = open_mount_points(q.freeze);
            if (!mounts) {
                quiet_mark_end(std::unexpected(std::move(mounts).error()));
                return;
            }
            auto freezer = Freezer::start(loop_, std::move(*mounts), Freezer::ms_max,
                                          [this](Result<void> r) { quiet_mark_frozen(std::move(r)); });
            if (!freezer) {
                quiet_mark_end(std::unexpected(std::move(freezer).error()));
                return;
            }
            q.freezer = std::move(*freezer);
            return;
        }
        case QuietMark::Step::freezing: return;
        case QuietMark::Step::settling: break;
    }
    tracker_->observe();
    if (all_quiet()) {
        quiet_mark_end({});
        return;
    }
    for (const auto& m : members_)
        if (m->resync->settled())
            m->resync->cycle_now();
}

}  // namespace blkferry::agent
