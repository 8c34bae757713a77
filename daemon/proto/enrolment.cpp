// SPDX-License-Identifier: Apache-2.0
#include "proto/enrolment.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "proto/batch.hpp"
#include "proto/json_body.hpp"

namespace blkferry::proto {

namespace {

bool is_hex(std::string_view text, std::size_t bytes) {
    return text.size() == bytes &&
           std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

constexpr std::string_view token_prefix = "bf1-";

}  // namespace

void encode(const CertRequest& m, std::vector<std::byte>& out) {
    put({{"source", m.source},
         {"csr", m.csr},
         {"token_id", m.token_id},
         {"token_secret", m.token_secret},
         {"agent_version", m.agent_version}},
        out);
}

Result<CertRequest> decode_cert_request(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_object(body, "CERT_REQUEST"));
    Members in(j);
    CertRequest m;
    m.source = in.text("source", name_bytes_max);
    if (!valid_name(m.source))
        in.complain("source", "name of letters, digits, '.', '_' and '-'");
    m.csr = in.text("csr", csr_bytes_max);
    m.token_id = in.text("token_id", token_id_bytes);
    m.token_secret = in.text("token_secret", token_secret_bytes);
    const bool none = m.token_id.empty() && m.token_secret.empty();
    if (!none && (!is_hex(m.token_id, token_id_bytes) || !is_hex(m.token_secret, token_secret_bytes)))
        in.complain("token_id", "token's id, with its secret");
    m.agent_version = in.text("agent_version", name_bytes_max);
    if (!in.complaint().empty())
        return fail(Errc::invalid, fmt::format("CERT_REQUEST refused: {}", in.complaint()));
    return m;
}

void encode(const CertReply& m, std::vector<std::byte>& out) {
    put({{"code", m.code}, {"text", m.text.substr(0, text_bytes_max)}, {"cert", m.cert}, {"ca", m.ca}, {"server", m.server}}, out);
}

Result<CertReply> decode_cert_reply(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_object(body, "CERT_REPLY"));
    Members in(j);
    CertReply m;
    m.code = in.text("code", name_bytes_max);
    m.text = in.text("text");
    m.cert = in.text("cert", cert_bytes_max);
    m.ca = in.text("ca", cert_bytes_max);
    m.server = in.text("server", name_bytes_max);
    if (!in.complaint().empty())
        return fail(Errc::invalid, fmt::format("CERT_REPLY refused: {}", in.complaint()));
    return m;
}

std::string Token::str() const { return fmt::format("{}{}-{}-{}", token_prefix, id, secret, ca_fingerprint); }

Result<Token> Token::parse(std::string_view text) {
    constexpr std::string_view white = " \t\r\n";
    const std::size_t begin = text.find_first_not_of(white);
    text = begin == std::string_view::npos ? std::string_view() : text.substr(begin, text.find_last_not_of(white) - begin + 1);
    constexpr std::size_t bytes = token_prefix.size() + token_id_bytes + 1 + token_secret_bytes + 1 + fingerprint_bytes;
    const auto refused = [bytes] {
        return fail(Errc::invalid, fmt::format("this is no enrolment token: one line of {} characters that begins with {} is expected, as "
                                               "'blkferry-server enroll-token' prints it", bytes, token_prefix));
    };
    if (text.size() != bytes || !text.starts_with(token_prefix))
        return refused();
    text.remove_prefix(token_prefix.size());
    Token t;
    t.id = text.substr(0, token_id_bytes);
    t.secret = text.substr(token_id_bytes + 1, token_secret_bytes);
    t.ca_fingerprint = text.substr(token_id_bytes + token_secret_bytes + 2);
    if (text[token_id_bytes] != '-' || text[token_id_bytes + 1 + token_secret_bytes] != '-' || !is_hex(t.id, token_id_bytes) ||
        !is_hex(t.secret, token_secret_bytes) || !is_hex(t.ca_fingerprint, fingerprint_bytes))
        return refused();
    return t;
}

}  // namespace blkferry::proto
