// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/options.hpp"

namespace blkferry::tools {

struct Parsed {
    Global global;
    std::optional<Command> command;  ///< nothing: print `text` and leave with `exit`
    std::string text;
    Exit exit = Exit::ok;
};

/// An option as completions need it.
struct OptionWord {
    std::string name;   ///< with its dashes
    std::string value;  ///< what follows it: "PATH"; empty: nothing
    std::string help;
};
/// A command, or a group of them.
struct CommandWord {
    std::string name;
    std::string help;
    std::vector<OptionWord> options;
    std::vector<std::string> arguments;  ///< names of the positional ones: "DEVICE"
    std::vector<CommandWord> commands;
};
/// The whole tree, as the parser has it; the root is the program.
[[nodiscard]] CommandWord command_tree();

/// Reads the command line. Never prints and never exits: help, version and refusals come as text.
[[nodiscard]] Parsed parse_command_line(int argc, const char* const* argv);

}  // namespace blkferry::tools
