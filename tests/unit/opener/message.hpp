// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <blkferry.h>

/// Netlink messages as an agent makes them, byte for byte, right or wrong.
namespace blkferry::opener::test {

inline constexpr std::size_t generic_at = 16;                 ///< in a message
inline constexpr std::size_t attrs_at = generic_at + 4;
inline constexpr std::size_t value_at = 4;                    ///< in an attribute
constexpr std::size_t padded(std::size_t bytes) { return (bytes + 3) / 4 * 4; }

class Message {
public:
    explicit Message(std::uint8_t cmd, std::uint16_t flags = NLM_F_REQUEST | NLM_F_ACK, std::uint8_t version = BLKFERRY_GENL_VERSION)
        : bytes(attrs_at) {
        const nlmsghdr head{.nlmsg_len = 0, .nlmsg_type = 99, .nlmsg_flags = flags, .nlmsg_seq = 5, .nlmsg_pid = 77};
        const genlmsghdr generic{.cmd = cmd, .version = version, .reserved = 0};
        std::memcpy(bytes.data(), &head, sizeof(head));
        std::memcpy(bytes.data() + generic_at, &generic, sizeof(generic));
        length();
    }
    Message& add(std::uint16_t type, std::size_t size, std::uint64_t value = 0) {
        const std::size_t at = bytes.size();
        const nlattr head{.nla_len = static_cast<std::uint16_t>(value_at + size), .nla_type = type};
        bytes.resize(at + padded(value_at + size));
        std::memcpy(bytes.data() + at, &head, sizeof(head));
        std::memcpy(bytes.data() + at + value_at, &value, std::min(size, sizeof(value)));
        length();
        return *this;
    }
    void length() {
        const auto n = static_cast<std::uint32_t>(bytes.size());
        std::memcpy(bytes.data(), &n, sizeof(n));
    }
    operator std::span<std::byte>() { return bytes; }  // NOLINT: that is what it is for

    std::vector<std::byte> bytes;
};

}  // namespace blkferry::opener::test
