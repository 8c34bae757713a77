// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

/// Sizes, rates and durations as people write them. Numbers are decimal without sign, at most one fraction ("1.5GiB"), no
/// space inside except before the unit; units are case-insensitive except that nothing else is accepted.
namespace blkferry::config {

/// Bytes: "4096", "64KiB", "16MiB", "8GiB", "2TiB" (powers of 1024), "10kB", "10MB", "1GB", "1TB" (powers of 1000).
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);
/// The largest power-of-1024 unit that is exact: "64MiB", "1000" for 1000.
[[nodiscard]] std::string format_size(std::uint64_t bytes);

/// A rate in bytes per second. Bits: "20mbit", "512kbit", "1gbit", "800bit"; bytes: "2mbyte", "100kbyte", "1gbyte" and "MB/s"
/// likewise ("kB/s", "GB/s", "B/s"); decimal powers; "0" and "unlimited" mean no limit (0). A bare number other than 0 is refused:
/// its unit would be a guess. Less than 8 kbit/s is refused.
[[nodiscard]] Result<std::uint64_t> parse_rate(std::string_view text);
/// "20mbit"; "0" for no limit. parse_rate(format_rate(x)) == x.
[[nodiscard]] std::string format_rate(std::uint64_t bytes_per_second);

/// A span in milliseconds: "200ms", "30s", "10min", "2h", "7d"; "0".
[[nodiscard]] Result<std::uint64_t> parse_duration_ms(std::string_view text);
[[nodiscard]] std::string format_duration_ms(std::uint64_t ms);

struct Endpoint {
    std::string host;  ///< name or address, without brackets
    std::uint16_t port = 0;
    bool operator==(const Endpoint&) const = default;
    /// "host:port", with brackets around an IPv6 address.
    [[nodiscard]] std::string str() const;
};
/// "host:port", "192.0.2.1:1500", "[2001:db8::1]:1500"; without ":port" the default is taken.
[[nodiscard]] Result<Endpoint> parse_endpoint(std::string_view text, std::uint16_t default_port);

struct ProxyUrl {
    Endpoint at;
    std::string user;  ///< empty: no authentication
};
/// "http://proxy:3128", "http://user@proxy:3128", "http://[2001:db8::1]:3128"; the port may be left out (3128). A password in it is refused: it
/// would be in a file that anybody can read.
[[nodiscard]] Result<ProxyUrl> parse_proxy(std::string_view url);

}  // namespace blkferry::config
