// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace blkferry::tools {

/// Sets keys of a flat TOML file (value as TOML) and leaves everything else as it is: a line that sets the key, or else the commented one
/// of the default file, is replaced; a key that is nowhere comes at the end. Values over several lines are not understood: check the result.
[[nodiscard]] std::string set_keys(std::string_view toml, const std::vector<std::pair<std::string, std::string>>& keys);
/// A basic string of TOML.
[[nodiscard]] std::string toml_string(std::string_view text);

}  // namespace blkferry::tools
