// SPDX-License-Identifier: Apache-2.0
#include "server/server.hpp"

#include <algorithm>
#include <sys/statvfs.h>

#include <fmt/format.h>

#include "server/control.hpp"

namespace blkferry::server {

namespace {
constexpr std::size_t read_buffer_bytes = 256U << 10;
/// Lines about refused connections in one second; more are counted.
constexpr unsigned refusals_per_second_max = 10;
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t sweep_ns = 10 * second_ns;
/// The reserve is never more than this part of the file system, so that a small one is of use.
constexpr std::uint64_t disk_reserve_part = 10;
/// Below this part of its inodes free, it counts as full.
constexpr std::uint64_t inode_reserve_part = 50;
}  // namespace

Result<std::unique_ptr<Server>> Server::create(loop::Loop& loop, const Clock& clock, Log& log, ServerOptions options) {
    if (!options.pki.empty())
        BLKFERRY_TRY(Enrolment::prepare(options.pki));
    BLKFERRY_TRY_ASSIGN(auto tls, tls::TlsContext::make_server(options.tls));
    BLKFERRY_TRY_ASSIGN(auto store, store::Store::open(options.store_dir, clock, options.store));
    std::unique_ptr<Server> server(
        new Server(loop, clock, log, std::move(options), std::move(tls), std::shared_ptr<store::Store>(std::move(store))));
    BLKFERRY_TRY(server->begin());
    return server;
}

Server::Server(loop::Loop& loop, const Clock& clock, Log& log, ServerOptions options, tls::TlsContext tls,
               std::shared_ptr<store::Store> store)
    : loop_(loop),
      log_(log),
      options_(std::move(options)),
      tls_(std::move(tls)),
      store_(std::move(store)),
      readers_(1),
      lookups_(1),
      workers_(options_.workers),
      around_{.loop = loop, .clock = clock, .log = log, .workers = workers_, .store = store_, .options = options_},
      admission_(options_.admission),
      buffer_(read_buffer_bytes) {}

Server::~Server() {
    *alive_ = false;
}

Result<void> Server::begin() {
    look_at_disk();
    BLKFERRY_TRY_ASSIGN(const auto names, store_->sources());
    for (const std::string& name : names)
        replicas_.emplace(name, std::make_shared<Replica>(around_, name)).first->second->open();
    read_retired(names);
    BLKFERRY_TRY(begin_enrolment());
    BLKFERRY_TRY(look_at_own_certificate());
    if (!options_.control_socket.empty()) {
        BLKFERRY_TRY_ASSIGN(control_, Control::create(*this));
    }
    BLKFERRY_TRY_ASSIGN(listener_, Listener::create(
                                       loop_, options_.listen, options_.bind_wait_ns, [this](Accepted a) { accepted(std::move(a)); },
                                       [this](const Error& e) {
                                           ++counters_.accept_pauses;
                                           refused("any", e);
                                       }));
    tick_ = loop_.every(options_.heartbeat_ns, [this] { tick(); });
    for (const std::uint16_t port : listener_->ports())
        log_.info("server={} event=listening port={} store={} engine={} sources={}", tls_.identity().name, port,
                  quote(options_.store_dir.string()), store_->engine().name(), names.size());
    certificate_tick();
    return {};
}

// ---- connections ------------------------------------------------------------------------------------------------------

void Server::accepted(Accepted connection) {
    ++counters_.accepted;
    auto admitted = admission_.enter(connection.address);
    if (!admitted && admitted.error().code == Errc::no_space && drop_oldest_stranger())
        admitted = admission_.enter(connection.address);
    if (const auto& r = admitted; !r) {
        ++counters_.refused_admission;
        refused(connection.peer, r.error());
        return;
    }
    auto stream = tls_.wrap(std::move(connection.socket), connection.peer, enrolment_ != nullptr && enrolment_->open_now());
    if (!stream) {
        admission_.leave(connection.address, false);
        refused(connection.peer, stream.error());
        return;
    }
    const std::uint64_t id = next_session_++;
    sessions_[id].session = std::make_unique<Session>(loop_, *this, std::move(*stream), std::move(connection.address),
                                                      std::move(connection.peer), id,
                                                      SessionTimes{.handshake_ns = options_.handshake_ns});
}

/// In a flood from many addresses all room for handshakes is taken by connections that will never end theirs. The one that had
/// the longest time gives way, so that an honest one, which needs a moment only, still gets in.
bool Server::drop_oldest_stranger() {
    const auto it = std::ranges::find_if(sessions_, [](const auto& entry) { return entry.second.replica == nullptr; });
    if (it == sessions_.end())
        return false;
    it->second.session->drop({Errc::busy, 0, "given up in its handshake: too many connections are in theirs"});
    return true;
}

/// One line for a refused connection, but not a log full of them.
void Server::refused(const std::string& peer, const Error& why) {
    const std::uint64_t now = loop::Loop::now_ns();
    if (now - refusal_window_ns_ >= second_ns) {
        if (refusals_dropped_ > 0)
            log_.warn("server={} event=refused count={} text=\"lines left out\"", tls_.identity().name, refusals_dropped_);
        refusal_window_ns_ = now;
        refusals_logged_ = 0;
        refusals_dropped_ = 0;
    }
    if (++refusals_logged_ > refusals_per_second_max) {
        ++refusals_dropped_;
        return;
    }
    log_.warn("server={} event=refused address={} code={} reason={}", tls_.identity().name, peer, to_string(why.code),
              quote(why));
}

Result<void> Server::on_frame(Session& session, const proto::FrameReader::View& view) {
    const auto it = sessions_.find(session.id());
    BLKFERRY_ASSERT(it != sessions_.end());
    if (view.header.type == proto::FrameType::cert_request)
        return certificate_request(it->second, view);
    if (view.header.type == proto::FrameType::retire)
        return retire(it->second);
    if (it->second.replica != nullptr)
        return it->second.replica->receive(view);
    return first_frame(it->second, view);
}

Result<void> Server::first_frame(Live& live, const proto::FrameReader::View& view) {
    Session& session = *live.session;
    if (session.enrolling())
        return fail(Errc::denied, fmt::format("{} refused: enrolment takes CERT_REQUEST only", to_string(view.header.type)));
    // The handshake may have been under way while the certificate was revoked.
    if (tls_.is_revoked(session.stream()))
        return fail(Errc::denied, "HELLO refused: the certificate is revoked");
    if (view.header.type != proto::FrameType::hello)
        return fail(Errc::invalid, fmt::format("the first frame is {}, not HELLO", to_string(view.header.type)));
    BLKFERRY_TRY_ASSIGN(const auto body, decode_body(view.header, view.wire, around_.decompressor, around_.scratch));
    BLKFERRY_TRY_ASSIGN(const auto hello, proto::decode_hello(body));
    if (hello.protocol != proto::protocol_version)
        return fail(Errc::unsupported, fmt::format("HELLO refused: protocol version {}, the server speaks {}",
                                                   hello.protocol, proto::protocol_version));
    if (hello.source != session.peer_name())
        return fail(Errc::denied, fmt::format("HELLO refused: source '{}', but the certificate is of '{}'", hello.source,
                                              session.peer_name()));
    if (stopping_)
        return fail(Errc::closed, "the server shuts down");
    auto it = replicas_.find(hello.source);
    if (it == replicas_.end()) {
        if (replicas_.size() >= options_.sources_max)
            return fail(Errc::no_space, fmt::format("HELLO refused: the server holds {} sources, no more are allowed",
                                                    replicas_.size()));
        it = replicas_.emplace(hello.source, std::make_shared<Replica>(around_, hello.source)).first;
        it->second->open();
    }
    BLKFERRY_TRY(it->second->attach(session, hello));
    live.replica = it->second;
    forget_retired(hello.source);
    admission_.established(session.address());
    return {};
}

void Server::on_drained(Session& session) {
    const auto it = sessions_.find(session.id());
    if (it != sessions_.end() && it->second.replica != nullptr)
        it->second.replica->drained();
}

void Server::on_ended(Session& session, const Error& why) {
    const auto it = sessions_.find(session.id());
    BLKFERRY_ASSERT(it != sessions_.end());
    Live live = std::move(it->second);
    sessions_.erase(it);
    admission_.leave(session.address(), live.replica != nullptr);
    if (live.replica != nullptr) {
        live.replica->detach(session);
        if (why.code == Errc::closed)
            log_.info("source={} event=disconnected address={} reason={}", live.replica->name(), session.peer(), quote(why));
        else
            log_.warn("source={} event=disconnected address={} code={} reason={}", live.replica->name(), session.peer(),
                      to_string(why.code), quote(why));
    } else if (!live.answered) {
        ++counters_.refused_tls;
        refused(session.peer(), why);
    }
    if (why.code != Errc::closed && live.replica != nullptr)
        ++counters_.refused_frames;
    if (session.stream().flooded())
        ++counters_.refused_floods;
    // The session is on the call stack: it goes in the next round.
    loop_.post([dead = std::move(live.session)]() mutable { dead.reset(); });
    maybe_stopped();
}

// ---- time -------------------------------------------------------------------------------------------------------------

void Server::tick() {
    look_at_disk();
    for (const auto& [name, replica] : replicas_)
        replica->tick();
    certificate_tick();
    const std::uint64_t now = loop::Loop::now_ns();
    if (enrolment_ != nullptr && now - enrolment_swept_ns_ >= sweep_ns) {
        enrolment_swept_ns_ = now;
        enrolment_pool_->submit([e = enrolment_.get()] { e->sweep(); });
    }
}

void Server::look_at_disk() {
    struct statvfs fs {};
    if (::statvfs(options_.store_dir.c_str(), &fs) != 0)
        return;
    free_bytes_ = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize;
    const std::uint64_t whole = static_cast<std::uint64_t>(fs.f_blocks) * fs.f_frsize;
    const std::uint64_t reserve = std::min(options_.disk_reserve_bytes, whole / disk_reserve_part);
    // Inodes run out too, if chunks are many and small. File systems that make them as needed say that they have none.
    const bool few_files = fs.f_files > 0 && fs.f_favail < fs.f_files / inode_reserve_part;
    const bool low = few_files || free_bytes_ < (around_.disk_low ? reserve + reserve / 8 : reserve);
    if (low != around_.disk_low)
        log_.warn("server={} event={} free_bytes={} reserve_bytes={}", tls_.identity().name,
                  low ? "disk-low" : "disk-well", free_bytes_, reserve);
    around_.disk_low = low;
}

Result<void> Server::reload_tls() {
    BLKFERRY_TRY(tls_.reload());
    own_.warned_ns = 0;
    end_revoked();
    return look_at_own_certificate();
}

Result<void> Server::reconfigure(const ServerOptions& fresh) {
    BLKFERRY_TRY_ASSIGN(auto tls, tls::TlsContext::make_server(fresh.tls));
    tls_ = std::move(tls);
    options_ = fresh;
    admission_.set_limits(options_.admission);
    own_.warned_ns = 0;
    end_revoked();
    look_at_disk();
    return look_at_own_certificate();
}

void Server::stop(std::move_only_function<void()> done) {
    stopping_ = true;
    stopped_ = std::move(done);
    listener_.reset();
    tick_.reset();
    std::vector<Session*> strangers;
    for (auto& [id, live] : sessions_)
        if (live.replica == nullptr)
            strangers.push_back(live.session.get());
    for (Session* s : strangers)  // ends at once in a TLS handshake, and so leaves the table
        s->refuse({Errc::closed, 0, "the server shuts down"});
    replicas_open_ = replicas_.size();
    for (auto& [name, replica] : replicas_)
        replica->shut([this, alive = alive_] {
            if (!*alive)
                return;
            --replicas_open_;
            maybe_stopped();
        });
    loop_.post([this, alive = alive_] {
        if (*alive)
            maybe_stopped();
    });
}

void Server::maybe_stopped() {
    if (!stopping_ || !stopped_ || replicas_open_ > 0 || !sessions_.empty())
        return;
    control_.reset();
    loop_.post(std::exchange(stopped_, {}));
}

}  // namespace blkferry::server
