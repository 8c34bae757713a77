// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.hpp"

/// What both ends of a control socket share; docs/control.md is the description. Who builds or reads a JSON value includes
/// <nlohmann/json.hpp> itself.
namespace blkferry::control {

using Json = nlohmann::json;

/// Bytes of a request or answer line, the newline included.
inline constexpr std::size_t request_bytes_max = 64U << 10;
inline constexpr std::size_t answer_bytes_max = 4U << 20;
/// Arrays and objects inside each other.
inline constexpr std::size_t json_depth_max = 16;

/// One line as an object; Errc::invalid if it is not one, or nests deeper than json_depth_max. No exception leaves.
[[nodiscard]] Result<Json> parse_line(std::string_view line);
/// One line with its newline. Bytes that are no UTF-8 are replaced.
[[nodiscard]] std::string to_line(const Json& message);

/// {"ok": false, "end": true, "code": ..., "error": ...}
[[nodiscard]] Json error_message(const Error& error);
/// The Error that such an answer stands for.
[[nodiscard]] Error error_of(const Json& message);
[[nodiscard]] Errc errc_of(std::string_view code) noexcept;

/// Members of a request with their checks; the errors name the member.
[[nodiscard]] Result<std::string> get_string(const Json& request, std::string_view key, std::string_view default_value);
[[nodiscard]] Result<std::string> need_string(const Json& request, std::string_view key);
[[nodiscard]] Result<std::uint64_t> get_u64(const Json& request, std::string_view key, std::uint64_t default_value);
[[nodiscard]] Result<std::uint64_t> need_u64(const Json& request, std::string_view key);
[[nodiscard]] Result<bool> get_bool(const Json& request, std::string_view key, bool default_value);
/// An array of strings; missing: empty. More than `count_max` is Errc::invalid.
[[nodiscard]] Result<std::vector<std::string>> get_strings(const Json& request, std::string_view key,
                                                           std::size_t count_max);
/// Refuses every member that is not "cmd" or one of `keys`.
[[nodiscard]] Result<void> only_members(const Json& request, std::initializer_list<std::string_view> keys);

}  // namespace blkferry::control
