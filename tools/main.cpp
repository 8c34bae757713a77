// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>

#include "tools/cli.hpp"
#include "tools/commands.hpp"

namespace {

/// A secret among the arguments was copied by now: what `ps` shows of it is overwritten.
void hide_token(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        char* secret = nullptr;
        if (std::strcmp(argv[i], "--token") == 0 && i + 1 < argc)
            secret = argv[i + 1];
        else if (std::strncmp(argv[i], "--token=", 8) == 0)
            secret = argv[i] + 8;
        for (; secret != nullptr && *secret != '\0'; ++secret)
            *secret = 'x';
    }
}

}  // namespace

int main(int argc, char** argv) {
    using namespace blkferry::tools;
    try {
        std::signal(SIGPIPE, SIG_DFL);  // `blkferry points | head` ends quietly
        const Parsed parsed = parse_command_line(argc, argv);
        hide_token(argc, argv);
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
