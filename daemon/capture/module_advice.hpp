// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace blkferry::capture {

/// What to do when the kernel module is not there: load it, or, where the kernel loads signed modules only
/// (module.sig_enforce, or lockdown, which Secure Boot switches on), have it signed by a key that the kernel trusts.
/// Reads /sys/module/module/parameters/sig_enforce and /sys/kernel/security/lockdown
/// (Documentation/admin-guide/module-signing.rst, kernel_lockdown(7)) below `root`; never fails.
[[nodiscard]] std::string module_advice(const std::filesystem::path& root = "/");

}  // namespace blkferry::capture
