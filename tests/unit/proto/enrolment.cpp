// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <nlohmann/json.hpp>

#include "proto/enrolment.hpp"

using namespace blkferry;
using namespace blkferry::proto;
using nlohmann::json;

namespace {

const std::string id(token_id_bytes, 'a');
const std::string secret(token_secret_bytes, '1');
const std::string pin(fingerprint_bytes, 'f');

Result<CertRequest> decode(const json& j) {
    const std::string text = j.dump();
    return decode_cert_request(std::as_bytes(std::span(text)));
}

json request() { return {{"source", "web1"}, {"csr", "x"}, {"token_id", id}, {"token_secret", secret}, {"agent_version", "1"}}; }

}  // namespace

BOOST_AUTO_TEST_CASE(tokens_are_taken_as_they_are_given) {
    const Token t{id, secret, pin};
    BOOST_TEST((Token::parse(t.str()).value() == t));
    BOOST_TEST((Token::parse(" \t" + t.str() + "\r\n").value() == t));
    for (const std::string& bad : {std::string(), t.str() + "0", t.str().substr(1), "bf2" + t.str().substr(3), t.str() + " " + t.str(),
                                   Token{id, secret, std::string(fingerprint_bytes, 'g')}.str(), Token{std::string(token_id_bytes, 'A'), secret, pin}.str()}) {
        const auto r = Token::parse(bad);
        BOOST_REQUIRE_MESSAGE(!r, bad);
        BOOST_TEST(r.error().text.find(secret) == std::string::npos);
    }
}

BOOST_AUTO_TEST_CASE(certificate_messages_round_trip) {
    const CertRequest request{.source = "web1", .csr = "pem", .token_id = id, .token_secret = secret, .agent_version = "1"};
    std::vector<std::byte> out;
    encode(request, out);
    BOOST_TEST((decode_cert_request(out).value() == request));
    const CertReply reply{.code = "denied", .text = "no", .cert = "a", .ca = "b", .server = "s"};
    out.clear();
    encode(reply, out);
    BOOST_TEST((decode_cert_reply(out).value() == reply));
}

BOOST_AUTO_TEST_CASE(each_member_of_a_request_is_checked) {
    BOOST_REQUIRE(decode(request()));
    const auto refused = [](const char* key, const json& value) {
        json j = request();
        j[key] = value;
        const auto r = decode(j);
        BOOST_REQUIRE_MESSAGE(!r, key);
        BOOST_TEST(r.error().text.find(key) != std::string::npos, r.error().text);
    };
    refused("source", "../x");
    refused("source", "");
    refused("csr", std::string(csr_bytes_max + 1, 'x'));
    refused("csr", 5);
    refused("token_id", "");
    refused("token_id", std::string(token_id_bytes, 'Z'));
    refused("token_id", id + "a");
    refused("token_secret", secret + "1");
    json none = request();
    none["token_id"] = none["token_secret"] = "";
    BOOST_TEST(decode(none).has_value());  // a renewal
}
