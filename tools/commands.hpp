// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/options.hpp"

/// One function a command: does it, prints, and gives the exit status.
namespace blkferry::tools {

[[nodiscard]] Exit run(const Global& global, const StatusOptions& options);
[[nodiscard]] Exit run(const Global& global, const DisksOptions& options);
[[nodiscard]] Exit run(const Global& global, const ProtectOptions& options);
[[nodiscard]] Exit run(const Global& global, const UnprotectOptions& options);
[[nodiscard]] Exit run(const Global& global, const ThrottleOptions& options);
[[nodiscard]] Exit run(const Global& global, const MarkOptions& options);
[[nodiscard]] Exit run(const Global& global, const PointsOptions& options);
[[nodiscard]] Exit run(const Global& global, const DeleteOptions& options);
[[nodiscard]] Exit run(const Global& global, const VerifyOptions& options);
[[nodiscard]] Exit run(const Global& global, const ExportOptions& options);
[[nodiscard]] Exit run(const Global& global, const ServerStatusOptions& options);
[[nodiscard]] Exit run(const Global& global, const EnrollTokenOptions& options);
[[nodiscard]] Exit run(const Global& global, const TokensOptions& options);
[[nodiscard]] Exit run(const Global& global, const TokenRevokeOptions& options);
[[nodiscard]] Exit run(const Global& global, const RevokeOptions& options);
[[nodiscard]] Exit run(const Global& global, const EnrollOptions& options);
[[nodiscard]] Exit run(const Global& global, const UninstallOptions& options);
[[nodiscard]] Exit run(const Global& global, const ServerInitOptions& options);
[[nodiscard]] Exit run(const Global& global, const PkiInitOptions& options);
[[nodiscard]] Exit run(const Global& global, const PkiIssueOptions& options);
[[nodiscard]] Exit run(const Global& global, const PkiRevokeOptions& options);
[[nodiscard]] Exit run(const Global& global, const PkiListOptions& options);
[[nodiscard]] Exit run(const Global& global, const ConfigCheckOptions& options);
[[nodiscard]] Exit run(const Global& global, const ConfigDefaultOptions& options);
[[nodiscard]] Exit run(const Global& global, const CompletionOptions& options);

}  // namespace blkferry::tools
