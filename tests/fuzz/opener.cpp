// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstring>

#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <blkferry.h>

#include "exact_copy.hpp"
#include "opener/module_request.hpp"
#include "opener/protocol.hpp"

/// What the opener takes from the agent, down to the netlink message that it sends with its own rights, and what the agent takes from the
/// opener. Bits of the first byte: 0: an answer, 1: a descriptor came along, 2: the lengths are made right (so that the fuzzer gets into it).
using namespace blkferry;
using namespace blkferry::opener;

namespace {

template <class T>
void put(std::span<std::byte> to, std::size_t at, T value) {
    if (to.size() >= at + sizeof(value))
        std::memcpy(to.data() + at, &value, sizeof(value));
}

template <class T>
T get(std::span<const std::byte> from, std::size_t at) {
    T value{};
    BLKFERRY_ASSERT(from.size() >= at + sizeof(value));
    std::memcpy(&value, from.data() + at, sizeof(value));
    return value;
}

/// Whatever passes must be one message of one command for the kernel, too: its own walk over the attributes, not the table's.
void check_passed(const ModuleRequest& r, bool has_fd) {
    BLKFERRY_ASSERT(r.message.size() <= message_bytes_max && get<std::uint32_t>(r.message, 0) == r.message.size());
    const auto flags = get<std::uint16_t>(r.message, offsetof(nlmsghdr, nlmsg_flags));
    BLKFERRY_ASSERT((flags & NLM_F_REQUEST) != 0 && (flags & ~(NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP)) == 0);
    BLKFERRY_ASSERT((r.cmd == BLKFERRY_CMD_ATTACH) == (r.fd_at != 0) && (r.fd_at != 0) == has_fd);
    std::size_t fds = 0;
    for (std::size_t at = sizeof(nlmsghdr) + sizeof(genlmsghdr); at < r.message.size();) {
        const auto length = get<std::uint16_t>(r.message, at);
        const auto type = get<std::uint16_t>(r.message, at + 2);
        BLKFERRY_ASSERT(length > 4 && at + length <= r.message.size() && type != 0 && type <= BLKFERRY_A_MAX);
        if (type == BLKFERRY_A_FD) {
            BLKFERRY_ASSERT(length == 8 && r.fd_at == at + 4);
            ++fds;
        }
        if (type == BLKFERRY_A_DEV)
            BLKFERRY_ASSERT(length == 12 && get<std::uint64_t>(r.message, at + 4) == r.dev);
        at += (length + 3U) / 4 * 4;
    }
    BLKFERRY_ASSERT(fds == (has_fd ? 1U : 0U));
}

void ask(std::span<std::byte> bytes, bool has_fd) {
    const auto request = parse_request(bytes, has_fd);
    if (!request || request->op != Op::module)
        return;
    auto module = ModuleRequest::check(request->message, has_fd);
    if (!module)
        return;
    check_passed(*module, has_fd);
    module->address(29, has_fd ? 7 : -1);
    BLKFERRY_ASSERT(get<std::uint16_t>(module->message, offsetof(nlmsghdr, nlmsg_type)) == 29);
    BLKFERRY_ASSERT(get<std::uint32_t>(module->message, offsetof(nlmsghdr, nlmsg_pid)) == 0);
    BLKFERRY_ASSERT(!has_fd || get<std::uint32_t>(module->message, module->fd_at) == 7);
    const auto again = ModuleRequest::check(module->message, has_fd);
    BLKFERRY_ASSERT(again.has_value() && again->cmd == module->cmd && again->dev == module->dev);
}

void hear(std::span<std::byte> bytes, bool has_fd) {
    const auto reply = parse_reply(bytes, has_fd);
    if (!reply)
        return;
    BLKFERRY_ASSERT((reply->kind == Kind::ring) == has_fd && reply->err >= 0);
    BLKFERRY_ASSERT(reply->kind == Kind::refused || reply->err == 0);
    BLKFERRY_ASSERT(reply->body.size() <= (reply->kind == Kind::refused ? text_bytes_max : datagram_bytes_max));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    const ExactCopy input(data, size);
    const std::span<std::byte> bytes = input.bytes();
    const bool answer = (data[0] & 1U) != 0;
    if ((data[0] & 4U) != 0 && bytes.size() >= sizeof(RequestHead)) {
        const auto body = static_cast<std::uint32_t>(bytes.size() - sizeof(RequestHead));
        put(bytes, offsetof(RequestHead, bytes), body);
        if (!answer)
            put(bytes.subspan(sizeof(RequestHead)), offsetof(nlmsghdr, nlmsg_len), body);
    }
    const bool has_fd = (data[0] & 2U) != 0;
    if (answer)
        hear(bytes, has_fd);
    else
        ask(bytes, has_fd);
    return 0;
}
