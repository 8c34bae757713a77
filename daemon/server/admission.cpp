// SPDX-License-Identifier: Apache-2.0
#include "server/admission.hpp"

#include <fmt/format.h>

namespace blkferry::server {

Result<void> Admission::enter(const std::string& address) {
    const auto it = addresses_.find(address);
    if (it != addresses_.end() && it->second.connections >= limits_.address_max)
        return fail(Errc::busy, fmt::format("limit of {} connections of one address reached", limits_.address_max));
    if (it != addresses_.end() && it->second.handshakes >= limits_.address_handshakes_max)
        return fail(Errc::busy, fmt::format("limit of {} connections in handshake of one address reached",
                                            limits_.address_handshakes_max));
    if (connections_ >= limits_.connections_max)
        return fail(Errc::busy, fmt::format("limit of {} connections reached", limits_.connections_max));
    if (handshakes_ >= limits_.handshakes_max)
        return fail(Errc::no_space, fmt::format("limit of {} connections in handshake reached", limits_.handshakes_max));
    Address& a = addresses_[address];
    ++a.connections;
    ++a.handshakes;
    ++connections_;
    ++handshakes_;
    return {};
}

void Admission::established(const std::string& address) {
    const auto it = addresses_.find(address);
    BLKFERRY_ASSERT(it != addresses_.end() && it->second.handshakes > 0);
    --it->second.handshakes;
    --handshakes_;
}

void Admission::leave(const std::string& address, bool was_established) {
    if (!was_established)
        established(address);
    const auto it = addresses_.find(address);
    BLKFERRY_ASSERT(it != addresses_.end() && it->second.connections > 0);
    --connections_;
    if (--it->second.connections == 0)
        addresses_.erase(it);
}

}  // namespace blkferry::server
