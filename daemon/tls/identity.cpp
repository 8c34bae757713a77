// SPDX-License-Identifier: Apache-2.0
#include "tls/identity.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace blkferry::tls {

std::string_view to_string(Role role) noexcept { return role == Role::server ? "server" : "source"; }

Result<Role> parse_role(std::string_view text) {
    if (text == "source")
        return Role::source;
    if (text == "server")
        return Role::server;
    return fail(Errc::invalid, fmt::format("role '{}': source or server expected", text.substr(0, name_bytes_max)));
}

std::string Identity::uri() const { return fmt::format("blkferry:{}:{}", to_string(role), name); }

bool valid_name(std::string_view name) noexcept {
    const auto letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    };
    return !name.empty() && name.size() <= name_bytes_max && letter(name.front()) &&
           std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || c == '.' || c == '-'; });
}

Result<void> check_name(std::string_view name) {
    if (valid_name(name))
        return {};
    std::string shown;
    for (const char c : name.substr(0, name_bytes_max))
        shown += c >= ' ' && c <= '~' ? c : '?';
    return fail(Errc::invalid, fmt::format("name '{}': 1 to {} letters, digits, '.', '-', '_' expected, beginning with a "
                                           "letter, digit or '_'",
                                           shown, name_bytes_max));
}

Result<Identity> parse_identity(std::string_view uri) {
    constexpr std::string_view scheme = "blkferry:";
    if (!uri.starts_with(scheme))
        return fail(Errc::invalid, "not a blkferry: name");
    const std::string_view rest = uri.substr(scheme.size());
    const std::size_t colon = rest.find(':');
    if (colon == std::string_view::npos)
        return fail(Errc::invalid, "blkferry:<role>:<name> expected");
    BLKFERRY_TRY_ASSIGN(const Role role, parse_role(rest.substr(0, colon)));
    const std::string_view name = rest.substr(colon + 1);
    BLKFERRY_TRY(check_name(name));
    return Identity{role, std::string(name)};
}

}  // namespace blkferry::tls
