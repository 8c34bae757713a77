// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "base/result.hpp"

namespace blkferry::test {

/// A new empty folder, gone with everything in it at the end. Under $TMPDIR, or `parent`.
class TempDir {
public:
    explicit TempDir(const std::string& name = "test", const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
        std::string pattern = (parent / ("blkferry-" + name + "-XXXXXX")).string();
        BLKFERRY_ASSERT(::mkdtemp(pattern.data()) != nullptr);
        path = pattern;
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    std::filesystem::path path;
};

}  // namespace blkferry::test
