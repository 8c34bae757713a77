// SPDX-License-Identifier: Apache-2.0
#include "capture/module_family.hpp"

#include <cerrno>
#include <memory>

#include <fmt/format.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/socket.h>

#include <blkferry.h>

#include "capture/module_advice.hpp"

namespace blkferry::capture {

Result<std::uint16_t> module_family() {
    const std::unique_ptr<nl_sock, decltype([](nl_sock* s) { nl_socket_free(s); })> s(nl_socket_alloc());
    if (!s)
        return fail_errno(ENOMEM, "cannot make a netlink socket");
    if (const int r = genl_connect(s.get()); r < 0)
        return fail(Errc::io, fmt::format("cannot connect to generic netlink: {}", nl_geterror(r)));
    const int family = genl_ctrl_resolve(s.get(), BLKFERRY_GENL_NAME);
    if (family < 0)
        return fail_errno(ENOENT, fmt::format("the kernel has no netlink family 'blkferry'; {}", module_advice()));
    return static_cast<std::uint16_t>(family);
}

}  // namespace blkferry::capture
