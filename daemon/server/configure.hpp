// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/config.hpp"
#include "server/options.hpp"

namespace blkferry::server {

/// What the configuration file says, as options. Pure.
[[nodiscard]] ServerOptions options_of(const config::ServerConfig& config);

}  // namespace blkferry::server
