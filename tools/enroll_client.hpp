// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "config/units.hpp"
#include "net/proxy.hpp"
#include "proto/enrolment.hpp"

namespace blkferry::tools {

/// Asks a server for this source's first certificate: TCP (through a proxy if there is one), TLS to a server whose CA the token names, one
/// CERT_REQUEST, one CERT_REPLY. The token's secret leaves only after that server proved itself. Blocks for at most half a minute.
/// A refusal by the server is an error with its text.
[[nodiscard]] Result<proto::CertReply> ask_for_certificate(const config::Endpoint& server, const std::optional<net::Proxy>& proxy,
                                                           const proto::Token& token, const proto::CertRequest& request);

}  // namespace blkferry::tools
