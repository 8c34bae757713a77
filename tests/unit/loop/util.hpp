// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/test/unit_test.hpp>

#include <array>
#include <functional>
#include <memory>
#include <utility>

#include <sys/socket.h>

#include "base/fd.hpp"
#include "loop/loop.hpp"

namespace blkferry::loop::test {

constexpr std::uint64_t ms = 1'000'000;
constexpr std::uint64_t patience = 20'000 * ms;

inline std::unique_ptr<Loop> make_loop(const LoopOptions& options = {}) {
    auto loop = Loop::create(options);
    BOOST_REQUIRE_MESSAGE(loop.has_value(), (loop ? std::string() : loop.error().text));
    return std::move(*loop);
}

/// Runs rounds until the condition holds; a condition that never does fails the test.
inline void run_until(Loop& loop, const std::function<bool()>& condition) {
    const std::uint64_t end = Loop::now_ns() + patience;
    while (!condition()) {
        BOOST_REQUIRE_LT(Loop::now_ns(), end);
        const auto r = loop.run_once(50 * ms);
        BOOST_REQUIRE(r.has_value());
    }
}

/// Some rounds in which nothing is expected to happen.
inline void run_rounds(Loop& loop, int rounds) {
    for (int i = 0; i < rounds; ++i)
        BOOST_REQUIRE(loop.run_once(ms).has_value());
}

inline std::pair<Fd, Fd> sockets() {
    std::array<int, 2> fds{};
    BOOST_REQUIRE_EQUAL(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
    return {Fd(fds[0]), Fd(fds[1])};
}

}  // namespace blkferry::loop::test
