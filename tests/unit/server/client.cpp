// SPDX-License-Identifier: Apache-2.0
#include "client.hpp"

#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <map>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

namespace blkferry::server::test {

namespace {
constexpr int deadline_ms = 30'000;

Fd dial(std::uint16_t port) {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    BOOST_REQUIRE(fd);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    BOOST_REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0);
    BOOST_REQUIRE(::fcntl(fd.get(), F_SETFL, O_NONBLOCK) == 0);
    return fd;
}
}  // namespace

proto::BatchEnd end_of(const Batch& batch) {
    proto::BatchEnd end;
    std::map<std::uint16_t, ExtentSet> sets;
    for (const Write& w : batch.writes) {
        ++end.extents;
        if (has_payload(w.kind))
            end.payload_bytes += w.extent.count * sector_bytes;
        if (!is_resync(w.kind))
            sets[w.slot].insert(w.extent);
    }
    SetDigest digest;
    for (const auto& [slot, set] : sets) {
        digest.add(slot, set);
        end.sectors += set.sectors();
    }
    end.digest = digest.value();
    end.consistent = batch.consistent;
    return end;
}

std::vector<Bytes> frames_of(const Batch& batch, Compressor* compressor) {
    std::vector<Bytes> out;
    const auto add = [&](proto::FrameType type, const Bytes& body) {
        Bytes frame;
        proto::encode_frame(type, batch.number, static_cast<std::uint32_t>(out.size()), body, compressor, frame);
        out.push_back(std::move(frame));
    };
    const auto message = [&](proto::FrameType type, const auto& m) {
        Bytes body;
        encode(m, body);
        add(type, body);
    };
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    const auto time_ns = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
    message(proto::FrameType::batch_begin,
            proto::BatchBegin{.prev_mark = batch.prev_mark, .mark = batch.mark, .time_ns = time_ns});
    for (const auto& e : batch.epoch_begins)
        message(proto::FrameType::epoch_begin, e);
    for (std::size_t at = 0; at < batch.writes.size();) {
        std::vector<proto::ExtentEntry> entries;
        Bytes payload;
        for (; at < batch.writes.size() && entries.size() < 256 && payload.size() < 512U << 10; ++at) {
            const Write& w = batch.writes[at];
            entries.push_back({.slot = w.slot, .kind = w.kind, .extent = w.extent});
            payload.resize(payload.size() + entries.back().payload_bytes(), w.fill);
        }
        Bytes body;
        proto::encode_extents_head(entries, body);
        body.insert(body.end(), payload.begin(), payload.end());
        add(proto::FrameType::extents, body);
    }
    for (const auto& e : batch.epoch_ends)
        message(proto::FrameType::epoch_end, e);
    for (const auto& p : batch.points)
        message(proto::FrameType::point_request, p);
    message(proto::FrameType::batch_end, end_of(batch));
    return out;
}

Client Client::plain(std::uint16_t port) {
    Client c;
    c.socket_ = dial(port);
    return c;
}

Result<Client> Client::connect(std::uint16_t port, const tls::TlsContext& context) {
    Client c;
    BLKFERRY_TRY_ASSIGN(auto stream, context.wrap(dial(port), "server"));
    c.tls_.emplace(std::move(stream));
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const auto step, c.tls_->handshake());
        if (step.status == tls::Status::done)
            return c;
        if (step.status == tls::Status::closed)
            return fail(Errc::closed, "closed in the handshake");
        if (!c.wait(step.status == tls::Status::want_write ? POLLOUT : POLLIN, deadline_ms))
            return fail(Errc::timeout, "handshake");
    }
}

int Client::fd() const {
    return tls_ ? tls_->fd() : socket_.get();
}

void Client::close() {
    tls_.reset();
    socket_.reset();
}

bool Client::wait(short events, int timeout_ms) const {
    pollfd p{.fd = fd(), .events = events, .revents = 0};
    return ::poll(&p, 1, timeout_ms) > 0;
}

bool Client::try_raw(std::span<const std::byte> data) {
    while (!data.empty()) {
        std::size_t n = 0;
        bool blocked = false;
        if (tls_) {
            const auto step = tls_->write(data);
            if (!step || step->status == tls::Status::closed)
                return false;
            blocked = step->status != tls::Status::done;
            n = blocked ? 0 : step->bytes;
        } else {
            const auto r = ::send(fd(), data.data(), data.size(), MSG_NOSIGNAL);
            if (r < 0 && errno != EAGAIN)
                return false;
            blocked = r < 0;
            n = blocked ? 0 : static_cast<std::size_t>(r);
        }
        data = data.subspan(n);
        if (blocked)
            BOOST_REQUIRE_MESSAGE(wait(POLLOUT, deadline_ms), "the server does not take what is sent");
    }
    return true;
}

void Client::raw(std::span<const std::byte> data) {
    BOOST_REQUIRE_MESSAGE(try_raw(data), "the server closed the connection");
}

void Client::send(const Batch& batch) {
    for (const Bytes& frame : frames_of(batch))
        raw(frame);
}

proto::Welcome Client::hello(const proto::Hello& m) {
    send(proto::FrameType::hello, m);
    return proto::decode_welcome(expect(proto::FrameType::welcome).body).value();
}

std::optional<Frame> Client::any() {
    for (;;) {
        proto::FrameReader::View view;
        const auto status = reader_.next(view);
        BOOST_REQUIRE_MESSAGE(status, "malformed frame from the server");
        if (*status == proto::FrameReader::Status::frame) {
            Bytes scratch;
            const auto body = proto::decode_body(view.header, view.wire, decompressor_, scratch);
            BOOST_REQUIRE(body);
            return Frame{view.header, Bytes(body->begin(), body->end())};
        }
        Bytes buffer(65536);
        BOOST_REQUIRE_MESSAGE(tls_, "frames come over TLS");
        const auto step = tls_->read(buffer);
        if (!step || step->status == tls::Status::closed)
            return std::nullopt;
        if (step->status == tls::Status::done)
            reader_.feed(std::span(buffer).first(step->bytes));
        else
            BOOST_REQUIRE_MESSAGE(wait(POLLIN, deadline_ms), "nothing came from the server for 30 s");
    }
}

std::optional<Frame> Client::next() {
    for (;;) {
        auto frame = any();
        if (!frame || frame->header.type != proto::FrameType::heartbeat)
            return frame;
    }
}

Frame Client::expect(proto::FrameType type) {
    auto frame = next();
    BOOST_REQUIRE_MESSAGE(frame, "the server closed instead of sending " << proto::to_string(type));
    if (frame->header.type == proto::FrameType::error && type != proto::FrameType::error)
        BOOST_FAIL("the server refused: " << proto::decode_peer_error(frame->body).value().text);
    BOOST_REQUIRE_MESSAGE(frame->header.type == type,
                          proto::to_string(frame->header.type) << " came instead of " << proto::to_string(type));
    return *frame;
}

proto::Ack Client::ack() {
    for (;;) {
        const auto frame = next();
        BOOST_REQUIRE_MESSAGE(frame, "the server closed instead of acknowledging");
        if (frame->header.type == proto::FrameType::error)
            BOOST_FAIL("the server refused: " << proto::decode_peer_error(frame->body).value().text);
        if (frame->header.type == proto::FrameType::ack)
            return proto::decode_ack(frame->body).value();
    }
}

proto::Ack Client::ack_of(std::uint64_t batch) {
    for (;;) {
        const auto a = ack();
        BOOST_REQUIRE(a.batch <= batch);
        if (a.batch == batch)
            return a;
    }
}

proto::Heartbeat Client::heartbeat() {
    for (;;) {
        const auto frame = any();
        BOOST_REQUIRE(frame);
        if (frame->header.type == proto::FrameType::heartbeat)
            return proto::decode_heartbeat(frame->body).value();
    }
}

proto::PeerError Client::refusal() {
    for (;;) {
        const auto frame = next();
        BOOST_REQUIRE_MESSAGE(frame, "the server closed without a reason");
        if (frame->header.type != proto::FrameType::error)
            continue;  // what it had to say before
        BOOST_TEST(!next().has_value());
        return proto::decode_peer_error(frame->body).value();
    }
}

void Client::until_closed() {
    if (tls_) {
        while (next()) {
        }
        return;
    }
    for (;;) {
        char c = 0;
        const auto n = ::recv(fd(), &c, 1, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return;
        if (n < 0)
            BOOST_REQUIRE_MESSAGE(wait(POLLIN, deadline_ms), "the server does not close");
    }
}

}  // namespace blkferry::server::test
