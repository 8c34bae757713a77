// SPDX-License-Identifier: Apache-2.0
#include "server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

namespace blkferry::producer {

namespace {

using capture::wire::Message;
using capture::wire::Op;

/// The answer to one question: a body, and for open_ring descriptors (not owned).
struct Answer {
    std::vector<std::byte> body;
    Fd poll;
    std::vector<int> fds;
};

template <class T>
Answer answer_of(T value) {
    Answer a;
    ByteWriter(a.body).put(value);
    return a;
}

Answer answer_disk(const capture::DiskInfo& disk) {
    Answer a;
    ByteWriter w(a.body);
    capture::wire::put_disk(w, disk);
    return a;
}

Answer answer_info(const capture::TrackerInfo& info) {
    Answer a;
    ByteWriter w(a.body);
    w.put(info.abi);
    w.put(info.inflight);
    capture::wire::put_id(w, info.load_id);
    w.put(info.seq);
    w.put(info.void_seq);
    capture::wire::put_string(w, info.version);
    return a;
}

Result<Answer> attach(Machine& machine, ByteReader& r) {
    capture::AttachRequest request;
    request.dev = r.get<std::uint64_t>();
    if (const auto v = r.get<std::uint64_t>(); v != 0)
        request.data_bytes = v;
    if (const auto v = r.get<std::uint32_t>(); v != 0)
        request.descs = v;
    if (const auto v = r.get<std::uint32_t>(); v != 0)
        request.inline_max = v;
    if (!r.done())
        return refuse(EINVAL, "malformed question");
    BLKFERRY_TRY_ASSIGN(const capture::DiskInfo disk, machine.attach(request));
    return answer_disk(disk);
}

Result<Answer> cut(Machine& machine, ByteReader& r) {
    (void)r.get<std::uint32_t>();
    const auto n = r.get<std::uint32_t>();
    if (n > BLKFERRY_FREEZE_MAX)
        return refuse(EINVAL, "too many devices to freeze");
    for (std::uint32_t i = 0; i < n; ++i)
        (void)r.get<std::uint64_t>();
    if (!r.done())
        return refuse(EINVAL, "malformed question");
    if (n != 0)
        std::this_thread::sleep_for(machine.freeze_time);
    BLKFERRY_TRY_ASSIGN(const std::uint64_t seq, machine.cut(n != 0));
    return answer_of(seq);
}

Result<Answer> on_ranges(Disk& disk, Op op, ByteReader& r) {
    const auto epoch = r.get<std::uint64_t>();
    BLKFERRY_TRY_ASSIGN(const std::vector<Extent> ranges, capture::wire::get_ranges(r));
    if (!r.done() || (op == Op::resync_clear && ranges.empty()))
        return refuse(EINVAL, "malformed question");
    BLKFERRY_TRY(op == Op::resync_clear ? disk.resync_clear(ranges, epoch) : disk.mark_dirty(ranges));
    return Answer{};
}

Result<Answer> open_ring(Disk& disk) {
    BLKFERRY_TRY_ASSIGN(Disk::Opened o, disk.open_ring());
    Answer a;
    ByteWriter w(a.body);
    for (const std::uint64_t b : o.bytes)
        w.put(b);
    a.fds.push_back(o.poll.get());
    a.fds.insert(a.fds.end(), o.fds.begin(), o.fds.end());
    a.poll = std::move(o.poll);
    return a;
}

/// Questions about one disk: its id comes first.
Result<Answer> on_disk(Machine& machine, Op op, ByteReader& r) {
    const auto id = r.get<std::uint32_t>();
    if (op == Op::detach) {
        BLKFERRY_TRY_ASSIGN(const std::uint64_t void_seq, machine.detach(id));
        return answer_of(void_seq);
    }
    BLKFERRY_TRY_ASSIGN(const std::shared_ptr<Disk> disk, machine.disk(id));
    if (op == Op::resync_clear || op == Op::mark_dirty)
        return on_ranges(*disk, op, r);
    if (!r.done())
        return refuse(EINVAL, "malformed question");
    if (op == Op::disk_get)
        return answer_disk(disk->info());
    if (op == Op::open_ring)
        return open_ring(*disk);
    BLKFERRY_TRY_ASSIGN(const std::uint64_t seq, op == Op::resync_begin ? disk->resync_begin() : disk->resync_end());
    return answer_of(seq);
}

Result<Answer> answer(Machine& machine, const Message& q) {
    ByteReader r(q.body);
    switch (q.op) {
        case Op::info: return answer_info(machine.info());
        case Op::subscribe: return Answer{};
        case Op::attach: return attach(machine, r);
        case Op::cut: return cut(machine, r);
        case Op::list: {
            Answer a;
            ByteWriter w(a.body);
            const auto disks = machine.disks();
            w.put(static_cast<std::uint32_t>(disks.size()));
            for (const std::uint32_t id : disks)
                w.put(id);
            return a;
        }
        case Op::find: {
            BLKFERRY_TRY_ASSIGN(const std::uint64_t dev, machine.find(capture::wire::get_string(r)));
            return answer_of(dev);
        }
        case Op::seq_floor: {
            const auto seq = r.get<std::uint64_t>();
            if (!r.done())
                return refuse(EINVAL, "malformed question");
            BLKFERRY_TRY(machine.seq_floor(seq));
            return Answer{};
        }
        case Op::detach:
        case Op::disk_get:
        case Op::open_ring:
        case Op::resync_begin:
        case Op::resync_clear:
        case Op::resync_end:
        case Op::mark_dirty: return on_disk(machine, q.op, r);
        case Op::event: break;
    }
    return refuse(EOPNOTSUPP, "unknown operation");
}

}  // namespace

Result<std::unique_ptr<Server>> Server::start(Machine& machine, const std::filesystem::path& socket) {
    std::unique_ptr<Server> s(new Server(machine));
    s->path_ = socket;
    sockaddr_un addr{};
    addr.sun_family = AF_UNIX;
    if (socket.native().size() >= sizeof(addr.sun_path))
        return fail(Errc::invalid, fmt::format("socket path {} is too long", socket.string()));
    std::ranges::copy(socket.native(), addr.sun_path);
    s->listener_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    s->stop_ = Fd(::eventfd(0, EFD_CLOEXEC));
    ::unlink(socket.c_str());
    const mode_t mask = ::umask(0177);
    const int r = ::bind(s->listener_.get(), static_cast<const sockaddr*>(static_cast<const void*>(&addr)), sizeof(addr));
    const int err = errno;
    ::umask(mask);
    if (!s->stop_ || r != 0)
        return fail_errno(err, fmt::format("cannot serve {}", socket.string()));
    if (::listen(s->listener_.get(), 16) != 0)
        return fail_errno(errno, fmt::format("cannot serve {}", socket.string()));
    machine.set_event_sink([p = s.get()](const capture::TrackerEvent& e) { p->broadcast(e); });
    s->thread_ = std::thread([p = s.get()] { p->run(); });
    return s;
}

Server::~Server() {
    machine_.set_event_sink(nullptr);
    if (thread_.joinable()) {
        const std::uint64_t one = 1;
        BLKFERRY_ASSERT(::write(stop_.get(), &one, sizeof(one)) == sizeof(one));
        thread_.join();
    }
    ::unlink(path_.c_str());
}

void Server::broadcast(const capture::TrackerEvent& event) {
    Message m;
    m.op = Op::event;
    ByteWriter w(m.body);
    w.put(event.disk);
    w.put(event.kind);
    w.put(static_cast<std::uint32_t>(event.state));
    w.put(event.flags);
    w.put(event.seq);
    const std::scoped_lock held(lock_);
    for (const auto& [fd, c] : connections_)
        if (c.subscriber)
            (void)capture::wire::send(fd, m);  // a subscriber that does not read loses events, as with netlink
}

void Server::serve(const Fd& connection, Message question, bool& subscriber) {
    auto a = answer(machine_, question);
    Message reply;
    reply.op = question.op;
    reply.request = question.request;
    std::vector<int> fds;
    if (a) {
        reply.body = std::move(a->body);
        fds = a->fds;
        subscriber = subscriber || question.op == Op::subscribe;
    } else {
        reply.error = static_cast<std::uint32_t>(a.error().sys_errno == 0 ? EINVAL : a.error().sys_errno);
        const auto text = std::as_bytes(std::span(a.error().text));
        reply.body.assign(text.begin(), text.end());
    }
    (void)capture::wire::send(connection.get(), reply, fds);
}

void Server::run() {
    for (;;) {
        std::vector<pollfd> polls = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
        for (const auto& [fd, c] : connections_)
            polls.push_back({fd, POLLIN, 0});
        if (::poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR)
            return;
        if (polls[0].revents != 0)
            return;
        if (polls[1].revents != 0) {
            Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            const std::scoped_lock held(lock_);
            if (const int key = fd.get(); fd)
                connections_.emplace(key, Connection{std::move(fd), false});
        }
        for (std::size_t i = 2; i < polls.size(); ++i) {
            if (polls[i].revents == 0)
                continue;
            auto question = capture::wire::receive(polls[i].fd);
            if (!question && question.error().code == Errc::again)
                continue;
            if (!question) {
                const std::scoped_lock held(lock_);
                connections_.erase(polls[i].fd);
                continue;
            }
            bool subscriber = false;
            serve(connections_.at(polls[i].fd).fd, std::move(*question), subscriber);
            const std::scoped_lock held(lock_);
            connections_.at(polls[i].fd).subscriber |= subscriber;
        }
    }
}

}  // namespace blkferry::producer
