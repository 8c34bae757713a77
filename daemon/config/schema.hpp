// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.hpp"

/// The keys of a file as data; private to this library.
namespace blkferry::config {

/// How a number is written.
enum class Unit : std::uint8_t { none, size, rate, seconds, milliseconds, span };  // span: "7d", kept in milliseconds

struct Range {
    std::uint64_t min = 0;
    std::uint64_t max = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t multiple_of = 1;
};

/// What further holds for a string; or for an array, that a single value may stand for it.
enum class Rule : std::uint8_t { any, name, optional_name, one_or_more, proxy };

template <class C>
using Field = std::variant<std::string C::*, std::filesystem::path C::*, std::uint64_t C::*, std::int64_t C::*,
                           std::vector<Endpoint> C::*, Compression C::*, LogLevel C::*, SnapshotEngine C::*,
                           Capture C::*>;

/// One key. `fallback` is the default as it stands in the file (TOML), empty: the key is required and `example` is shown.
template <class C>
struct Key {
    std::string_view name;
    Field<C> field;
    std::string_view fallback;
    std::string_view example;
    bool reloads;
    std::string_view help;
    Unit unit = Unit::none;
    Range range = {};
    Rule rule = Rule::any;
};

[[nodiscard]] std::span<const Key<AgentConfig>> agent_schema();
[[nodiscard]] std::span<const Key<ServerConfig>> server_schema();

/// Names of the values of an enumeration, in order.
[[nodiscard]] std::span<const std::string_view> names_of(Compression) noexcept;
[[nodiscard]] std::span<const std::string_view> names_of(LogLevel) noexcept;
[[nodiscard]] std::span<const std::string_view> names_of(SnapshotEngine) noexcept;
[[nodiscard]] std::span<const std::string_view> names_of(Capture) noexcept;

}  // namespace blkferry::config
