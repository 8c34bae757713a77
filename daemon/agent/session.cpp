// SPDX-License-Identifier: Apache-2.0
#include "agent/session.hpp"

#include <fmt/format.h>

#include "base/uuid.hpp"

namespace blkferry::agent {

namespace {
constexpr std::uint64_t tick_ns = 250'000'000;
constexpr std::uint64_t ms = 1'000'000;
constexpr std::uint64_t stable_ns = 1'000'000'000;  ///< a session that lived so long starts the waiting times anew

std::uint64_t random_number() {
    std::uint64_t v = 0;
    for (const std::uint8_t b : Uuid::random().bytes)
        v = v << 8 | b;
    return v;
}
}  // namespace

Session::Session(loop::Loop& loop, WorkerPool& pool, Shipper& shipper, loop::TokenBucket& bucket, SessionHost& host)
    : loop_(loop), pool_(pool), shipper_(shipper), bucket_(bucket), host_(host) {
    shipper_.set_kick([this] {
        if (link_)
            link_->kick();
    });
    retry_ = loop_.after(0, [this] { connect(); });
    retry_.stop();
    ticker_ = loop_.every(tick_ns, [this] { tick(); });
}

Session::~Session() {
    shipper_.set_kick({});
}

void Session::configure(std::vector<config::Endpoint> servers, tls::TlsContext* context) {
    servers_ = std::move(servers);
    context_ = context;
}

void Session::configure_proxy(std::string url, std::filesystem::path password_file) {
    proxy_ = std::move(url);
    proxy_password_file_ = std::move(password_file);
}

void Session::ask_certificate(const proto::CertRequest& request) {
    if (phase_ == Phase::established)
        send(proto::FrameType::cert_request, request);
}

void Session::retire() {
    if (phase_ != Phase::established)
        return;
    std::vector<std::byte> out;
    proto::encode_frame(proto::FrameType::retire, 0, 0, {}, nullptr, out);
    shipper_.send_control(std::move(out));
}

std::uint64_t Session::wire_bytes() const noexcept {
    return wire_bytes_before_ + (link_ ? link_->stream().wire_bytes_written() : 0);
}

void Session::start() {
    if (phase_ == Phase::idle)
        wait(0);
}

void Session::stop() {
    const bool was = phase_ != Phase::idle && phase_ != Phase::waiting;
    retry_.stop();
    connector_.reset();
    if (link_) {
        wire_bytes_before_ += link_->stream().wire_bytes_written();
        loop_.post([link = std::shared_ptr<Link>(std::move(link_))] {});
    }
    phase_ = Phase::idle;
    if (was)
        host_.on_lost({Errc::closed, 0, "the session was ended"});
}

void Session::restart(std::string_view why) {
    if (phase_ == Phase::idle)
        return;
    if (phase_ == Phase::waiting) {
        wait(0);
        return;
    }
    backoff_.reset();
    lost({Errc::again, 0, std::string(why)});
    wait(0);
}

void Session::kick() {
    if (link_)
        link_->kick();
}

void Session::wait(std::uint64_t delay_ms) {
    phase_ = Phase::waiting;
    retry_.restart(delay_ms * ms);
}

void Session::connect() {
    phase_ = Phase::connecting;
    phase_since_ns_ = loop::Loop::now_ns();
    std::optional<net::Proxy> proxy;
    if (!proxy_.empty()) {
        auto made = net::make_proxy(proxy_, proxy_password_file_);
        if (!made) {
            lost(made.error());
            return;
        }
        proxy = std::move(*made);
    }
    connector_ = std::make_unique<Connector>(loop_, pool_, servers_, std::move(proxy), [this](Result<Connector::Connected> r) {
        connected(std::move(r));
    });
}

void Session::connected(Result<Connector::Connected> result) {
    // The connector calls from its own members: let it end before it goes.
    loop_.post([c = std::shared_ptr<Connector>(std::move(connector_))] {});
    if (!result) {
        lost(result.error());
        return;
    }
    peer_ = result->peer;
    auto stream = context_->wrap(std::move(result->socket), result->peer);
    if (!stream) {
        lost(stream.error());
        return;
    }
    phase_ = Phase::tls;
    phase_since_ns_ = loop::Loop::now_ns();
    link_ = std::make_unique<Link>(loop_, std::move(*stream), bucket_, shipper_,
                                   Link::Handlers{[this] { ready(); }, [this](const auto& view) { frame(view); },
                                                  [this](const Error& why) { lost(why); }});
}

template <class M>
void Session::send(proto::FrameType type, const M& message) {
    std::vector<std::byte> body;
    encode(message, body);
    std::vector<std::byte> out;
    proto::encode_frame(type, 0, 0, body, nullptr, out);
    shipper_.send_control(std::move(out));
}

void Session::ready() {
    server_name_ = link_->stream().peer_name();
    phase_ = Phase::greeting;
    phase_since_ns_ = loop::Loop::now_ns();
    const auto hello = host_.make_hello();
    if (!hello) {
        link_->close(hello.error());
        return;
    }
    send(proto::FrameType::hello, *hello);
}

void Session::frame(const proto::FrameReader::View& view) {
    if (auto r = handle(view); !r && link_)
        link_->close(std::move(r).error());
}

Result<void> Session::handle(const proto::FrameReader::View& view) {
    using proto::FrameType;
    BLKFERRY_TRY_ASSIGN(const auto body, decode_body(view.header, view.wire, decompressor_, scratch_));
    const FrameType type = view.header.type;
    if (type == FrameType::error) {
        BLKFERRY_TRY_ASSIGN(const auto e, proto::decode_peer_error(body));
        return fail(Errc::closed, fmt::format("the server refused the session: {} ({})", e.text, e.code));
    }
    if (phase_ == Phase::greeting) {
        if (type != FrameType::welcome)
            return fail(Errc::invalid, fmt::format("the server sent {} before WELCOME", to_string(type)));
        BLKFERRY_TRY_ASSIGN(const auto w, proto::decode_welcome(body));
        BLKFERRY_TRY(host_.on_welcome(w));
        phase_ = Phase::established;
        tried_ = true;
        ++sessions_;
        cause_.clear();
        phase_since_ns_ = loop::Loop::now_ns();
        return {};
    }
    switch (type) {
        case FrameType::heartbeat: {
            BLKFERRY_TRY_ASSIGN(const auto h, proto::decode_heartbeat(body));
            host_.on_heartbeat(h);
            return {};
        }
        case FrameType::ack:
        case FrameType::epoch_result:
        case FrameType::point_result:
        case FrameType::hash_reply:
        case FrameType::cert_reply:
        case FrameType::retire: return host_.on_frame(type, body);
        case FrameType::hello:
        case FrameType::welcome:
        case FrameType::batch_begin:
        case FrameType::extents:
        case FrameType::epoch_begin:
        case FrameType::epoch_end:
        case FrameType::point_request:
        case FrameType::batch_end:
        case FrameType::hash_ask:
        case FrameType::error:
        case FrameType::cert_request: break;
    }
    return fail(Errc::invalid, fmt::format("the server sent {}, which only agents send", to_string(type)));
}

void Session::tick() {
    const std::uint64_t now = loop::Loop::now_ns();
    if (phase_ == Phase::established) {
        if (now - link_->heard_ns() > proto::peer_silence_ms_max * ms) {
            link_->close({Errc::timeout, 0, fmt::format("the server {} said nothing for {} s", peer_,
                                                        proto::peer_silence_ms_max / 1000)});
            return;
        }
        if (now - beat_ns_ >= proto::heartbeat_interval_ms * ms && !shipper_.control_waits()) {
            beat_ns_ = now;
            send(proto::FrameType::heartbeat, host_.make_heartbeat());
        }
    } else if ((phase_ == Phase::tls || phase_ == Phase::greeting) &&
               now - phase_since_ns_ > 2 * proto::handshake_ms_max * ms) {
        link_->close({Errc::timeout, 0, fmt::format("the server {} did not answer the handshake", peer_)});
    }
}

void Session::lost(const Error& why) {
    if (phase_ == Phase::waiting || phase_ == Phase::idle)
        return;
    tried_ = true;
    cause_ = why.text;
    if (phase_ == Phase::established && loop::Loop::now_ns() - phase_since_ns_ > stable_ns)
        backoff_.reset();
    if (link_) {
        wire_bytes_before_ += link_->stream().wire_bytes_written();
        loop_.post([link = std::shared_ptr<Link>(std::move(link_))] {});
    }
    wait(backoff_.next_ms(random_number()));
    host_.on_lost(why);
}

}  // namespace blkferry::agent
