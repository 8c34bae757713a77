// SPDX-License-Identifier: Apache-2.0
#include "capture/socket_protocol.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <sys/uio.h>

#include <fmt/format.h>

namespace blkferry::capture::wire {

namespace {
constexpr std::uint32_t magic = 0x50544642;  // "BFTP"
constexpr std::size_t control_bytes = CMSG_SPACE(ring_fds * sizeof(int));
}  // namespace

Result<void> send(int socket, const Message& message, std::span<const int> fds) {
    BLKFERRY_ASSERT(fds.size() <= ring_fds && header_bytes + message.body.size() <= message_bytes_max);
    std::array<std::byte, header_bytes> head{};
    store_le<std::uint32_t>(head.data(), magic);
    store_le<std::uint16_t>(head.data() + 4, static_cast<std::uint16_t>(message.op));
    store_le<std::uint32_t>(head.data() + 8, message.request);
    store_le<std::uint32_t>(head.data() + 12, message.error);
    std::array<iovec, 2> iov{};
    iov[0] = {head.data(), head.size()};
    iov[1] = {const_cast<std::byte*>(message.body.data()), message.body.size()};
    msghdr msg{};
    msg.msg_iov = iov.data();
    msg.msg_iovlen = iov.size();
    alignas(cmsghdr) std::array<char, control_bytes> control{};
    if (!fds.empty()) {
        msg.msg_control = control.data();
        msg.msg_controllen = CMSG_SPACE(fds.size_bytes());
        cmsghdr* c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fds.size_bytes());
        std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
    }
    ssize_t n = 0;
    do {
        n = ::sendmsg(socket, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail_errno(errno, "cannot send to the capture socket's peer");
    return {};
}

Result<Message> receive(int socket) {
    std::vector<std::byte> raw(message_bytes_max);
    iovec iov{raw.data(), raw.size()};
    alignas(cmsghdr) std::array<char, control_bytes> control{};
    msghdr msg{};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.data();
    msg.msg_controllen = control.size();
    ssize_t n = 0;
    do {
        n = ::recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail_errno(errno, "cannot receive from the capture socket's peer");
    Message m;
    for (cmsghdr* c = CMSG_FIRSTHDR(&msg); c != nullptr; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            m.fds.emplace_back(fd);
        }
    }
    if (n == 0)
        return fail(Errc::closed, "the capture socket's peer closed the connection");
    if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || static_cast<std::size_t>(n) < header_bytes ||
        load_le<std::uint32_t>(raw.data()) != magic || load_le<std::uint16_t>(raw.data() + 6) != 0)
        return fail(Errc::corrupt, "the capture socket's peer sent a malformed message");
    m.op = static_cast<Op>(load_le<std::uint16_t>(raw.data() + 4));
    m.request = load_le<std::uint32_t>(raw.data() + 8);
    m.error = load_le<std::uint32_t>(raw.data() + 12);
    m.body.assign(raw.begin() + header_bytes, raw.begin() + n);
    return m;
}

void put_string(ByteWriter& w, std::string_view text) {
    text = text.substr(0, string_bytes_max);
    w.put(static_cast<std::uint16_t>(text.size()));
    w.bytes(std::as_bytes(std::span(text)));
}

std::string get_string(ByteReader& r) {
    const auto n = r.get<std::uint16_t>();
    const auto s = r.bytes(n <= string_bytes_max ? n : r.rest().size() + 1);  // longer: the reader is bad
    return {reinterpret_cast<const char*>(s.data()), s.size()};
}

void put_id(ByteWriter& w, const Uuid& id) {
    w.bytes(std::as_bytes(std::span(id.bytes)));
}

Uuid get_id(ByteReader& r) {
    Uuid id;
    const auto s = r.bytes(id.bytes.size());
    for (std::size_t i = 0; i < s.size(); ++i)
        id.bytes[i] = std::to_integer<std::uint8_t>(s[i]);
    return id;
}

Result<DiskState> disk_state(std::uint32_t value) {
    if (value > BLKFERRY_RING)
        return fail(Errc::corrupt, fmt::format("unknown disk state {}", value));
    return static_cast<DiskState>(value);
}

void put_disk(ByteWriter& w, const DiskInfo& d) {
    w.put(d.disk);
    w.put<std::uint32_t>(static_cast<std::uint32_t>(d.state));
    w.put(d.dev);
    w.put(d.data_bytes);
    w.put(d.descs);
    w.put(d.inline_max);
    w.put(d.flags);
    w.put(d.block_shift);
    w.put(d.sectors);
    put_id(w, d.attach_id);
    for (const std::uint64_t v : {d.gap_seq, d.close_seq, d.epoch_seq, d.active_blocks, d.snap_blocks, d.memory})
        w.put(v);
    BLKFERRY_ASSERT(d.counters.size() <= 64);
    w.put(static_cast<std::uint32_t>(d.counters.size()));
    for (const std::uint64_t v : d.counters)
        w.put(v);
    put_string(w, d.name);
    put_string(w, d.device_path);
}

Result<DiskInfo> get_disk(ByteReader& r) {
    DiskInfo d;
    d.disk = r.get<std::uint32_t>();
    BLKFERRY_TRY_ASSIGN(d.state, disk_state(r.get<std::uint32_t>()));
    d.dev = r.get<std::uint64_t>();
    d.data_bytes = r.get<std::uint64_t>();
    d.descs = r.get<std::uint32_t>();
    d.inline_max = r.get<std::uint32_t>();
    d.flags = r.get<std::uint32_t>();
    d.block_shift = r.get<std::uint32_t>();
    d.sectors = r.get<std::uint64_t>();
    d.attach_id = get_id(r);
    for (std::uint64_t* v : {&d.gap_seq, &d.close_seq, &d.epoch_seq, &d.active_blocks, &d.snap_blocks, &d.memory})
        *v = r.get<std::uint64_t>();
    const auto counters = r.get<std::uint32_t>();
    if (counters > 64)
        return fail(Errc::corrupt, fmt::format("disk {} with {} counters", d.disk, counters));
    for (std::uint32_t i = 0; i < counters; ++i)
        d.counters.push_back(r.get<std::uint64_t>());
    d.name = get_string(r);
    d.device_path = get_string(r);
    if (!r.ok() || d.disk >= BLKFERRY_DISKS_MAX)
        return fail(Errc::corrupt, "malformed description of a disk");
    return d;
}

void put_ranges(ByteWriter& w, std::span<const Extent> ranges) {
    w.put(static_cast<std::uint32_t>(ranges.size()));
    for (const Extent& e : ranges) {
        w.put(e.sector);
        w.put(e.count);
    }
}

Result<std::vector<Extent>> get_ranges(ByteReader& r) {
    const auto n = r.get<std::uint32_t>();
    if (n > BLKFERRY_RANGES_MAX)
        return fail(Errc::invalid, fmt::format("{} ranges, {} allowed", n, BLKFERRY_RANGES_MAX));
    std::vector<Extent> out(n);
    for (Extent& e : out) {
        e.sector = r.get<std::uint64_t>();
        e.count = r.get<std::uint64_t>();
    }
    if (!r.ok())
        return fail(Errc::invalid, fmt::format("{} ranges announced, fewer came", n));
    return out;
}

}  // namespace blkferry::capture::wire
