// SPDX-License-Identifier: Apache-2.0
#include "opener/service.hpp"

#include <array>
#include <cerrno>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <thread>

#include <fmt/format.h>

#include "capture/netlink_reply.hpp"

namespace blkferry::opener {

using service::quote;

namespace {
constexpr unsigned refusals_per_second_max = 10;
}  // namespace

/// One peer. The way to the module is opened with the first request, and again after it failed.
struct Service::Connection {
    Fd socket;
    ucred peer{};
    std::unique_ptr<capture::ModuleChannel> module;
    bool over = false;
};

Service::Service(uid_t allowed, OpenModule open_module, service::Log& log)
    : allowed_(allowed), open_module_(std::move(open_module)), log_(log) {}

Error Service::serve(const Fd& listener) {
    for (;;) {
        Fd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!peer && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (!peer)
            return fail_errno(errno, "cannot accept connections").error();
        if (connections_.fetch_add(1) >= connections_max) {
            --connections_;
            warn(fmt::format("event=refused reason=\"{} connections are open\"", connections_max));
            continue;
        }
        std::thread([this, p = std::move(peer)]() mutable {
            converse(std::move(p));
            --connections_;
        }).detach();
    }
}

void Service::converse(Fd peer) {
    Connection c{.socket = std::move(peer), .module = nullptr};
    socklen_t bytes = sizeof(c.peer);
    if (::getsockopt(c.socket.get(), SOL_SOCKET, SO_PEERCRED, &c.peer, &bytes) != 0 || c.peer.uid != allowed_) {
        warn(fmt::format("event=refused uid={} pid={} reason=\"another user\"", c.peer.uid, c.peer.pid));
        return;
    }
    log_.debug("event=connected uid={} pid={}", c.peer.uid, c.peer.pid);
    alignas(8) std::array<std::byte, sizeof(RequestHead) + message_bytes_max> buffer;
    while (!c.over) {
        auto received = receive(c.socket.get(), buffer);
        if (!received && received.error().sys_errno == ECONNRESET)
            break;  // killed before it read its last answer
        if (!received) {
            warn(fmt::format("event=refused uid={} pid={} reason={}", c.peer.uid, c.peer.pid, quote(received.error())));
            return;
        }
        if (received->bytes.empty())
            break;
        answer(c, *received);
    }
    log_.debug("event=disconnected uid={} pid={}", c.peer.uid, c.peer.pid);
}

void Service::answer(Connection& c, Received& received) {
    const auto request = parse_request(received.bytes, static_cast<bool>(received.fd));
    if (!request) {
        c.over = true;  // whoever speaks like that is not the agent
        return refuse(c, "request", request.error());
    }
    switch (request->op) {
        case Op::open_ring: return open_ring(c, request->disk);
        case Op::module: return ask_module(c, request->message, std::move(received.fd));
    }
}

/// Lines about refusals, but not a log full of them.
void Service::warn(const std::string& line) {
    const std::lock_guard lock(warning_);
    const auto now = std::chrono::steady_clock::now();
    if (warned_ == 0 || now - warned_since_ >= std::chrono::seconds(1)) {
        if (warned_ > refusals_per_second_max)
            log_.warn("event=refused count={} text=\"lines left out\"", warned_ - refusals_per_second_max);
        warned_since_ = now;
        warned_ = 0;
    }
    if (++warned_ <= refusals_per_second_max)
        log_.warn("{}", line);
}

void Service::refuse(Connection& c, std::string_view what, const Error& why) {
    // What the kernel says is an answer like others; what is refused here should not have been asked.
    if (why.sys_errno == 0)
        warn(fmt::format("event=refused uid={} pid={} what={} reason={}", c.peer.uid, c.peer.pid, quote(what), quote(why)));
    else
        log_.debug("event=failed pid={} what={} errno={} reason={}", c.peer.pid, quote(what), why.sys_errno, quote(why));
    const std::string_view text = std::string_view(why.text).substr(0, text_bytes_max);
    if (!send_reply(c.socket.get(), Kind::refused, why.sys_errno, std::as_bytes(std::span(text)), -1))
        c.over = true;
}

void Service::open_ring(Connection& c, std::uint32_t disk) {
    auto ring = [&]() -> Result<Fd> {
        if (!c.module) {
            BLKFERRY_TRY_ASSIGN(c.module, open_module_());
        }
        return c.module->open_ring(disk);
    }();
    if (!ring)
        return refuse(c, fmt::format("open ring {}", disk), ring.error());
    log_.debug("event=opened pid={} ring={}", c.peer.pid, disk);
    if (!send_reply(c.socket.get(), Kind::ring, 0, {}, ring->get()))
        c.over = true;
}

namespace {

/// The descriptor that comes with ATTACH: open on the block device that the request names, for reading.
Result<void> check_device(const Fd& fd, std::uint64_t dev) {
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0)
        return fail_errno(errno, "cannot look at the descriptor");
    if (!S_ISBLK(st.st_mode) || (std::uint64_t{major(st.st_rdev)} << 32 | minor(st.st_rdev)) != dev)
        return fail(Errc::invalid, "the descriptor is not one of the block device");
    return {};
}

}  // namespace

void Service::ask_module(Connection& c, std::span<std::byte> message, Fd fd) {
    auto request = ModuleRequest::check(message, static_cast<bool>(fd));
    Result<void> done{};
    if (!request)
        done = std::unexpected(request.error());
    else if (fd)
        done = check_device(fd, request->dev);
    if (!done)
        return refuse(c, "module", done.error());
    if (!c.module) {
        auto module = open_module_();
        if (!module)
            return refuse(c, "module", module.error());
        c.module = std::move(*module);
    }
    request->address(c.module->family(), fd.get());
    log_.debug("event=request pid={} cmd={} bytes={}", c.peer.pid, request->cmd, message.size());
    done = c.module->send(message, fd.get());
    if (done)
        done = relay(c, *request);
    if (!done) {
        c.module = nullptr;  // a late answer must not be taken for one to the next request
        refuse(c, fmt::format("command {}", request->cmd), done.error());
    }
}

/// All that the module answers, until its acknowledgement or the end of the list.
Result<void> Service::relay(Connection& c, const ModuleRequest& request) {
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const std::span<std::byte> datagram, c.module->receive());
        bool last = false;
        capture::netlink::Messages messages(datagram);
        while (const nlmsghdr* h = messages.next())
            last = last || (h->nlmsg_seq == request.sequence && (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE));
        if (!send_reply(c.socket.get(), Kind::datagram, 0, datagram, -1)) {
            c.over = true;
            return {};
        }
        if (last)
            return {};
    }
}

}  // namespace blkferry::opener
