// SPDX-License-Identifier: Apache-2.0
#include "opener/module_request.hpp"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>

#include <fmt/format.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <blkferry.h>

namespace blkferry::opener {

namespace {

enum class Need : std::uint8_t { must, may };

/// An attribute of a command: its value is 1 .. items_max times `item` bytes.
struct Rule {
    blkferry_attr attr;
    Need need;
    std::uint16_t item;
    std::uint16_t items_max;
};
constexpr std::size_t rules_max = 5;

struct Command {
    blkferry_cmd cmd;
    bool dumps;  ///< without attributes, for all disks
    std::array<Rule, rules_max> rules;
};

constexpr Rule none{BLKFERRY_A_UNSPEC, Need::may, 0, 0};
constexpr Rule disk{BLKFERRY_A_DISK, Need::must, 4, 1};
constexpr Rule ranges(Need need) { return {BLKFERRY_A_RANGES, need, sizeof(blkferry_range), BLKFERRY_RANGES_MAX}; }
constexpr Rule u64(blkferry_attr attr, Need need) { return {attr, need, 8, 1}; }
constexpr Rule u32(blkferry_attr attr, Need need) { return {attr, need, 4, 1}; }

constexpr std::array commands = {
    Command{BLKFERRY_CMD_INFO, false, {none, none, none, none, none}},
    Command{BLKFERRY_CMD_SEQ_FLOOR, false, {u64(BLKFERRY_A_SEQ, Need::must), none, none, none, none}},
    Command{BLKFERRY_CMD_ATTACH, false, {u64(BLKFERRY_A_DEV, Need::must), u32(BLKFERRY_A_FD, Need::must), u64(BLKFERRY_A_DATA_BYTES, Need::may),
                                         u32(BLKFERRY_A_DESCS, Need::may), u32(BLKFERRY_A_INLINE_MAX, Need::may)}},
    Command{BLKFERRY_CMD_DETACH, false, {disk, none, none, none, none}},
    Command{BLKFERRY_CMD_DISK_GET, true, {disk, none, none, none, none}},
    Command{BLKFERRY_CMD_RESYNC_BEGIN, false, {disk, none, none, none, none}},
    Command{BLKFERRY_CMD_RESYNC_CLEAR, false, {disk, ranges(Need::must), u64(BLKFERRY_A_SEQ, Need::may), none, none}},
    Command{BLKFERRY_CMD_RESYNC_END, false, {disk, none, none, none, none}},
    Command{BLKFERRY_CMD_MARK_DIRTY, false, {disk, ranges(Need::may), none, none, none}},
    Command{BLKFERRY_CMD_CUT, false, {Rule{BLKFERRY_A_FREEZE_DEVS, Need::may, 8, BLKFERRY_FREEZE_MAX}, u32(BLKFERRY_A_FREEZE_MS, Need::may),
                                      none, none, none}},
};

constexpr std::size_t align_to(std::size_t bytes) noexcept { return (bytes + NLA_ALIGNTO - 1) / NLA_ALIGNTO * NLA_ALIGNTO; }
constexpr std::size_t generic_at = align_to(sizeof(nlmsghdr));
constexpr std::size_t heads = generic_at + align_to(sizeof(genlmsghdr));
constexpr std::size_t value_at = align_to(sizeof(nlattr));  ///< in an attribute

std::unexpected<Error> malformed(std::string_view what) { return fail(Errc::invalid, fmt::format("netlink message: {}", what)); }

Result<const Command*> command_of(const nlmsghdr& head, const genlmsghdr& generic) {
    const auto* const found = std::ranges::find(commands, generic.cmd, [](const Command& c) { return static_cast<std::uint8_t>(c.cmd); });
    if (found == commands.end())
        return malformed(fmt::format("command {} is not allowed", generic.cmd));
    const bool dump = head.nlmsg_flags == (NLM_F_REQUEST | NLM_F_DUMP) || head.nlmsg_flags == (NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK);
    if (head.nlmsg_flags != (NLM_F_REQUEST | NLM_F_ACK) && !(dump && found->dumps))
        return malformed(fmt::format("flags {:#x}", head.nlmsg_flags));
    if (generic.version != BLKFERRY_GENL_VERSION || generic.reserved != 0)
        return malformed("another version of the family");
    return &*found;
}

}  // namespace

Result<ModuleRequest> ModuleRequest::check(std::span<std::byte> message, bool has_fd) {
    nlmsghdr head{};
    genlmsghdr generic{};
    if (message.size() < heads)
        return malformed("it is too short");
    std::memcpy(&head, message.data(), sizeof(head));
    std::memcpy(&generic, message.data() + generic_at, sizeof(generic));
    if (head.nlmsg_len != message.size())
        return malformed("its length is not that of the message");
    BLKFERRY_TRY_ASSIGN(const Command* const command, command_of(head, generic));
    ModuleRequest out{.cmd = generic.cmd, .dump = (head.nlmsg_flags & NLM_F_DUMP) != 0, .sequence = head.nlmsg_seq, .message = message};
    std::bitset<BLKFERRY_A_MAX + 1> seen;
    for (std::size_t at = heads; at < message.size();) {
        nlattr attr{};
        if (message.size() - at < sizeof(attr))
            return malformed("an attribute is cut off");
        std::memcpy(&attr, message.data() + at, sizeof(attr));
        if (attr.nla_len < value_at || attr.nla_len > message.size() - at)
            return malformed("an attribute does not fit");
        const auto* const rule = std::ranges::find(command->rules, attr.nla_type, [](const Rule& r) { return static_cast<std::uint16_t>(r.attr); });
        const std::size_t bytes = attr.nla_len - value_at;
        if (attr.nla_type == BLKFERRY_A_UNSPEC || rule == command->rules.end() || out.dump || seen.test(attr.nla_type))
            return malformed(fmt::format("attribute {} of command {} is not allowed", attr.nla_type, generic.cmd));
        if (bytes == 0 || bytes % rule->item != 0 || bytes / rule->item > rule->items_max)
            return malformed(fmt::format("attribute {} has {} bytes", attr.nla_type, bytes));
        seen.set(attr.nla_type);
        if (attr.nla_type == BLKFERRY_A_FD)
            out.fd_at = at + value_at;
        if (attr.nla_type == BLKFERRY_A_DEV)
            std::memcpy(&out.dev, message.data() + at + value_at, sizeof(out.dev));
        at = std::min(at + align_to(attr.nla_len), message.size());
    }
    for (const Rule& r : command->rules)
        if (r.need == Need::must && !out.dump && !seen.test(r.attr))
            return malformed(fmt::format("attribute {} of command {} is missing", static_cast<int>(r.attr), generic.cmd));
    if (has_fd != (out.fd_at != 0))
        return malformed(has_fd ? "a descriptor that nothing asks for" : "the descriptor is missing");
    return out;
}

void ModuleRequest::address(std::uint16_t family, int fd) noexcept {
    std::memcpy(message.data() + offsetof(nlmsghdr, nlmsg_type), &family, sizeof(family));
    const std::uint32_t port = 0;  // the kernel fills in the sender's
    std::memcpy(message.data() + offsetof(nlmsghdr, nlmsg_pid), &port, sizeof(port));
    if (fd_at != 0) {
        const auto number = static_cast<std::uint32_t>(fd);
        std::memcpy(message.data() + fd_at, &number, sizeof(number));
    }
}

}  // namespace blkferry::opener
