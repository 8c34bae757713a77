// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "tools/options.hpp"

namespace blkferry::tools {

struct Parsed {
    Global global;
    std::optional<Command> command;  ///< nothing: print `text` and leave with `exit`
    std::string text;
    Exit exit = Exit::ok;
};

/// Reads the command line. Never prints and never exits: help, version and refusals come as text.
[[nodiscard]] Parsed parse_command_line(int argc, const char* const* argv);

}  // namespace blkferry::tools
