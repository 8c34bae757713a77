// SPDX-License-Identifier: Apache-2.0
#include "capture/netlink_tracker.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/socket.h>

#include <blkferry.h>

#include "capture/block_device.hpp"
#include "capture/module_channel.hpp"
#include "capture/netlink_reply.hpp"

namespace blkferry::capture {

using netlink::Attrs;

namespace {

struct NlSockFree {
    void operator()(nl_sock* s) const noexcept { nl_socket_free(s); }
};
struct NlMsgFree {
    void operator()(nl_msg* m) const noexcept { nlmsg_free(m); }
};
struct CFree {
    void operator()(unsigned char* p) const noexcept { std::free(p); }
};
using NlSock = std::unique_ptr<nl_sock, NlSockFree>;
using NlMsg = std::unique_ptr<nl_msg, NlMsgFree>;

std::unexpected<Error> fail_nl(int nl_error, std::string_view what) {
    return fail(Errc::io, fmt::format("{}: {}", what, nl_geterror(nl_error)));
}

Result<NlSock> open_socket() {
    NlSock s(nl_socket_alloc());
    if (!s)
        return fail_errno(ENOMEM, "cannot make a netlink socket");
    if (const int r = genl_connect(s.get()); r < 0)
        return fail_nl(r, "cannot connect to generic netlink");
    return s;
}

/// One received datagram; null data and ok: not from the kernel, look again.
struct Datagram {
    std::unique_ptr<unsigned char, CFree> data;
    int bytes = 0;
    int nl_error = 0;

    [[nodiscard]] std::span<std::byte> span() const noexcept {
        return {static_cast<std::byte*>(static_cast<void*>(data.get())), static_cast<std::size_t>(bytes)};
    }
};

Datagram receive(nl_sock* s) {
    Datagram d;
    sockaddr_nl from{};
    unsigned char* raw = nullptr;
    const int n = nl_recv(s, &from, &raw, nullptr);
    d.data.reset(raw);
    if (n < 0)
        d.nl_error = n;
    else if (from.nl_pid == 0)
        d.bytes = n;
    return d;
}

}  // namespace

struct NetlinkTracker::Impl {
    std::unique_ptr<ModuleChannel> channel;
    NlSock events;
    std::uint32_t sequence = 0;

    static Result<void> put(const NlMsg& m, blkferry_attr attr, const void* data, std::size_t bytes) {
        if (const int r = nla_put(m.get(), static_cast<int>(attr), static_cast<int>(bytes), data); r < 0)
            return fail_nl(r, "cannot build a netlink message");
        return {};
    }
    template <class T>
    static Result<void> put(const NlMsg& m, blkferry_attr attr, T value) {
        return put(m, attr, &value, sizeof(value));
    }

    Result<NlMsg> message(blkferry_cmd cmd, int flags) {
        NlMsg m(nlmsg_alloc_size(32U << 10));
        if (!m || genlmsg_put(m.get(), NL_AUTO_PORT, ++sequence, channel->family(), 0, flags | NLM_F_REQUEST,
                              static_cast<std::uint8_t>(cmd), BLKFERRY_GENL_VERSION) == nullptr)
            return fail_errno(ENOMEM, "cannot build a netlink message");
        return m;
    }
    Result<NlMsg> disk_message(blkferry_cmd cmd, std::uint32_t disk) {
        BLKFERRY_TRY_ASSIGN(NlMsg m, message(cmd, NLM_F_ACK));
        BLKFERRY_TRY(put(m, BLKFERRY_A_DISK, disk));
        return m;
    }

    /// Sends a request and gives every answer to `each` until the acknowledgement (or the end of the dump) came.
    template <class Each>
    Result<void> call(const NlMsg& m, std::string_view what, Each each, int fd = -1) {
        nlmsghdr* head = nlmsg_hdr(m.get());
        if (auto sent = channel->send({static_cast<std::byte*>(static_cast<void*>(head)), head->nlmsg_len}, fd); !sent)
            return std::unexpected(std::move(sent).error().with(what));
        Result<void> parsed;
        for (;;) {
            auto datagram = channel->receive();
            if (!datagram)
                return std::unexpected(std::move(datagram).error().with(what));
            netlink::Messages messages(*datagram);
            while (nlmsghdr* h = messages.next()) {
                if (h->nlmsg_seq != sequence)
                    continue;  // the answer to a request that timed out
                if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
                    const netlink::Outcome o = netlink::read_outcome(h);
                    if (o.err != 0)
                        return fail_errno(o.err, o.text.empty() ? std::string(what) : fmt::format("{}: {}", what, o.text));
                    return parsed;
                }
                Attrs attrs{};
                if (h->nlmsg_type != channel->family() || !netlink::parse_attrs(h, attrs))
                    parsed = fail(Errc::corrupt, fmt::format("{}: the module's answer is malformed", what));
                else if (parsed)
                    parsed = each(attrs);
            }
        }
    }
    Result<void> call(const NlMsg& m, std::string_view what) {
        return call(m, what, [](const Attrs&) { return Result<void>(); });
    }
    Result<std::uint64_t> call_u64(const NlMsg& m, std::string_view what, blkferry_attr attr) {
        std::uint64_t value = 0;
        bool got = false;
        BLKFERRY_TRY(call(m, what, [&](const Attrs& attrs) -> Result<void> {
            got = true;
            BLKFERRY_TRY_ASSIGN(value, netlink::parse_u64(attrs, attr, what));
            return {};
        }));
        if (!got)
            return fail(Errc::corrupt, fmt::format("{}: the module gave no number", what));
        return value;
    }
    Result<DiskInfo> call_disk(const NlMsg& m, std::string_view what, int fd = -1) {
        Result<DiskInfo> disk = fail(Errc::corrupt, fmt::format("{}: the module described no disk", what));
        BLKFERRY_TRY(call(m, what, [&](const Attrs& attrs) {
            disk = netlink::parse_disk(attrs);
            return Result<void>();
        }, fd));
        return disk;
    }
    Result<void> ranges(blkferry_cmd cmd, std::string_view what, std::uint32_t disk, std::span<const Extent> part,
                        std::optional<std::uint64_t> epoch) {
        std::vector<blkferry_range> raw;
        raw.reserve(part.size());
        for (const Extent& e : part)
            raw.push_back({e.sector, e.count});
        BLKFERRY_TRY_ASSIGN(NlMsg m, disk_message(cmd, disk));
        if (!raw.empty())
            BLKFERRY_TRY(put(m, BLKFERRY_A_RANGES, raw.data(), raw.size() * sizeof(blkferry_range)));
        if (epoch)
            BLKFERRY_TRY(put(m, BLKFERRY_A_SEQ, *epoch));
        return call(m, what);
    }
};

NetlinkTracker::NetlinkTracker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NetlinkTracker::~NetlinkTracker() = default;

Result<std::unique_ptr<NetlinkTracker>> NetlinkTracker::open(const std::string& opener) {
    auto impl = std::make_unique<Impl>();
    BLKFERRY_TRY_ASSIGN(impl->channel, opener.empty() ? ModuleChannel::direct() : ModuleChannel::through_opener(opener));
    std::unique_ptr<NetlinkTracker> tracker(new NetlinkTracker(std::move(impl)));
    BLKFERRY_TRY_ASSIGN(const TrackerInfo info, tracker->info());
    if (info.abi != BLKFERRY_ABI_VERSION)
        return fail(Errc::unsupported, fmt::format("the module speaks ABI {}, this program {}: install one release of both",
                                                   info.abi, BLKFERRY_ABI_VERSION));
    return tracker;
}

Result<TrackerInfo> NetlinkTracker::info() {
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->message(BLKFERRY_CMD_INFO, NLM_F_ACK));
    TrackerInfo info;
    bool got = false;
    BLKFERRY_TRY(impl_->call(m, "ask the module", [&](const Attrs& attrs) -> Result<void> {
        got = true;
        BLKFERRY_TRY_ASSIGN(info, netlink::parse_info(attrs));
        return {};
    }));
    if (!got)
        return fail(Errc::corrupt, "the module said nothing about itself");
    return info;
}

Result<std::vector<DiskInfo>> NetlinkTracker::list() {
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->message(BLKFERRY_CMD_DISK_GET, NLM_F_DUMP));
    std::vector<DiskInfo> out;
    BLKFERRY_TRY(impl_->call(m, "list disks", [&](const Attrs& attrs) -> Result<void> {
        BLKFERRY_TRY_ASSIGN(DiskInfo d, netlink::parse_disk(attrs));
        if (out.size() >= BLKFERRY_DISKS_MAX)
            return fail(Errc::corrupt, "the module lists too many disks");
        out.push_back(std::move(d));
        return {};
    }));
    return out;
}

Result<DiskInfo> NetlinkTracker::disk_get(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->disk_message(BLKFERRY_CMD_DISK_GET, disk));
    return impl_->call_disk(m, fmt::format("look at disk {}", disk));
}

Result<std::uint64_t> NetlinkTracker::find_device(const std::string& path) { return block_device_number(path); }

Result<DiskInfo> NetlinkTracker::attach(const AttachRequest& request) {
    const Fd device(::open(request.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!device)
        return fail_errno(errno, fmt::format("cannot open device {}", request.path));
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->message(BLKFERRY_CMD_ATTACH, NLM_F_ACK));
    BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_DEV, request.dev));
    BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_FD, static_cast<std::uint32_t>(device.get())));
    if (request.data_bytes)
        BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_DATA_BYTES, *request.data_bytes));
    if (request.descs)
        BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_DESCS, *request.descs));
    if (request.inline_max)
        BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_INLINE_MAX, *request.inline_max));
    return impl_->call_disk(m, fmt::format("attach device {}:{}", request.dev >> 32, request.dev & 0xffffffffU), device.get());
}

Result<std::uint64_t> NetlinkTracker::detach(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->disk_message(BLKFERRY_CMD_DETACH, disk));
    return impl_->call_u64(m, fmt::format("detach disk {}", disk), BLKFERRY_A_VOID_SEQ);
}

Result<RingMemory> NetlinkTracker::open_ring(std::uint32_t disk) {
    const std::string path = fmt::format("/dev/blkferry/{}", disk);
    BLKFERRY_TRY_ASSIGN(const DiskInfo info, disk_get(disk));
    RingMemory ring;
    BLKFERRY_TRY_ASSIGN(ring.poll, impl_->channel->open_ring(disk));
    const int fd = ring.poll.get();
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    BLKFERRY_TRY_ASSIGN(ring.ctl, Mapping::map(fd, page, PROT_READ, BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_CTL), path));
    BLKFERRY_TRY_ASSIGN(ring.cons, Mapping::map(fd, page, PROT_READ | PROT_WRITE,
                                                BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_CONS), path));
    const auto* ctl = static_cast<const blkferry_ctl*>(static_cast<const void*>(ring.ctl.data()));
    const std::uint64_t map_bytes = ctl->map_bytes;
    if (info.descs == 0 || info.descs > BLKFERRY_DESCS_MAX || info.data_bytes == 0 ||
        info.data_bytes > BLKFERRY_DATA_BYTES_MAX || map_bytes == 0 || map_bytes > (1ULL << 40))
        return fail(Errc::corrupt, fmt::format("{}: {} descriptors, {} bytes of data, {} of map", path, info.descs,
                                               info.data_bytes, map_bytes));
    BLKFERRY_TRY_ASSIGN(ring.desc, Mapping::map(fd, info.descs * sizeof(blkferry_desc), PROT_READ,
                                                BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_DESC), path));
    BLKFERRY_TRY_ASSIGN(ring.data, Mapping::map(fd, info.data_bytes, PROT_READ,
                                                BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_DATA), path));
    BLKFERRY_TRY_ASSIGN(ring.snap, Mapping::map(fd, map_bytes, PROT_READ, BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_SNAP), path));
    return ring;
}

Result<std::uint64_t> NetlinkTracker::resync_begin(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->disk_message(BLKFERRY_CMD_RESYNC_BEGIN, disk));
    return impl_->call_u64(m, fmt::format("begin the resync of disk {}", disk), BLKFERRY_A_SEQ);
}

Result<void> NetlinkTracker::resync_clear(std::uint32_t disk, std::span<const Extent> ranges,
                                          std::optional<std::uint64_t> epoch) {
    const std::string what = fmt::format("clear ranges of disk {}", disk);
    while (!ranges.empty()) {
        const auto part = ranges.first(std::min<std::size_t>(ranges.size(), BLKFERRY_RANGES_MAX));
        BLKFERRY_TRY(impl_->ranges(BLKFERRY_CMD_RESYNC_CLEAR, what, disk, part, epoch));
        ranges = ranges.subspan(part.size());
    }
    return {};
}

Result<std::uint64_t> NetlinkTracker::resync_end(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->disk_message(BLKFERRY_CMD_RESYNC_END, disk));
    return impl_->call_u64(m, fmt::format("end the resync of disk {}", disk), BLKFERRY_A_SEQ);
}

Result<void> NetlinkTracker::mark_dirty(std::uint32_t disk, std::span<const Extent> ranges) {
    const std::string what = fmt::format("mark ranges dirty of disk {}", disk);
    do {
        const auto part = ranges.first(std::min<std::size_t>(ranges.size(), BLKFERRY_RANGES_MAX));
        BLKFERRY_TRY(impl_->ranges(BLKFERRY_CMD_MARK_DIRTY, what, disk, part, std::nullopt));
        ranges = ranges.subspan(part.size());
    } while (!ranges.empty());
    return {};
}

Result<std::uint64_t> NetlinkTracker::cut(std::span<const std::uint64_t> freeze, std::uint32_t freeze_ms) {
    if (freeze.size() > BLKFERRY_FREEZE_MAX)
        return fail(Errc::invalid, fmt::format("cut: {} devices to freeze, {} allowed", freeze.size(), BLKFERRY_FREEZE_MAX));
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->message(BLKFERRY_CMD_CUT, NLM_F_ACK));
    if (!freeze.empty()) {
        BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_FREEZE_DEVS, freeze.data(), freeze.size_bytes()));
        BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_FREEZE_MS, freeze_ms));
    }
    return impl_->call_u64(m, "cut", BLKFERRY_A_SEQ);
}

Result<void> NetlinkTracker::seq_floor(std::uint64_t seq) {
    BLKFERRY_TRY_ASSIGN(NlMsg m, impl_->message(BLKFERRY_CMD_SEQ_FLOOR, NLM_F_ACK));
    BLKFERRY_TRY(Impl::put(m, BLKFERRY_A_SEQ, seq));
    return impl_->call(m, "raise the sequence number");
}

int NetlinkTracker::events_fd() const noexcept {
    return impl_->events ? nl_socket_get_fd(impl_->events.get()) : -1;
}

Result<void> NetlinkTracker::subscribe() {
    if (impl_->events)
        return {};
    BLKFERRY_TRY_ASSIGN(NlSock s, open_socket());
    const int group = genl_ctrl_resolve_grp(s.get(), BLKFERRY_GENL_NAME, BLKFERRY_GENL_MCGRP);
    if (group < 0)
        return fail_nl(group, "the module has no multicast group for events");
    if (const int r = nl_socket_add_membership(s.get(), group); r < 0)
        return fail_nl(r, "cannot subscribe to the module's events");
    if (const int r = nl_socket_set_nonblocking(s.get()); r < 0)
        return fail_nl(r, "cannot make the event socket non-blocking");
    impl_->events = std::move(s);
    return {};
}

Result<std::vector<TrackerEvent>> NetlinkTracker::read_events() {
    std::vector<TrackerEvent> out;
    while (impl_->events) {
        Datagram d = receive(impl_->events.get());
        if (d.nl_error == -NLE_AGAIN)
            break;
        if (d.nl_error == -NLE_NOMEM) {  // the socket's buffer overflowed
            out.push_back({.lost = true});
            continue;
        }
        if (d.nl_error != 0)
            return fail_nl(d.nl_error, "cannot read the module's events");
        netlink::Messages messages(d.span());
        while (nlmsghdr* h = messages.next()) {
            Attrs attrs{};
            if (h->nlmsg_type != impl_->channel->family() || !netlink::parse_attrs(h, attrs))
                continue;
            BLKFERRY_TRY_ASSIGN(const TrackerEvent e, netlink::parse_event(attrs));
            out.push_back(e);
        }
    }
    return out;
}

}  // namespace blkferry::capture
