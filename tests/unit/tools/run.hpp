// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace blkferry::tools::test {

struct Ran {
    int exit = -1;
    std::string out;
    std::string err;
};
/// Runs the program itself with these arguments; stdin is /dev/null.
[[nodiscard]] Ran run_blkferry(const std::vector<std::string>& arguments);

/// Every command as its words.
[[nodiscard]] const std::vector<std::vector<std::string>>& all_commands();

}  // namespace blkferry::tools::test
