// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "util.hpp"

using namespace blkferry;
using namespace blkferry::loop;
using namespace blkferry::loop::test;

namespace {

Fd temp_file() {
    std::string name = "/tmp/blkferry-loop-XXXXXX";
    Fd fd(::mkostemp(name.data(), O_CLOEXEC));
    BOOST_REQUIRE(fd);
    ::unlink(name.c_str());
    return fd;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(io)

BOOST_AUTO_TEST_CASE(thousands_of_writes_and_reads_through_a_small_queue) {
    auto loop = make_loop({.entries = 16});
    const Fd file = temp_file();
    constexpr std::size_t count = 4000;
    constexpr std::size_t size = 512;
    std::size_t done = 0;
    for (std::size_t i = 0; i < count; ++i) {
        auto buffer = std::make_shared<std::vector<std::byte>>(size, static_cast<std::byte>(i % 251));
        const std::span<const std::byte> data = *buffer;
        loop->write(file.get(), data, i * size, [&done, buffer](std::int32_t r) {
                BOOST_REQUIRE_EQUAL(r, static_cast<std::int32_t>(size));
                ++done;
            }).detach();
    }
    run_until(*loop, [&] { return done == count; });
    int synced = 1;
    const Io sync = loop->fdatasync(file.get(), [&](std::int32_t r) { synced = r; });
    run_until(*loop, [&] { return !sync.pending(); });
    BOOST_TEST(synced == 0);
    const Io full = loop->fsync(file.get(), [&](std::int32_t r) { synced = r + 2; });
    run_until(*loop, [&] { return !full.pending(); });
    BOOST_TEST(synced == 2);

    done = 0;
    std::size_t wrong = 0;
    std::vector<Io> handles;
    std::vector<std::vector<std::byte>> buffers(count, std::vector<std::byte>(size));
    for (std::size_t i = 0; i < count; ++i)
        handles.push_back(loop->read(file.get(), buffers[i], i * size, [&, i](std::int32_t r) {
            ++done;
            if (r != static_cast<std::int32_t>(size) || buffers[i].back() != static_cast<std::byte>(i % 251))
                ++wrong;
        }));
    run_until(*loop, [&] { return done == count; });
    BOOST_TEST(wrong == 0u);
    for (const Io& h : handles)
        BOOST_TEST(!h.pending());
}

BOOST_AUTO_TEST_CASE(pieces) {
    auto loop = make_loop();
    const Fd file = temp_file();
    std::array<char, 3> a = {'a', 'b', 'c'};
    std::array<char, 2> b = {'d', 'e'};
    std::int32_t result = 0;
    {
        const std::array<iovec, 2> list = {iovec{a.data(), a.size()}, iovec{b.data(), b.size()}};
        loop->writev(file.get(), list, 10, [&](std::int32_t r) { result = r; }).detach();
    }
    run_until(*loop, [&] { return result != 0; });
    BOOST_TEST(result == 5);
    std::array<char, 5> back{};
    BOOST_TEST(::pread(file.get(), back.data(), 5, 10) == 5);
    BOOST_TEST(std::string(back.data(), 5) == "abcde");
}

BOOST_AUTO_TEST_CASE(errors_and_end_of_file) {
    auto loop = make_loop();
    const Fd file = temp_file();
    std::vector<std::byte> buffer(100);
    std::optional<std::int32_t> eof;
    std::optional<std::int32_t> bad;
    const Io a = loop->read(file.get(), buffer, 0, [&](std::int32_t r) { eof = r; });
    const Io b = loop->write(9999, buffer, 0, [&](std::int32_t r) { bad = r; });
    run_until(*loop, [&] { return eof && bad; });
    BOOST_TEST(*eof == 0);
    BOOST_TEST(*bad == -EBADF);
}

// The buffer belongs to the callback: it lives until the kernel is done, though the handle is gone.
BOOST_AUTO_TEST_CASE(cancelled_in_flight_keeps_the_buffer) {
    auto loop = make_loop();
    auto [a, b] = sockets();
    auto buffer = std::make_shared<std::vector<std::byte>>(100);
    const std::weak_ptr<std::vector<std::byte>> alive = buffer;
    const std::span<std::byte> span = *buffer;
    std::optional<Io> op =
        loop->read(a.get(), span, 0, [buffer](std::int32_t) { BOOST_ERROR("a cancelled operation called back"); });
    buffer.reset();
    run_rounds(*loop, 2);
    BOOST_TEST(op->pending());
    BOOST_TEST(!alive.expired());
    op.reset();
    BOOST_TEST(!alive.expired());  // the cancel is only on its way
    run_until(*loop, [&] { return alive.expired(); });
    BOOST_TEST(loop->in_flight() == 1u);
}

BOOST_AUTO_TEST_CASE(own_handle_destroyed_in_the_callback) {
    auto loop = make_loop();
    const Fd file = temp_file();
    std::vector<std::byte> buffer(512);
    std::optional<Io> op;
    int chain = 0;
    std::function<void()> next = [&] {
        op = loop->write(file.get(), buffer, 0, [&](std::int32_t) {
            op.reset();
            if (++chain < 1000)
                next();
        });
    };
    next();
    run_until(*loop, [&] { return chain == 1000; });
}

BOOST_AUTO_TEST_CASE(loop_destroyed_with_operations_in_flight) {
    auto [a, b] = sockets();
    const Fd file = temp_file();
    std::vector<std::weak_ptr<std::vector<std::byte>>> alive;
    Io survivor;
    {
        auto loop = make_loop({.entries = 8});
        for (int i = 0; i < 200; ++i) {
            auto buffer = std::make_shared<std::vector<std::byte>>(4096);
            alive.emplace_back(buffer);
            const std::span<std::byte> span = *buffer;
            // Half of them never end by themselves.
            Io op = loop->read(i % 2 == 0 ? a.get() : file.get(), span, 0,
                               [buffer](std::int32_t) {});
            if (i == 0)
                survivor = std::move(op);
            else
                op.detach();
        }
        run_rounds(*loop, 1);
    }
    survivor.reset();
    for (const auto& w : alive)
        BOOST_TEST(w.expired());
}

BOOST_AUTO_TEST_CASE(many_cancels_at_once) {
    auto loop = make_loop({.entries = 4});
    auto [a, b] = sockets();
    std::vector<Io> ops;
    std::vector<std::byte> buffer(16);
    for (int round = 0; round < 5; ++round) {
        for (int i = 0; i < 500; ++i)
            ops.push_back(loop->read(a.get(), buffer, 0, [](std::int32_t) { BOOST_ERROR("called"); }));
        if (round % 2 == 0)
            run_rounds(*loop, 1);
        ops.clear();
    }
    run_until(*loop, [&] { return loop->in_flight() == 1; });
}

BOOST_AUTO_TEST_SUITE_END()
