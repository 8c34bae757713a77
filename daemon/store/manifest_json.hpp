// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "store/manifest.hpp"

/// Private: the unchanging part of a manifest as JSON, shared by manifests and the checkpoint.
namespace blkferry::store {

[[nodiscard]] nlohmann::json manifest_core(const Manifest& m);
[[nodiscard]] Result<Manifest> manifest_core_from(const nlohmann::json& core);

}  // namespace blkferry::store
