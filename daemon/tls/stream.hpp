// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tls/identity.hpp"

namespace blkferry::tls {

enum class Status : std::uint8_t {
    done,        ///< `bytes` were moved (handshake and shutdown: finished)
    want_read,   ///< nothing moved: call again when the socket is readable (it may be so now: a call takes a bounded amount)
    want_write,  ///< nothing moved: call again when the socket is writable (read() too: an answer of TLS waits, nothing is read before)
    closed,      ///< the peer closed the connection (with or without close_notify)
};

struct Step {
    Status status = Status::done;
    std::size_t bytes = 0;
};

/// One TLS connection on a non-blocking socket which it owns. After an error or `closed` only destruction is useful.
/// Never raises SIGPIPE. One thread at a time.
class TlsStream {
public:
    TlsStream(TlsStream&&) noexcept;
    TlsStream& operator=(TlsStream&&) noexcept;
    TlsStream(const TlsStream&) = delete;
    TlsStream& operator=(const TlsStream&) = delete;
    /// Closes the socket (without close_notify unless shutdown() was called).
    ~TlsStream();

    [[nodiscard]] int fd() const noexcept;

    /// Goes on with the handshake. `done` means: the peer's certificate is valid and its role and name are as wanted.
    /// Errc::denied: certificate refused (by us or by the peer), Errc::invalid: the peer does not speak TLS 1.3.
    /// A client learns of the server's refusal at the first read, as Errc::denied.
    [[nodiscard]] Result<Step> handshake();

    /// Fills `out` as far as data is there, from a bounded number of records. `done` with bytes > 0 may leave data inside (pending()), of
    /// which poll does not know.
    [[nodiscard]] Result<Step> read(std::span<std::byte> out);
    /// Sends as much of `data` as the socket takes; any size, large is good (256 KiB). After want_write or a partial write
    /// call again with the bytes that follow; they must be the same bytes as before, and at least as many
    /// (the record on the way is already encrypted). The buffer may move.
    [[nodiscard]] Result<Step> write(std::span<const std::byte> data);
    /// Decrypted or received bytes wait inside: call read() again without polling.
    [[nodiscard]] bool pending() const noexcept;
    /// Sends close_notify. `done` when it is on its way.
    [[nodiscard]] Result<Step> shutdown();

    /// Of the peer; valid after the handshake.
    [[nodiscard]] const std::string& peer_name() const noexcept;
    [[nodiscard]] Role peer_role() const noexcept;
    /// It was ended because the peer sent TLS messages (KeyUpdate, session tickets) without end.
    [[nodiscard]] bool flooded() const noexcept;
    /// Server: the peer showed no certificate, because it wants one. Nothing but its request may be taken from it.
    [[nodiscard]] bool enrolling() const noexcept;
    /// Serial of the peer's certificate, upper-case hex; empty if there is none.
    [[nodiscard]] const std::string& peer_serial() const noexcept;
    /// SHA-256 of the peer's certificate, lower-case hex; empty before the handshake.
    [[nodiscard]] const std::string& peer_fingerprint() const noexcept;

    /// Plain bytes passed to and got from the caller.
    [[nodiscard]] std::uint64_t bytes_read() const noexcept;
    [[nodiscard]] std::uint64_t bytes_written() const noexcept;
    /// Records received, the handshake's included.
    [[nodiscard]] std::uint64_t records_read() const noexcept;
    /// Bytes on the socket, handshake and record overhead included.
    [[nodiscard]] std::uint64_t wire_bytes_read() const noexcept;
    [[nodiscard]] std::uint64_t wire_bytes_written() const noexcept;

private:
    friend class TlsContext;
    struct State;
    explicit TlsStream(std::unique_ptr<State> state) noexcept;
    std::unique_ptr<State> state_;
};

}  // namespace blkferry::tls
