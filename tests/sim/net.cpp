// SPDX-License-Identifier: Apache-2.0
// Stands for TCP and TLS: a connection is two ends in memory with latency, bandwidth and faults. Bytes go plain: what TLS
// does to them is covered by its own tests and costs most of a seed's time.
#include <algorithm>
#include <cstring>
#include <sys/eventfd.h>

#include "agent/connector.hpp"
#include "server/listener.hpp"
#include "tls/context.hpp"
#include "world.hpp"

namespace blkferry::sim {

namespace {
constexpr std::size_t window_bytes = 256U << 10;
}

bool End::readable(std::uint64_t now) const {
    const auto p = peer.lock();
    if (p && !p->wrapped && !p->closed)
        return false;
    return reset || (arriving.empty() ? eof || (!greeted && p && p->wrapped) : arriving.front().ready_ns <= now);
}

bool End::writable() const {
    const auto p = peer.lock();
    return reset || closed || !p || p->closed || p->held < window_bytes;
}

}  // namespace blkferry::sim

namespace blkferry::tls {

using sim::End;
using sim::world;

struct TlsStream::State {
    Fd socket;
    std::shared_ptr<End> end;
    Role role = Role::server;
    std::string name;
    std::string fingerprint = std::string(64, '0');
    std::uint64_t in = 0;
    std::uint64_t out = 0;
};

TlsStream::TlsStream(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TlsStream::TlsStream(TlsStream&&) noexcept = default;
TlsStream& TlsStream::operator=(TlsStream&&) noexcept = default;
TlsStream::~TlsStream() {
    if (!state_)
        return;
    End& end = *state_->end;
    end.closed = true;
    if (const auto peer = end.peer.lock()) {
        peer->reset = peer->reset || !end.arriving.empty();
        peer->eof = peer->eof || !end.silent;
    }
    world->ends.erase(state_->socket.get());
}
int TlsStream::fd() const noexcept { return state_->socket.get(); }

Result<Step> TlsStream::handshake() {
    const auto peer = state_->end->peer.lock();
    if (state_->end->reset || !peer || peer->closed)
        return Step{Status::closed, 0};
    state_->end->greeted = peer->wrapped;
    return Step{peer->wrapped ? Status::done : Status::want_read, 0};
}

Result<Step> TlsStream::read(std::span<std::byte> out) {
    End& end = *state_->end;
    if (end.reset)
        return fail_errno(ECONNRESET, "the connection was reset");
    std::size_t n = 0;
    if (out.size() > 1 && world->one_in(world->chances.short_stream))
        out = out.first(world->between(1, std::min<std::size_t>(out.size(), 100)));
    while (n < out.size() && !end.arriving.empty() && end.arriving.front().ready_ns <= world->now) {
        auto& bytes = end.arriving.front().bytes;
        const std::size_t take = std::min(out.size() - n, bytes.size());
        std::memcpy(out.data() + n, bytes.data(), take);
        bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
        if (bytes.empty())
            end.arriving.pop_front();
        n += take;
    }
    end.held -= n;
    state_->in += n;
    if (n > 0)
        return Step{Status::done, n};
    return Step{end.arriving.empty() && end.eof ? Status::closed : Status::want_read, 0};
}

Result<Step> TlsStream::write(std::span<const std::byte> data) {
    End& end = *state_->end;
    const auto peer = end.peer.lock();
    if (end.reset || !peer || peer->closed)
        return fail_errno(ECONNRESET, "the connection was reset");
    if (!end.writable())
        return Step{Status::want_write, 0};
    std::size_t n = std::min(data.size(), sim::window_bytes - peer->held);
    if (n > 1 && world->one_in(world->chances.short_stream))
        n = world->between(1, n);
    state_->out += n;
    if (end.silent)
        return Step{Status::done, n};
    const std::uint64_t begin = std::max(peer->last_ready_ns, world->now + world->weather.latency_ns);
    peer->last_ready_ns = begin + n * sim::ms / world->weather.bytes_per_ms + world->below(50) * sim::us;
    peer->arriving.push_back({peer->last_ready_ns, {data.begin(), data.begin() + static_cast<std::ptrdiff_t>(n)}});
    peer->held += n;
    world->at(peer->last_ready_ns, [] {});
    return Step{Status::done, n};
}
bool TlsStream::pending() const noexcept { return false; }
Result<Step> TlsStream::shutdown() {
    if (const auto peer = state_->end->peer.lock(); peer && !state_->end->silent)
        peer->eof = true;
    return Step{Status::done, 0};
}
const std::string& TlsStream::peer_name() const noexcept { return state_->name; }
Role TlsStream::peer_role() const noexcept { return state_->role; }
const std::string& TlsStream::peer_fingerprint() const noexcept { return state_->fingerprint; }
const std::string& TlsStream::peer_serial() const noexcept { return state_->fingerprint; }
bool TlsStream::enrolling() const noexcept { return false; }
bool TlsStream::flooded() const noexcept { return false; }
std::uint64_t TlsStream::records_read() const noexcept { return 0; }  // a turn ends by bytes
std::uint64_t TlsStream::bytes_read() const noexcept { return state_->in; }
std::uint64_t TlsStream::bytes_written() const noexcept { return state_->out; }
std::uint64_t TlsStream::wire_bytes_read() const noexcept { return state_->in; }
std::uint64_t TlsStream::wire_bytes_written() const noexcept { return state_->out; }

struct TlsContext::State {
    Identity own;
};
TlsContext::TlsContext(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TlsContext::TlsContext(TlsContext&&) noexcept = default;
TlsContext& TlsContext::operator=(TlsContext&&) noexcept = default;
TlsContext::~TlsContext() = default;
Result<TlsContext> TlsContext::make_server(Files) {
    return TlsContext(std::make_unique<State>(Identity{Role::server, "replica"}));
}
Result<TlsContext> TlsContext::make_client(Files, std::string) {
    return TlsContext(std::make_unique<State>(Identity{Role::source, "src"}));
}
Result<void> TlsContext::reload() { return {}; }
const Identity& TlsContext::identity() const noexcept { return state_->own; }
std::int64_t TlsContext::not_before() const noexcept { return 0; }
bool TlsContext::is_revoked(const TlsStream&) const { return false; }
std::int64_t TlsContext::not_after() const noexcept { return 4'000'000'000; }
Result<TlsStream> TlsContext::wrap(Fd socket, std::string, bool) const {
    auto state = std::make_unique<TlsStream::State>();
    state->end = world->ends.at(socket.get());
    state->end->wrapped = true;
    state->socket = std::move(socket);
    const bool server = state_->own.role == Role::server;
    state->role = server ? Role::source : Role::server;
    state->name = server ? "src" : "replica";
    return TlsStream(std::move(state));
}

}  // namespace blkferry::tls

namespace blkferry::agent {

Connector::Connector(loop::Loop& loop, WorkerPool&, std::vector<config::Endpoint>, std::optional<net::Proxy>, Done done)
    : loop_(loop), done_(std::move(done)) {
    using sim::world;
    timeout_ = loop_.after(world->weather.latency_ns + world->between(50, 500) * sim::us, [this] {
        if (world->weather.refuses || world->listening.expired()) {
            std::exchange(done_, nullptr)(fail_errno(ECONNREFUSED, "cannot connect to the server"));
            return;
        }
        auto ours = std::make_shared<sim::End>();
        auto theirs = std::make_shared<sim::End>();
        ours->peer = theirs;
        theirs->peer = ours;
        Fd a(::eventfd(0, EFD_CLOEXEC));
        Fd b(::eventfd(0, EFD_CLOEXEC));
        BLKFERRY_ASSERT(a && b);
        world->ends[a.get()] = ours;
        world->ends[b.get()] = theirs;
        world->in(world->weather.latency_ns, [fd = std::make_shared<Fd>(std::move(b)), theirs] {
            if (!world->listening.expired()) {
                world->accept(std::move(*fd));
                return;
            }
            theirs->closed = true;
            if (const auto peer = theirs->peer.lock())
                peer->reset = true;
            world->ends.erase(fd->get());
        });
        std::exchange(done_, nullptr)(Connected{std::move(a), "sim:1500"});
    });
}
Connector::~Connector() = default;

}  // namespace blkferry::agent

namespace blkferry::server {

Result<std::unique_ptr<Listener>> Listener::create(loop::Loop& loop, const std::vector<std::string>&, std::uint64_t,
                                                   Callback accepted, Trouble trouble) {
    std::unique_ptr<Listener> l(new Listener(loop));
    auto token = std::make_shared<int>(0);
    sim::world->listening = token;
    l->accepted_ = [token, accepted = std::move(accepted)](Accepted a) mutable { accepted(std::move(a)); };
    l->trouble_ = std::move(trouble);
    l->ports_.push_back(1500);
    sim::world->accept = [raw = l.get()](Fd fd) { raw->accepted_({std::move(fd), "192.0.2.1", "192.0.2.1:1"}); };
    return l;
}

}  // namespace blkferry::server
