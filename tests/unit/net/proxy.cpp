// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <fstream>
#include <sys/stat.h>

#include "../temp_dir.hpp"
#include "net/proxy.hpp"

using namespace blkferry;
using namespace blkferry::net;

namespace {

Result<ConnectReply::State> feed(ConnectReply& reply, std::string_view text) { return reply.feed(std::as_bytes(std::span(text))); }

Errc code_of(std::string_view answer) {
    ConnectReply reply;
    const auto state = feed(reply, answer);
    BOOST_REQUIRE_MESSAGE(!state, answer);
    return state.error().code;
}

}  // namespace

BOOST_AUTO_TEST_CASE(urls) {
    const auto plain = config::parse_proxy("http://proxy.example.org:8080");
    BOOST_REQUIRE(plain);
    BOOST_TEST(plain->at.str() == "proxy.example.org:8080");
    BOOST_TEST(plain->user == "");
    BOOST_TEST(config::parse_proxy("http://user@[2001:db8::1]/").value().at.str() == "[2001:db8::1]:3128");
    BOOST_TEST(config::parse_proxy("http://u@p").value().user == "u");
    for (const char* bad : {"", "proxy:3128", "https://proxy", "http://", "http://@proxy", "http://proxy:99999", "http://u:secret@proxy"}) {
        const auto r = config::parse_proxy(bad);
        BOOST_REQUIRE_MESSAGE(!r, bad);
        BOOST_TEST(r.error().text.find("secret") == std::string::npos);
    }
}

BOOST_AUTO_TEST_CASE(passwords_come_from_private_files) {
    const blkferry::test::TempDir dir("net");
    const std::string file = (dir.path / "password").string();
    std::ofstream(file) << "s e:cret\nsecond line\n";
    BOOST_REQUIRE(::chmod(file.c_str(), 0640) == 0);
    BOOST_TEST((read_password(file).error().code == Errc::denied));
    BOOST_REQUIRE(::chmod(file.c_str(), 0600) == 0);
    const auto proxy = make_proxy("http://user@proxy:3128", file);
    BOOST_REQUIRE(proxy);
    BOOST_TEST(proxy->password == "s e:cret");
    BOOST_TEST(connect_request(*proxy, {"2001:db8::2", 1500}) == "CONNECT [2001:db8::2]:1500 HTTP/1.1\r\nHost: [2001:db8::2]:1500\r\n"
                                                                 "Proxy-Authorization: Basic dXNlcjpzIGU6Y3JldA==\r\n\r\n");
    BOOST_TEST(!make_proxy("http://proxy:3128", file));
    BOOST_TEST(!make_proxy("http://user@proxy:3128", ""));
    BOOST_TEST(!make_proxy("http://user@proxy:3128", dir.path / "none"));
    std::ofstream(file, std::ios::trunc) << "\n";
    BOOST_TEST(!read_password(file));
}

BOOST_AUTO_TEST_CASE(answers_come_in_pieces) {
    const std::string answer = "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
    ConnectReply reply;
    for (std::size_t i = 0; i + 1 < answer.size(); ++i)
        BOOST_REQUIRE((feed(reply, answer.substr(i, 1)).value() == ConnectReply::State::need_more));
    BOOST_TEST((feed(reply, answer.substr(answer.size() - 1)).value() == ConnectReply::State::open));
}

BOOST_AUTO_TEST_CASE(refusals_and_nonsense) {
    BOOST_TEST((code_of("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") == Errc::denied));
    BOOST_TEST((code_of("HTTP/1.0 502 Bad\x01Gateway\r\n\r\n") == Errc::closed));
    BOOST_TEST((code_of("SSH-2.0-OpenSSH\r\n") == Errc::invalid));
    BOOST_TEST((code_of("HTTP/1.1 2x0 OK\r\n\r\n") == Errc::invalid));
    BOOST_TEST((code_of("HTTP/1.1\r\n\r\n") == Errc::invalid));
    BOOST_TEST((code_of("HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03") == Errc::invalid));
    BOOST_TEST((code_of("HTTP/1.1 200 OK\r\n" + std::string(ConnectReply::reply_bytes_max, 'x')) == Errc::invalid));
    ConnectReply reply;
    const auto state = feed(reply, "HTTP/1.0 502 Bad\x01Gateway\r\n\r\n");
    BOOST_TEST(state.error().text.find('\x01') == std::string::npos);
}
