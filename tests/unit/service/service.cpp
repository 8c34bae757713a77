// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "service/log.hpp"
#include "service/notify.hpp"

using namespace blkferry;
using namespace blkferry::service;

BOOST_AUTO_TEST_SUITE(service)

BOOST_AUTO_TEST_CASE(log_values_cannot_forge_lines) {
    BOOST_TEST(quote("plain-1.2:3/x") == "plain-1.2:3/x");
    BOOST_TEST(quote("") == "\"\"");
    BOOST_TEST(quote("a b") == "\"a b\"");
    BOOST_TEST(quote("a\nlevel=error x=\"y\\") == "\"a\\x0alevel=error x=\\\"y\\\\\"");
    BOOST_TEST(quote(std::string(2000, 'a')).size() < 600U);
}

BOOST_AUTO_TEST_CASE(a_log_holds_what_its_level_lets_through) {
    struct Lines final : Log {
        void write(Level level, std::string_view line) override {
            all.push_back(std::string(to_string(level)) + " " + std::string(line));
        }
        std::vector<std::string> all;
    } log;
    log.set_level(level_of(config::LogLevel::warning));
    log.debug("a");
    log.info("b={}", 1);
    log.warn("c={}", 2);
    log.error("d={}", 3);
    BOOST_TEST((log.all == std::vector<std::string>{"warn c=2", "error d=3"}));
    log.set_level(level_of(config::LogLevel::debug));
    log.debug("e");
    BOOST_TEST(log.all.size() == 3U);
}

BOOST_AUTO_TEST_CASE(systemd_is_told_in_its_words) {
    // An abstract datagram socket, as systemd has one.
    const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    BOOST_REQUIRE(socket);
    const std::string name = "blkferry-test-" + std::to_string(::getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path + 1, name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    BOOST_REQUIRE_EQUAL(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
    const auto told = [&] {
        std::string text(512, 0);
        const auto n = ::recv(socket.get(), text.data(), text.size(), MSG_DONTWAIT);
        text.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
        return text;
    };
    ::unsetenv("NOTIFY_SOCKET");
    notify::ready("unheard");
    BOOST_TEST(told().empty());
    ::setenv("NOTIFY_SOCKET", ("@" + name).c_str(), 1);
    notify::ready();
    BOOST_TEST(told() == "READY=1");
    notify::ready("3 sources");
    BOOST_TEST(told() == "READY=1\nSTATUS=3 sources");
    notify::status("busy");
    BOOST_TEST(told() == "STATUS=busy");
    notify::reloading();
    BOOST_TEST(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    notify::stopping();
    BOOST_TEST(told() == "STOPPING=1");
    notify::watchdog();
    BOOST_TEST(told() == "WATCHDOG=1");
    ::setenv("WATCHDOG_USEC", "30000000", 1);
    BOOST_TEST(notify::watchdog_interval_ns() == 10'000'000'000U);
    ::unsetenv("WATCHDOG_USEC");
    BOOST_TEST(notify::watchdog_interval_ns() == 0U);
    ::unsetenv("NOTIFY_SOCKET");
}

BOOST_AUTO_TEST_SUITE_END()
