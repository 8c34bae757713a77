// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "extent/extent_set.hpp"
#include "proto/batch.hpp"
#include "proto/control.hpp"
#include "proto/frame.hpp"
#include "proto/handshake.hpp"
#include "proto/hashing.hpp"
#include "tls/context.hpp"

/// A hand-written agent end: says exactly what a test wants, also what no agent would say.
namespace blkferry::server::test {

using Bytes = std::vector<std::byte>;

struct Frame {
    proto::FrameHeader header;
    Bytes body;
};

/// One write of a batch under construction.
struct Write {
    std::uint16_t slot = 0;
    proto::ExtentKind kind = proto::ExtentKind::data;
    Extent extent;
    std::byte fill{0};
};

/// What a batch says; make_batch() counts and digests. Fields of `end` may be spoiled afterwards.
struct Batch {
    std::uint64_t number = 1;
    std::uint64_t prev_mark = 0;
    std::uint64_t mark = 0;
    std::vector<Write> writes{};
    std::vector<proto::EpochBegin> epoch_begins{};
    std::vector<proto::EpochEnd> epoch_ends{};
    std::vector<proto::PointRequest> points{};
    bool consistent = true;
};

/// The frames of a batch, one after the other.
[[nodiscard]] std::vector<Bytes> frames_of(const Batch& batch, Compressor* compressor = nullptr);
[[nodiscard]] proto::BatchEnd end_of(const Batch& batch);

class Client {
public:
    /// TCP only.
    [[nodiscard]] static Client plain(std::uint16_t port);
    /// TCP and TLS handshake; the error is the handshake's.
    [[nodiscard]] static Result<Client> connect(std::uint16_t port, const tls::TlsContext& context);

    void raw(std::span<const std::byte> data);
    /// As raw(), but false if the server closed meanwhile.
    [[nodiscard]] bool try_raw(std::span<const std::byte> data);
    template <class M>
    void send(proto::FrameType type, const M& message, std::uint64_t batch = 0, std::uint32_t index = 0) {
        Bytes body;
        encode(message, body);
        Bytes out;
        proto::encode_frame(type, batch, index, body, nullptr, out);
        raw(out);
    }
    void send(const Batch& batch);
    [[nodiscard]] proto::Welcome hello(const proto::Hello& hello);

    /// The next frame that is no HEARTBEAT; nothing if the server closed. Fails the test after 30 s.
    [[nodiscard]] std::optional<Frame> next();
    /// The next frame, which must be of this type, decoded.
    [[nodiscard]] Frame expect(proto::FrameType type);
    /// The next ACK; results that come in between are skipped.
    [[nodiscard]] proto::Ack ack();
    /// Reads until the ACK of this batch (earlier ones may be skipped by the server).
    [[nodiscard]] proto::Ack ack_of(std::uint64_t batch);
    [[nodiscard]] proto::Heartbeat heartbeat();
    /// ERROR and then the end.
    [[nodiscard]] proto::PeerError refusal();
    /// Reads until the server closes.
    void until_closed();
    [[nodiscard]] int fd() const;
    void close();

private:
    [[nodiscard]] bool wait(short events, int timeout_ms) const;
    [[nodiscard]] std::optional<Frame> any();

    Fd socket_;
    std::optional<tls::TlsStream> tls_;
    proto::FrameReader reader_;
    Decompressor decompressor_;
};

}  // namespace blkferry::server::test
