// SPDX-License-Identifier: Apache-2.0
// blkferry-states: writes docs/states.md from the state table to standard output.
#include <cstdio>

#include "agent/state.hpp"

int main() {
    const std::string text = blkferry::agent::states_markdown();
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0 ? 0 : 1;
}
