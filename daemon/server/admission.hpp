// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "base/result.hpp"

namespace blkferry::server {

struct AdmissionLimits {
    std::size_t connections_max = 1024;  ///< open at the same time
    std::size_t handshakes_max = 256;    ///< of these before HELLO
    std::size_t address_max = 64;        ///< from one address
    std::size_t address_handshakes_max = 32;
};

/// Counts connections and says whether one more may come in. Pure; memory is bounded by connections_max.
class Admission {
public:
    explicit Admission(AdmissionLimits limits) : limits_(limits) {}

    /// The error names the limit that was reached: Errc::no_space if there is no room for another handshake (one that ends makes
    /// some), else Errc::busy. After success leave() must follow once.
    [[nodiscard]] Result<void> enter(const std::string& address);
    /// Its HELLO was accepted.
    void established(const std::string& address);
    void leave(const std::string& address, bool was_established);
    /// For connections from now on; those that are in stay.
    void set_limits(AdmissionLimits limits) noexcept { limits_ = limits; }

    [[nodiscard]] std::size_t connections() const noexcept { return connections_; }
    [[nodiscard]] std::size_t handshakes() const noexcept { return handshakes_; }

private:
    struct Address {
        std::size_t connections = 0;
        std::size_t handshakes = 0;
    };
    AdmissionLimits limits_;
    std::size_t connections_ = 0;
    std::size_t handshakes_ = 0;
    std::map<std::string, Address> addresses_;
};

}  // namespace blkferry::server
