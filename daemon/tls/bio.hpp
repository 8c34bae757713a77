// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tls/ssl.hpp"

namespace blkferry::tls {

/// What the socket BIO counts and remembers; owned by the stream, which outlives its BIO.
struct SocketIo {
    int fd = -1;
    int last_errno = 0;  ///< of the newest failed call
    std::size_t allowance = 0;  ///< bytes that may still be received in this call; then it is as if none were there
    std::uint64_t in = 0;
    std::uint64_t out = 0;
};

/// A BIO over a non-blocking socket. OpenSSL's own one uses write(2), which raises SIGPIPE; this one sends with
/// MSG_NOSIGNAL, and it counts.
[[nodiscard]] BioPtr make_socket_bio(SocketIo& io);

}  // namespace blkferry::tls
