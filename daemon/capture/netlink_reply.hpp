// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <linux/netlink.h>

#include <blkferry.h>

#include "base/result.hpp"
#include "capture/tracker.hpp"

/// What the module says over generic netlink, taken apart; pure, no socket. Every length is checked: a message that lies about
/// itself is Errc::corrupt, never a read outside of it.
namespace blkferry::capture::netlink {

/// Attributes of one message, by enum blkferry_attr. Points into the received bytes.
using Attrs = std::array<nlattr*, BLKFERRY_A_MAX + 1>;

/// The whole messages of one datagram, in order; ends at the first that is cut off. `bytes` is aligned to 4.
class Messages {
public:
    explicit Messages(std::span<std::byte> bytes) noexcept;
    /// nullptr at the end.
    [[nodiscard]] nlmsghdr* next() noexcept;

private:
    nlmsghdr* at_;
    int left_;
};

/// False: the message is too short or its attributes do not fit it. Attributes that this program does not know are skipped.
[[nodiscard]] bool parse_attrs(nlmsghdr* message, Attrs& attrs);

/// The errno and the extended acknowledgement of an NLMSG_ERROR (0 and nothing: success) or NLMSG_DONE message.
struct Outcome {
    int err = 0;
    std::string text;
};
[[nodiscard]] Outcome read_outcome(nlmsghdr* message);

[[nodiscard]] Result<TrackerInfo> parse_info(const Attrs& attrs);
[[nodiscard]] Result<DiskInfo> parse_disk(const Attrs& attrs);
[[nodiscard]] Result<TrackerEvent> parse_event(const Attrs& attrs);
/// The one number that a request was answered with.
[[nodiscard]] Result<std::uint64_t> parse_u64(const Attrs& attrs, blkferry_attr attr, std::string_view what);

}  // namespace blkferry::capture::netlink
