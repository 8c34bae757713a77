// SPDX-License-Identifier: Apache-2.0
#include "agent/renewal.hpp"

#include <fmt/format.h>

#include "base/fd.hpp"
#include "control/message.hpp"

namespace blkferry::agent {

namespace {
constexpr std::size_t pem_bytes_max = 1U << 20;
}  // namespace

Result<tls::Request> Renewal::begin(const Files& files, const tls::Identity& identity) {
    if (files.one_file())
        return tls::make_request(identity);
    BLKFERRY_TRY_ASSIGN(const std::string key, tls::read_key_file(files.key));
    return tls::make_request(identity, key, files.key.string());
}

Result<void> Renewal::finish(const Files& files, const tls::Identity& identity, const tls::Request& request, const proto::CertReply& reply) {
    if (!reply.code.empty())
        return fail(control::errc_of(reply.code), fmt::format("the server does not renew the certificate: {}", reply.text));
    // The CA that this end trusts, not the one in the answer: a server cannot move a source to another CA.
    BLKFERRY_TRY_ASSIGN(const std::string ca, read_text_file(files.ca, pem_bytes_max));
    BLKFERRY_TRY(tls::check_certificate(reply.cert, request.key_pem, ca, identity));
    auto written = files.one_file() ? write_file_durable(files.cert, request.key_pem + reply.cert, 0600)
                                    : write_file_durable(files.cert, reply.cert, 0644);
    if (!written)
        return std::unexpected(std::move(written).error().with(
            "the new certificate cannot be written; the agent needs a folder of its own for it, as 'blkferry enroll' makes it"));
    return {};
}

}  // namespace blkferry::agent
