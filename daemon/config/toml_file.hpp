// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.hpp"

/// A TOML text as a flat list of its top-level keys; the only place that knows the TOML library. Private to this library.
namespace blkferry::config {

/// A value of a kind that no key has (a table, a date, a mixed array); the text names the kind.
struct OtherValue {
    std::string kind;
};
using TomlValue = std::variant<std::string, std::int64_t, double, bool, std::vector<std::string>, OtherValue>;

struct TomlEntry {
    std::string key;
    unsigned line = 0;
    TomlValue value;
};

/// Errors begin with name:line. Duplicate keys are refused by the parser itself.
[[nodiscard]] Result<std::vector<TomlEntry>> parse_toml(std::string_view text, std::string_view name);

}  // namespace blkferry::config
