// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tls/bio.hpp"
#include "tls/stream.hpp"
#include "tls/verify.hpp"

namespace blkferry::tls {

/// Order matters: the SSL goes first, then what its BIO and its verification point to, then the socket.
struct TlsStream::State {
    Fd socket;
    SocketIo io;
    PeerCheck check;
    std::string peer_text;
    std::string fingerprint;
    std::string serial;
    SslPtr ssl;
    std::uint64_t plain_in = 0;
    std::uint64_t plain_out = 0;
    std::size_t record_on_way = 0;  ///< bytes of the caller's data in an encrypted record that was not sent whole
    std::optional<Result<Step>> ended;  ///< how reading ended, if that came behind data
    std::uint64_t records = 0;   ///< received, of any kind
    std::uint64_t messages = 0;  ///< of TLS itself, received behind the handshake
    bool flooded = false;        ///< too many of them
    bool established = false;
    bool failed = false;

    /// Before each call that may receive: nobody keeps this end busy in one call by sending faster than it decrypts.
    void begin_call(std::size_t plain_bytes) noexcept;
    /// Counts what TLS receives for itself.
    void watch_messages() noexcept;
    [[nodiscard]] Result<Step> outcome(int ssl_result);
    [[nodiscard]] Error refused_by_peer(int reason);
    [[nodiscard]] Result<Step> protocol_failure();
    [[nodiscard]] Result<Step> socket_failure();
};

}  // namespace blkferry::tls
