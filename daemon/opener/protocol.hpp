// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

/// What agent and opener say to each other: one message each way over a SOCK_SEQPACKET Unix socket on one machine, so in its byte order.
/// Every message is a head and at most so many bytes behind it; a request has at most one descriptor with it, and so has a reply.
///
///     agent:   open_ring(disk)              opener:  ring + descriptor, or refused(errno, text)
///     agent:   module(netlink message)[+fd] opener:  datagram* (what the module answers, as it came), or refused
namespace blkferry::opener {

inline constexpr std::uint32_t magic = 0x706f6662;  ///< "bfop"
inline constexpr std::uint16_t version = 1;
/// A netlink message with 1024 ranges of 16 bytes, and the rest of it.
inline constexpr std::size_t message_bytes_max = 20U << 10;
/// Of an answer; the kernel's are of 32 KiB at most.
inline constexpr std::size_t datagram_bytes_max = 64U << 10;
inline constexpr std::size_t text_bytes_max = 512;

enum class Op : std::uint16_t { open_ring = 1, module = 2 };
enum class Kind : std::uint16_t { ring = 1, datagram = 2, refused = 3 };

struct RequestHead {
    std::uint32_t magic;
    std::uint16_t version;
    std::uint16_t op;      ///< Op
    std::uint32_t disk;    ///< of open_ring, else 0
    std::uint32_t bytes;   ///< behind the head
};
struct ReplyHead {
    std::uint32_t magic;
    std::uint16_t version;
    std::uint16_t kind;    ///< Kind
    std::int32_t err;      ///< of refused, else 0
    std::uint32_t bytes;   ///< behind the head
};
static_assert(sizeof(RequestHead) == 16 && sizeof(ReplyHead) == 16);

struct Request {
    Op op = Op::open_ring;
    std::uint32_t disk = 0;
    std::span<std::byte> message;  ///< of module; into the received bytes
};
struct Reply {
    Kind kind = Kind::refused;
    int err = 0;
    std::span<std::byte> body;     ///< into the received bytes
};

/// Takes a received message apart. Errc::invalid says what is wrong with it.
[[nodiscard]] Result<Request> parse_request(std::span<std::byte> bytes, bool has_fd);
[[nodiscard]] Result<Reply> parse_reply(std::span<std::byte> bytes, bool has_fd);

/// Sends head and body as one message, with a descriptor unless `fd` is -1. Errors: the errno of sendmsg(2).
[[nodiscard]] Result<void> send_request(int socket, Op op, std::uint32_t disk, std::span<const std::byte> message, int fd);
[[nodiscard]] Result<void> send_reply(int socket, Kind kind, int err, std::span<const std::byte> body, int fd);

struct Received {
    std::span<std::byte> bytes;    ///< empty: the peer closed
    Fd fd;
};
/// The next message, into `buffer` (aligned to 8). Errc::invalid: it is larger than that, or brings more than one descriptor (which are
/// closed); Errc::again: none came in the socket's time.
[[nodiscard]] Result<Received> receive(int socket, std::span<std::byte> buffer);

}  // namespace blkferry::opener
