// SPDX-License-Identifier: Apache-2.0
#include "control/server.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/connection.hpp"

namespace blkferry::control {

namespace {

constexpr std::uint64_t sweep_interval_ns = 1'000'000'000;
constexpr int backlog = 16;

/// An exclusive lock beside the socket tells a stale socket from a live one.
Result<Fd> take_lock(const std::filesystem::path& path) {
    std::error_code ignored;  // the folder is often there already; if it cannot be made, open(2) tells why
    std::filesystem::create_directories(path.parent_path(), ignored);
    BLKFERRY_TRY_ASSIGN(Fd lock, open_file(path.string() + ".lock", O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return fail(Errc::exists, fmt::format("{}: another daemon answers there already", path.string()));
        return fail_errno(errno, path.string());
    }
    return lock;
}

Result<Fd> bind_socket(const std::filesystem::path& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = path.string();
    if (name.empty() || name.size() >= sizeof address.sun_path)
        return fail(Errc::invalid, fmt::format("{}: a socket's path has at most {} bytes", name, sizeof address.sun_path - 1));
    std::memcpy(address.sun_path, name.data(), name.size());
    struct stat st {};
    if (::lstat(name.c_str(), &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return fail(Errc::exists, fmt::format("{}: is there and is no socket", name));
        ::unlink(name.c_str());
    }
    Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    // Nobody can connect before listen(2), so the mode is set in time whatever the umask.
    if (!listener || ::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::chmod(name.c_str(), 0600) != 0 || ::listen(listener.get(), backlog) != 0)
        return fail_errno(errno, name);
    return listener;
}

/// The client's user; nobody's if the kernel does not tell.
uid_t user_of(int socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.uid : static_cast<uid_t>(-1);
}

}  // namespace

/// One request on its way, shared by its Reply and nobody else; the connection may go away before.
struct Reply::Slot {
    std::weak_ptr<Connection> connection;
    bool ended = false;
    std::uint32_t uid = ~0U;
};

struct ControlServer::State : std::enable_shared_from_this<State> {
    State(loop::Loop& l, ServerOptions o) : loop(l), options(o) {}

    void accept_all();
    void welcome(Fd socket);
    void handle(Connection& connection, const std::string& line);

    loop::Loop& loop;
    ServerOptions options;
    std::filesystem::path path;
    Fd lock;
    Fd listener;
    loop::Watch accept_watch;
    loop::Timer sweep;
    std::map<std::string, Handler, std::less<>> handlers;
    std::vector<std::shared_ptr<Connection>> connections;
};

void ControlServer::State::accept_all() {
    for (int i = 0; listener && i < backlog; ++i) {
        Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!socket) {
            // EAGAIN: all taken. Out of descriptors or memory the watch would spin: the sweep looks again.
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                accept_watch.set_events(0);
            return;
        }
        welcome(std::move(socket));
    }
}

void ControlServer::State::welcome(Fd socket) {
    const uid_t uid = user_of(socket.get());
    const bool allowed = uid == 0 || uid == ::geteuid();
    const bool room = connections.size() < options.connections_max;
    Connection::Hooks hooks;
    hooks.on_line = [this](Connection& c, const std::string& line) { handle(c, line); };
    hooks.on_close = [this](Connection& c) {
        std::erase_if(connections, [&](const auto& held) { return held.get() == &c; });
    };
    const auto connection = std::make_shared<Connection>(std::move(socket), std::move(hooks), options);
    connection->uid = uid;
    if (allowed && room) {
        connections.push_back(connection);
        connection->start(loop);
        return;
    }
    connection->send(to_line(error_message(
        allowed ? Error{Errc::busy, 0, fmt::format("{} clients are connected already", connections.size())}
                : Error{Errc::denied, 0, "only root and the daemon's own user may use this socket"})));
    connection->close();
}

void ControlServer::State::handle(Connection& connection, const std::string& line) {
    const auto self = shared_from_this();  // a handler may destroy the server
    const auto slot = std::make_shared<Reply::Slot>();
    slot->connection = connection.weak_from_this();
    slot->uid = connection.uid;
    connection.request_began();
    Reply reply(slot);
    const auto request = parse_line(line);
    if (!request) {
        reply.fail(request.error());
        return;
    }
    const auto command = need_string(*request, "cmd");
    if (!command) {
        reply.fail(command.error());
        return;
    }
    const auto it = handlers.find(*command);
    if (it == handlers.end()) {
        reply.fail(Error{Errc::unsupported, 0, fmt::format("unknown command '{}'", command->substr(0, 64))});
        return;
    }
    it->second(*request, std::move(reply));
}

ControlServer::ControlServer(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

Result<std::unique_ptr<ControlServer>> ControlServer::create(loop::Loop& loop, std::filesystem::path path,
                                                             const ServerOptions& options) {
    auto state = std::make_shared<State>(loop, options);
    BLKFERRY_TRY_ASSIGN(state->lock, take_lock(path));
    BLKFERRY_TRY_ASSIGN(state->listener, bind_socket(path));
    state->path = std::move(path);
    State* raw = state.get();
    state->accept_watch = loop.watch(state->listener.get(), POLLIN, [raw](std::uint32_t) { raw->accept_all(); });
    state->sweep = loop.every(sweep_interval_ns, [raw] {
        const std::uint64_t now = loop::Loop::now_ns();
        if (raw->listener)
            raw->accept_watch.set_events(POLLIN);
        for (const auto& connection : std::vector(raw->connections))
            connection->sweep(now);
    });
    return std::unique_ptr<ControlServer>(new ControlServer(std::move(state)));
}

ControlServer::~ControlServer() {
    State& s = *state_;
    s.accept_watch.reset();
    s.sweep.reset();
    for (const auto& connection : std::vector(s.connections))
        connection->close();
    if (s.listener) {
        s.listener.reset();
        ::unlink(s.path.c_str());
    }
}

void ControlServer::on(std::string command, Handler handler) {
    const bool fresh = state_->handlers.try_emplace(std::move(command), std::move(handler)).second;
    BLKFERRY_ASSERT(fresh);
}

void ControlServer::shut_down() {
    State& s = *state_;
    s.accept_watch.reset();
    if (s.listener) {
        s.listener.reset();
        ::unlink(s.path.c_str());
    }
    for (const auto& connection : std::vector(s.connections))
        connection->finish();
}

std::size_t ControlServer::connections() const noexcept { return state_->connections.size(); }

Reply::Reply(std::shared_ptr<Slot> slot) noexcept : slot_(std::move(slot)) {}
Reply::Reply(Reply&&) noexcept = default;
Reply& Reply::operator=(Reply&& other) noexcept {
    if (this != &other) {
        if (slot_ && !slot_->ended)
            fail(Error{Errc::io, 0, "the request was dropped without an answer"});
        slot_ = std::move(other.slot_);
    }
    return *this;
}
Reply::~Reply() {
    if (slot_ && !slot_->ended)
        fail(Error{Errc::io, 0, "the request was dropped without an answer"});
}

void Reply::line(const Json& message) {
    BLKFERRY_ASSERT(slot_ && !slot_->ended);
    if (const auto connection = slot_->connection.lock())
        connection->send(to_line(message));
}

void Reply::done(const Json& message) {
    BLKFERRY_ASSERT(slot_ && !slot_->ended && message.is_object());
    Json last = message;
    last["ok"] = true;
    last["end"] = true;
    std::string line = to_line(last);
    if (line.size() > answer_bytes_max) {
        fail(Error{Errc::no_space, 0, fmt::format("the answer has {} bytes, more than a line may have", line.size())});
        return;
    }
    slot_->ended = true;
    if (const auto connection = slot_->connection.lock()) {
        connection->send(std::move(line));
        connection->request_ended();
    }
}

void Reply::done() { done(Json::object()); }

void Reply::fail(const Error& error) {
    BLKFERRY_ASSERT(slot_ && !slot_->ended);
    slot_->ended = true;
    if (const auto connection = slot_->connection.lock()) {
        connection->send(to_line(error_message(error)));
        connection->request_ended();
    }
}

std::uint32_t Reply::uid() const noexcept { return slot_ ? slot_->uid : ~0U; }
bool Reply::ended() const noexcept { return !slot_ || slot_->ended; }
bool Reply::abandoned() const noexcept {
    if (!slot_)
        return true;
    const auto connection = slot_->connection.lock();
    return !connection || connection->closed();
}

}  // namespace blkferry::control
