// SPDX-License-Identifier: Apache-2.0
// Stands for the connection to a producer: calls go straight to the simulated machine.
#include <cerrno>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/freeze_cut.hpp"
#include "agent/points.hpp"
#include "capture/socket_tracker.hpp"
#include "source.hpp"
#include "world.hpp"

namespace blkferry::capture {

using sim::world;

struct SocketTracker::Impl {
    Fd wake;
    std::vector<TrackerEvent> events;
    [[nodiscard]] static producer::Machine& machine() { return *world->machine; }
};

SocketTracker::SocketTracker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SocketTracker::~SocketTracker() {
    if (impl_->wake)
        Impl::machine().set_event_sink({});
}
Result<std::unique_ptr<SocketTracker>> SocketTracker::connect(const std::filesystem::path&, std::uint32_t) {
    return std::unique_ptr<SocketTracker>(new SocketTracker(std::make_unique<Impl>()));
}
Result<TrackerInfo> SocketTracker::info() { return Impl::machine().info(); }
Result<std::vector<DiskInfo>> SocketTracker::list() {
    std::vector<DiskInfo> out;
    for (const std::uint32_t id : Impl::machine().disks()) {
        BLKFERRY_TRY_ASSIGN(const auto d, Impl::machine().disk(id));
        out.push_back(d->info());
    }
    return out;
}
Result<DiskInfo> SocketTracker::disk_get(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(const auto d, Impl::machine().disk(disk));
    return d->info();
}
Result<std::uint64_t> SocketTracker::find_device(const std::string& path) { return Impl::machine().find(path); }
Result<DiskInfo> SocketTracker::attach(const AttachRequest& request) {
    AttachRequest small = request;
    small.data_bytes = world->ring_bytes;
    small.descs.reset();
    return Impl::machine().attach(small);
}
Result<std::uint64_t> SocketTracker::detach(std::uint32_t disk) { return Impl::machine().detach(disk); }
Result<RingMemory> SocketTracker::open_ring(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(const auto d, Impl::machine().disk(disk));
    BLKFERRY_TRY_ASSIGN(auto o, d->open_ring());
    RingMemory ring;
    ring.poll = std::move(o.poll);
    ring.drain_poll = true;
    if (::fcntl(ring.poll.get(), F_SETFL, O_NONBLOCK) != 0)
        return fail_errno(errno, "cannot make the wake-up socket non-blocking");
    Mapping* const to[] = {&ring.ctl, &ring.cons, &ring.desc, &ring.data, &ring.snap};
    for (std::size_t i = 0; i < o.fds.size(); ++i) {
        if (o.bytes[i] == 0)
            continue;
        BLKFERRY_TRY_ASSIGN(*to[i], Mapping::map(o.fds[i], o.bytes[i], i == 1 ? PROT_READ | PROT_WRITE : PROT_READ, 0, "ring"));
    }
    return ring;
}
Result<std::uint64_t> SocketTracker::resync_begin(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(const auto d, Impl::machine().disk(disk));
    return d->resync_begin();
}
Result<void> SocketTracker::resync_clear(std::uint32_t disk, std::span<const Extent> ranges, std::optional<std::uint64_t> epoch) {
    BLKFERRY_TRY_ASSIGN(const auto d, Impl::machine().disk(disk));
    return d->resync_clear(ranges, epoch.value_or(0));
}
Result<std::uint64_t> SocketTracker::resync_end(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(const auto d, Impl::machine().disk(disk));
    return d->resync_end();
}
Result<void> SocketTracker::mark_dirty(std::uint32_t disk, std::span<const Extent> ranges) {
    BLKFERRY_TRY_ASSIGN(const auto d, Impl::machine().disk(disk));
    return d->mark_dirty(ranges);
}
Result<std::uint64_t> SocketTracker::cut(std::span<const std::uint64_t> freeze, std::uint32_t) {
    return Impl::machine().cut(!freeze.empty());
}
Result<void> SocketTracker::seq_floor(std::uint64_t seq) { return Impl::machine().seq_floor(seq); }
int SocketTracker::events_fd() const noexcept { return impl_->wake.get(); }
Result<void> SocketTracker::subscribe() {
    impl_->wake = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!impl_->wake)
        return fail_errno(errno, "cannot make an eventfd");
    Impl::machine().set_event_sink([impl = impl_.get()](const TrackerEvent& e) {
        impl->events.push_back(e);
        (void)::eventfd_write(impl->wake.get(), 1);
    });
    return {};
}
Result<std::vector<TrackerEvent>> SocketTracker::read_events() {
    eventfd_t n = 0;
    (void)::eventfd_read(impl_->wake.get(), &n);
    return std::exchange(impl_->events, {});
}

}  // namespace blkferry::capture

namespace blkferry::agent {

using sim::world;

/// On every protected disk lies a file system.
std::vector<std::uint64_t> mounted_on(const std::vector<std::uint64_t>& disks, const std::string&, const std::string&) {
    return disks;
}

namespace {
/// The module's part of a cut with frozen file systems: no write comes any more, those on their way end, the number is drawn, and after
/// a while all goes on, whether the caller still lives or not.
class Freeze : public std::enable_shared_from_this<Freeze> {
public:
    Freeze(std::uint64_t end_ns, FreezeCut::Done done) : life_(world->source->lives()), end_ns_(end_ns), done_(std::move(done)) {}
    void begin() {
        world->note("file systems freeze");
        world->source->freeze(true);
        wait();
    }

private:
    void wait() {
        if (life_ != world->source->lives())
            return;
        if (world->now >= end_ns_)
            return thaw(fail(Errc::timeout, "the file systems did not come to rest in time"));
        if (!world->source->quiet()) {
            world->in(sim::ms, [self = shared_from_this()] { self->wait(); });
            return;
        }
        auto seq = world->machine->cut(true);
        world->in(world->between(1, 50) * sim::ms, [self = shared_from_this(), seq = std::move(seq)]() mutable {
            if (self->life_ == world->source->lives())
                self->thaw(std::move(seq));
        });
    }
    void thaw(Result<std::uint64_t> seq) {
        if (seq) {
            sim::Frozen frozen{*seq, life_ - 1, {}};
            for (std::size_t i = 0; i < world->source->disks(); ++i)
                frozen.media.push_back(world->source->medium(i));
            world->frozen.push_back(std::move(frozen));
        }
        world->note("file systems thaw");
        world->source->freeze(false);
        done_(std::move(seq));
    }
    const std::size_t life_;
    const std::uint64_t end_ns_;
    FreezeCut::Done done_;
};
}  // namespace

void FreezeCut::start(std::vector<std::uint64_t>, std::uint32_t freeze_ms, Done done) {
    if (running_) {
        done(fail(Errc::busy, "another mark with frozen file systems is being taken"));
        return;
    }
    running_ = true;
    std::make_shared<Freeze>(world->now + freeze_ms * sim::ms,
                             [this, alive = std::weak_ptr<bool>(alive_), done = std::move(done)](Result<std::uint64_t> seq) mutable {
                                 if (alive.expired())
                                     return;
                                 running_ = false;
                                 done(std::move(seq));
                             })
        ->begin();
}

}  // namespace blkferry::agent
