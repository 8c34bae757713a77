// SPDX-License-Identifier: Apache-2.0
#include "capture/socket_tracker.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>

#include "capture/socket_protocol.hpp"

namespace blkferry::capture {

namespace {

Result<Fd> connect_to(const std::filesystem::path& path) {
    sockaddr_un addr{};
    addr.sun_family = AF_UNIX;
    if (path.native().size() >= sizeof(addr.sun_path))
        return fail(Errc::invalid, fmt::format("socket path {} is too long", path.string()));
    std::ranges::copy(path.native(), addr.sun_path);
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!fd)
        return fail_errno(errno, "cannot make a socket");
    if (::connect(fd.get(), static_cast<const sockaddr*>(static_cast<const void*>(&addr)), sizeof(addr)) != 0)
        return fail_errno(errno, fmt::format("cannot connect to the producer at {}", path.string()));
    ucred peer{};
    socklen_t len = sizeof(peer);
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return fail_errno(errno, "cannot tell who serves the capture socket");
    if (peer.uid != 0 && peer.uid != ::geteuid())
        return fail(Errc::denied, fmt::format("{} is served by user {}: only root and the own user are trusted",
                                              path.string(), peer.uid));
    return fd;
}

/// Maps a region of a ring. The memfd must not be able to shrink under the mapping.
Result<Mapping> map_region(const Fd& fd, std::uint64_t bytes, int prot, std::string_view what) {
    const int seals = ::fcntl(fd.get(), F_GET_SEALS);
    struct stat st{};
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(fd.get(), &st) != 0 || st.st_size < 0 ||
        static_cast<std::uint64_t>(st.st_size) < bytes || bytes == 0)
        return fail(Errc::corrupt, fmt::format("{}: the memory passed is too small or may shrink", what));
    return Mapping::map(fd.get(), bytes, prot, 0, what);
}

}  // namespace

struct SocketTracker::Impl {
    std::filesystem::path path;
    int timeout_ms = 0;
    Fd control;
    Fd events;
    std::uint32_t request = 0;

    Result<wire::Message> receive_within(int socket, int ms) const {
        pollfd p{socket, POLLIN, 0};
        int r = 0;
        do {
            r = ::poll(&p, 1, ms);
        } while (r < 0 && errno == EINTR);
        if (r < 0)
            return fail_errno(errno, "cannot wait for the producer");
        if (r == 0)
            return fail(Errc::timeout, fmt::format("the producer at {} did not answer in {} ms", path.string(), ms));
        return wire::receive(socket);
    }

    /// One question and its answer. A failure of the connection closes it: a late answer must not be taken for another.
    Result<wire::Message> call(const Fd& socket, wire::Op op, std::string_view what, std::vector<std::byte> body,
                               int extra_ms = 0) {
        if (!socket)
            return fail(Errc::closed, fmt::format("{}: the connection to the producer is gone", what));
        wire::Message question{.op = op, .request = ++request, .error = 0, .body = std::move(body), .fds = {}};
        auto sent = wire::send(socket.get(), question);
        if (!sent)
            return std::unexpected(std::move(sent).error().with(what));
        auto answer = receive_within(socket.get(), timeout_ms + extra_ms);
        if (!answer || answer->op != op || answer->request != question.request) {
            control.reset();
            if (!answer)
                return std::unexpected(std::move(answer).error().with(what));
            return fail(Errc::corrupt, fmt::format("{}: the producer answered another question", what));
        }
        if (answer->error != 0) {
            const std::string text(reinterpret_cast<const char*>(answer->body.data()), answer->body.size());
            return fail_errno(static_cast<int>(answer->error), fmt::format("{}: {}", what, text));
        }
        return answer;
    }

    Result<wire::Message> call_disk(wire::Op op, std::string_view verb, std::uint32_t disk) {
        std::vector<std::byte> body;
        ByteWriter(body).put(disk);
        return call(control, op, fmt::format("{} disk {}", verb, disk), std::move(body));
    }

    Result<std::uint64_t> call_disk_u64(wire::Op op, std::string_view verb, std::uint32_t disk) {
        BLKFERRY_TRY_ASSIGN(const wire::Message m, call_disk(op, verb, disk));
        return one_u64(m, verb);
    }

    static Result<std::uint64_t> one_u64(const wire::Message& m, std::string_view what) {
        ByteReader r(m.body);
        const auto v = r.get<std::uint64_t>();
        if (!r.done())
            return fail(Errc::corrupt, fmt::format("{}: malformed answer", what));
        return v;
    }

    Result<void> ranges(wire::Op op, std::string_view verb, std::uint32_t disk, std::uint64_t epoch,
                        std::span<const Extent> part) {
        std::vector<std::byte> body;
        ByteWriter w(body);
        w.put(disk);
        w.put(epoch);
        wire::put_ranges(w, part);
        BLKFERRY_TRY(call(control, op, fmt::format("{} disk {}", verb, disk), std::move(body)));
        return {};
    }
};

SocketTracker::SocketTracker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SocketTracker::~SocketTracker() = default;

Result<std::unique_ptr<SocketTracker>> SocketTracker::connect(const std::filesystem::path& socket,
                                                              std::uint32_t timeout_ms) {
    auto impl = std::make_unique<Impl>();
    impl->path = socket;
    impl->timeout_ms = static_cast<int>(std::min<std::uint32_t>(timeout_ms, 3'600'000));
    BLKFERRY_TRY_ASSIGN(impl->control, connect_to(socket));
    std::unique_ptr<SocketTracker> tracker(new SocketTracker(std::move(impl)));
    BLKFERRY_TRY_ASSIGN(const TrackerInfo info, tracker->info());
    if (info.abi != BLKFERRY_ABI_VERSION)
        return fail(Errc::unsupported, fmt::format("the producer speaks ABI {}, this program {}", info.abi,
                                                   BLKFERRY_ABI_VERSION));
    return tracker;
}

Result<TrackerInfo> SocketTracker::info() {
    BLKFERRY_TRY_ASSIGN(const wire::Message m, impl_->call(impl_->control, wire::Op::info, "ask the producer", {}));
    ByteReader r(m.body);
    TrackerInfo info;
    info.abi = r.get<std::uint32_t>();
    info.inflight = r.get<std::uint32_t>();
    info.load_id = wire::get_id(r);
    info.seq = r.get<std::uint64_t>();
    info.void_seq = r.get<std::uint64_t>();
    info.version = wire::get_string(r);
    if (!r.done())
        return fail(Errc::corrupt, "the producer's description of itself is malformed");
    return info;
}

Result<std::vector<DiskInfo>> SocketTracker::list() {
    BLKFERRY_TRY_ASSIGN(const wire::Message m, impl_->call(impl_->control, wire::Op::list, "list disks", {}));
    ByteReader r(m.body);
    const auto n = r.get<std::uint32_t>();
    if (n > BLKFERRY_DISKS_MAX)
        return fail(Errc::corrupt, fmt::format("the producer lists {} disks", n));
    std::vector<DiskInfo> out;
    for (std::uint32_t i = 0; i < n; ++i) {
        auto disk = disk_get(r.get<std::uint32_t>());
        if (disk)
            out.push_back(std::move(*disk));
        else if (disk.error().sys_errno != ENODEV)  // detached meanwhile
            return std::unexpected(std::move(disk).error());
    }
    if (!r.done())
        return fail(Errc::corrupt, "the producer's list of disks is malformed");
    return out;
}

Result<DiskInfo> SocketTracker::disk_get(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(const wire::Message m, impl_->call_disk(wire::Op::disk_get, "look at", disk));
    ByteReader r(m.body);
    return wire::get_disk(r);
}

Result<std::uint64_t> SocketTracker::find_device(const std::string& path) {
    std::vector<std::byte> body;
    ByteWriter w(body);
    wire::put_string(w, path);
    BLKFERRY_TRY_ASSIGN(const wire::Message m,
                        impl_->call(impl_->control, wire::Op::find, fmt::format("find {}", path), std::move(body)));
    return Impl::one_u64(m, "find a disk");
}

Result<DiskInfo> SocketTracker::attach(const AttachRequest& request) {
    std::vector<std::byte> body;
    ByteWriter w(body);
    w.put(request.dev);
    w.put(request.data_bytes.value_or(0));
    w.put(request.descs.value_or(0));
    w.put(request.inline_max.value_or(0));
    const std::string what = fmt::format("attach device {}:{}", request.dev >> 32, request.dev & 0xffffffffU);
    BLKFERRY_TRY_ASSIGN(const wire::Message m, impl_->call(impl_->control, wire::Op::attach, what, std::move(body)));
    ByteReader r(m.body);
    return wire::get_disk(r);
}

Result<std::uint64_t> SocketTracker::detach(std::uint32_t disk) {
    return impl_->call_disk_u64(wire::Op::detach, "detach", disk);
}

Result<RingMemory> SocketTracker::open_ring(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(wire::Message m, impl_->call_disk(wire::Op::open_ring, "open the ring of", disk));
    ByteReader r(m.body);
    std::array<std::uint64_t, wire::ring_regions> bytes{};
    for (std::uint64_t& b : bytes)
        b = r.get<std::uint64_t>();
    if (!r.done() || m.fds.size() != wire::ring_fds)
        return fail(Errc::corrupt, fmt::format("the producer passed {} descriptors for the ring of disk {}", m.fds.size(),
                                               disk));
    RingMemory ring;
    ring.poll = std::move(m.fds[0]);
    ring.drain_poll = true;
    if (::fcntl(ring.poll.get(), F_SETFL, O_NONBLOCK) != 0)
        return fail_errno(errno, "cannot make the wake-up pipe non-blocking");
    BLKFERRY_TRY_ASSIGN(ring.ctl, map_region(m.fds[1], bytes[0], PROT_READ, "control page"));
    BLKFERRY_TRY_ASSIGN(ring.cons, map_region(m.fds[2], bytes[1], PROT_READ | PROT_WRITE, "consumer page"));
    BLKFERRY_TRY_ASSIGN(ring.desc, map_region(m.fds[3], bytes[2], PROT_READ, "descriptor ring"));
    BLKFERRY_TRY_ASSIGN(ring.data, map_region(m.fds[4], bytes[3], PROT_READ, "data ring"));
    BLKFERRY_TRY_ASSIGN(ring.snap, map_region(m.fds[5], bytes[4], PROT_READ, "snapshot map"));
    return ring;
}

Result<std::uint64_t> SocketTracker::resync_begin(std::uint32_t disk) {
    return impl_->call_disk_u64(wire::Op::resync_begin, "begin the resync of", disk);
}

Result<void> SocketTracker::resync_clear(std::uint32_t disk, std::span<const Extent> ranges,
                                         std::optional<std::uint64_t> epoch) {
    while (!ranges.empty()) {
        const auto part = ranges.first(std::min<std::size_t>(ranges.size(), BLKFERRY_RANGES_MAX));
        BLKFERRY_TRY(impl_->ranges(wire::Op::resync_clear, "clear ranges of", disk, epoch.value_or(0), part));
        ranges = ranges.subspan(part.size());
    }
    return {};
}

Result<std::uint64_t> SocketTracker::resync_end(std::uint32_t disk) {
    return impl_->call_disk_u64(wire::Op::resync_end, "end the resync of", disk);
}

Result<void> SocketTracker::mark_dirty(std::uint32_t disk, std::span<const Extent> ranges) {
    do {
        const auto part = ranges.first(std::min<std::size_t>(ranges.size(), BLKFERRY_RANGES_MAX));
        BLKFERRY_TRY(impl_->ranges(wire::Op::mark_dirty, "mark ranges dirty of", disk, 0, part));
        ranges = ranges.subspan(part.size());
    } while (!ranges.empty());
    return {};
}

Result<std::uint64_t> SocketTracker::cut(std::span<const std::uint64_t> freeze, std::uint32_t freeze_ms) {
    if (freeze.size() > BLKFERRY_FREEZE_MAX || freeze_ms > BLKFERRY_FREEZE_MS_MAX)
        return fail(Errc::invalid, fmt::format("cut: {} devices to freeze for {} ms, {} for {} ms allowed", freeze.size(),
                                               freeze_ms, BLKFERRY_FREEZE_MAX, BLKFERRY_FREEZE_MS_MAX));
    std::vector<std::byte> body;
    ByteWriter w(body);
    w.put(freeze_ms);
    w.put(static_cast<std::uint32_t>(freeze.size()));
    for (const std::uint64_t dev : freeze)
        w.put(dev);
    BLKFERRY_TRY_ASSIGN(const wire::Message m, impl_->call(impl_->control, wire::Op::cut, "cut", std::move(body),
                                                           static_cast<int>(freeze_ms)));
    return Impl::one_u64(m, "cut");
}

Result<void> SocketTracker::seq_floor(std::uint64_t seq) {
    std::vector<std::byte> body;
    ByteWriter(body).put(seq);
    BLKFERRY_TRY(impl_->call(impl_->control, wire::Op::seq_floor, "raise the sequence number", std::move(body)));
    return {};
}

int SocketTracker::events_fd() const noexcept {
    return impl_->events.get();
}

Result<void> SocketTracker::subscribe() {
    if (impl_->events)
        return {};
    BLKFERRY_TRY_ASSIGN(Fd fd, connect_to(impl_->path));
    BLKFERRY_TRY(impl_->call(fd, wire::Op::subscribe, "subscribe to events", {}));
    if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0)
        return fail_errno(errno, "cannot make the event socket non-blocking");
    impl_->events = std::move(fd);
    return {};
}

Result<std::vector<TrackerEvent>> SocketTracker::read_events() {
    std::vector<TrackerEvent> out;
    while (impl_->events) {
        auto m = wire::receive(impl_->events.get());
        if (!m && m.error().code == Errc::again)
            return out;
        if (!m)
            return std::unexpected(std::move(m).error());
        ByteReader r(m->body);
        TrackerEvent e;
        e.disk = r.get<std::uint32_t>();
        e.kind = r.get<std::uint32_t>();
        BLKFERRY_TRY_ASSIGN(e.state, wire::disk_state(r.get<std::uint32_t>()));
        e.flags = r.get<std::uint32_t>();
        e.seq = r.get<std::uint64_t>();
        if (m->op != wire::Op::event || !r.done())
            return fail(Errc::corrupt, "the producer sent a malformed event");
        out.push_back(e);
    }
    return out;
}

}  // namespace blkferry::capture
