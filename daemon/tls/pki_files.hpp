// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string_view>

#include "base/fd.hpp"

/// Durable files that are never overwritten; private to this library.
namespace blkferry::tls::pki {

/// Creates `path` with all of `text`, durable; Errc::exists if it is there. It appears whole or not at all.
[[nodiscard]] Result<void> create_file_durable(const std::filesystem::path& path, std::string_view text, mode_t mode);
/// Creates a folder (and its parents) with mode 0700 and makes its name durable; an existing one is fine.
[[nodiscard]] Result<void> make_dir(const std::filesystem::path& dir);
/// The exclusive lock of a CA's folder, held until the descriptor closes. Errc::busy is never told: it waits.
[[nodiscard]] Result<Fd> lock_dir(const std::filesystem::path& dir);

}  // namespace blkferry::tls::pki
