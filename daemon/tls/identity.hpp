// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace blkferry::tls {

enum class Role : std::uint8_t { source, server };

[[nodiscard]] std::string_view to_string(Role role) noexcept;
[[nodiscard]] Result<Role> parse_role(std::string_view text);

/// Who a certificate stands for: its one URI subject alternative name `blkferry:<role>:<name>`. Host names and addresses
/// play no part.
struct Identity {
    Role role = Role::source;
    std::string name;

    [[nodiscard]] std::string uri() const;
    bool operator==(const Identity&) const = default;
};

inline constexpr std::size_t name_bytes_max = 64;

/// 1 .. 64 bytes of letters, digits, '.', '-' and '_', not beginning with '.' or '-' (a name is also a folder's name).
[[nodiscard]] bool valid_name(std::string_view name) noexcept;
[[nodiscard]] Result<void> check_name(std::string_view name);

/// Reads `blkferry:source:<name>` or `blkferry:server:<name>`.
[[nodiscard]] Result<Identity> parse_identity(std::string_view uri);

}  // namespace blkferry::tls
