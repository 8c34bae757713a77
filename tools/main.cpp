// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdio>
#include <exception>

#include "tools/cli.hpp"
#include "tools/commands.hpp"

int main(int argc, char** argv) {
    using namespace blkferry::tools;
    try {
        std::signal(SIGPIPE, SIG_DFL);  // `blkferry points | head` ends quietly
        const Parsed parsed = parse_command_line(argc, argv);
        if (!parsed.command) {
            std::fputs(parsed.text.c_str(), parsed.exit == Exit::ok ? stdout : stderr);
            return static_cast<int>(parsed.exit);
        }
        const Exit exit =
            std::visit([&](const auto& options) { return run(parsed.global, options); }, *parsed.command);
        return static_cast<int>(exit);
    } catch (const std::exception& err) {
        std::fprintf(stderr, "blkferry: %s\n", err.what());
        return static_cast<int>(Exit::failed);
    }
}
