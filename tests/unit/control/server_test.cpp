// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/client.hpp"
#include "control/server.hpp"

using namespace blkferry;
using namespace blkferry::control;

namespace {

constexpr std::uint64_t ms = 1'000'000;

struct Fixture {
    std::filesystem::path dir;
    std::unique_ptr<loop::Loop> loop = std::move(*loop::Loop::create());
    std::unique_ptr<ControlServer> server;
    std::vector<Reply> held;
    std::vector<loop::Timer> timers;

    explicit Fixture(const ServerOptions& options = {}) {
        std::string name = "/tmp/blkferry-control-XXXXXX";
        BOOST_REQUIRE(::mkdtemp(name.data()) != nullptr);
        dir = name;
        auto made = ControlServer::create(*loop, path(), options);
        BOOST_REQUIRE_MESSAGE(made.has_value(), (made ? std::string() : made.error().text));
        server = std::move(*made);
        server->on("echo", [](const Json& request, Reply reply) { reply.done(Json{{"got", request}}); });
        server->on("hold", [this](const Json&, Reply reply) { held.push_back(std::move(reply)); });
        server->on("drop", [](const Json&, Reply) {});
        server->on("count", [](const Json& request, Reply reply) {
            const auto n = need_u64(request, "n");
            if (!n)
                return reply.fail(n.error());
            for (std::uint64_t i = 0; i < *n; ++i)
                reply.line(Json{{"i", i}, {"pad", std::string(request.value("pad", 0U), 'x')}});
            reply.done(Json{{"n", *n}});
        });
        server->on("later", [this](const Json&, Reply reply) {
            timers.push_back(loop->after(5 * ms, [r = std::move(reply)]() mutable {
                r.line(Json{{"progress", 50}});
                r.done();
            }));
        });
    }
    ~Fixture() {
        server.reset();
        std::error_code err;
        std::filesystem::remove_all(dir, err);
    }
    [[nodiscard]] std::filesystem::path path() const { return dir / "a.sock"; }

    void until(const std::function<bool()>& condition) const {
        const std::uint64_t end = loop::Loop::now_ns() + 20'000 * ms;
        while (!condition()) {
            BOOST_REQUIRE_LT(loop::Loop::now_ns(), end);
            BOOST_REQUIRE(loop->run_once(10 * ms).has_value());
        }
    }
    /// Runs `client` in a thread while the loop runs here.
    void with_client(const std::function<void()>& client) {
        std::thread thread([&] {
            client();
            loop->stop();
        });
        BOOST_TEST(loop->run().has_value());
        thread.join();
    }
};

// Boost.Test's checks are for one thread; these collect in the client's thread and are checked in the main one.
struct Raw {
    Fd fd;
    explicit Raw(const std::filesystem::path& path) : fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
        if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
            fd.reset();
    }
    [[nodiscard]] ssize_t put(std::string_view text) const {
        return ::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    /// All that can be read now; nullopt: closed.
    [[nodiscard]] std::optional<std::string> take() const {
        std::array<char, 65536> data;
        const ssize_t n = ::recv(fd.get(), data.data(), data.size(), MSG_DONTWAIT);
        if (n > 0)
            return std::string(data.data(), static_cast<std::size_t>(n));
        return n == 0 || errno == ECONNRESET ? std::nullopt : std::optional<std::string>("");
    }
};

// Reads until the server closes.
std::string read_all(const Fixture& f, const Raw& raw) {
    std::string all;
    f.until([&] {
        const auto part = raw.take();
        if (part)
            all += *part;
        return !part;
    });
    return all;
}
std::string read_line(const Fixture& f, const Raw& raw) {
    std::string all;
    f.until([&] {
        all += raw.take().value_or("");
        return all.ends_with('\n');
    });
    return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(server)

BOOST_AUTO_TEST_CASE(answers_at_once_and_later_with_lines_between) {
    Fixture f;
    Result<Json> echo = Json();
    Result<Json> later = Json();
    Result<Json> count = Json();
    std::vector<Json> lines;
    f.with_client([&] {
        auto client = Client::connect(f.path());
        echo = client->call(Json{{"cmd", "echo"}, {"x", 1}});
        later = client->call(Json{{"cmd", "later"}}, [&](const Json& line) { lines.push_back(line); });
        count = client->call(Json{{"cmd", "count"}, {"n", 1000}}, [&](const Json& line) { lines.push_back(line); });
    });
    BOOST_REQUIRE(echo);
    BOOST_TEST((*echo)["got"]["x"] == 1);
    BOOST_TEST((*echo)["ok"] == true);
    BOOST_REQUIRE(later);
    BOOST_REQUIRE(count);
    BOOST_TEST(lines.size() == 1001u);
    BOOST_TEST(lines[0]["progress"] == 50);
    BOOST_TEST(lines[1000]["i"] == 999);
}

BOOST_AUTO_TEST_CASE(errors_come_with_code_and_text) {
    Fixture f;
    Result<Json> unknown = Json();
    Result<Json> missing = Json();
    Result<Json> dropped = Json();
    f.with_client([&] {
        auto client = Client::connect(f.path());
        unknown = client->call(Json{{"cmd", "nonsense"}});
        missing = client->call(Json{{"cmd", "count"}});
        dropped = client->call(Json{{"cmd", "drop"}});
    });
    BOOST_REQUIRE(!unknown);
    BOOST_TEST((unknown.error().code == Errc::unsupported));
    BOOST_TEST(unknown.error().text.find("nonsense") != std::string::npos);
    BOOST_TEST((missing.error().code == Errc::invalid));
    BOOST_TEST((dropped.error().code == Errc::io));
}

BOOST_AUTO_TEST_CASE(bad_lines_are_answered_and_the_connection_goes_on) {
    Fixture f;
    const Raw raw(f.path());
    for (const char* line : {"garbage\n", "[]\n", "{\"cmd\":5}\n", "{}\n", "\n"}) {
        BOOST_REQUIRE_GT(raw.put(line), 0);
        BOOST_TEST(read_line(f, raw).find("\"invalid\"") != std::string::npos);
    }
    BOOST_REQUIRE_GT(raw.put("{\"cmd\":\"echo\"}\n"), 0);
    BOOST_TEST(read_line(f, raw).find("\"ok\":true") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_line_without_end_is_refused_and_closed) {
    Fixture f;
    const Raw raw(f.path());
    const std::string chunk(16'000, 'x');
    f.until([&] { return raw.put(chunk) < 0 && errno == EPIPE; });
    BOOST_TEST(read_all(f, raw).find("longer than 65536 bytes") != std::string::npos);
    BOOST_TEST(f.server->connections() == 0u);
}

BOOST_AUTO_TEST_CASE(requests_of_one_client_wait_for_each_other) {
    Fixture f;
    const Raw raw(f.path());
    BOOST_REQUIRE_GT(raw.put("{\"cmd\":\"hold\"}\n{\"cmd\":\"echo\",\"x\":2}\n"), 0);
    f.until([&] { return f.held.size() == 1; });
    for (int i = 0; i < 5; ++i)
        BOOST_REQUIRE(f.loop->run_once(ms).has_value());
    BOOST_TEST(raw.take().value_or("closed") == "");
    f.held.front().done(Json{{"first", true}});
    const std::string all = read_line(f, raw);
    BOOST_TEST(all.find("first") < all.find("\"x\":2"));
    BOOST_TEST(all.find("\"x\":2") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_client_that_pours_requests_is_held_back) {
    Fixture f;
    const Raw raw(f.path());
    BOOST_REQUIRE_GT(raw.put("{\"cmd\":\"hold\"}\n"), 0);
    f.until([&] { return f.held.size() == 1; });
    const std::string line = "{\"cmd\":\"echo\"}\n";
    std::size_t sent = 0;
    int refused = 0;
    while (refused < 20) {
        const ssize_t n = raw.put(line);
        if (n > 0) {
            BOOST_REQUIRE_EQUAL(n, static_cast<ssize_t>(line.size()));
            ++sent;
        } else {
            ++refused;
        }
        BOOST_REQUIRE(f.loop->run_once(n > 0 ? 0 : ms).has_value());
        BOOST_REQUIRE_LT(sent, 1'000'000u);
    }
    f.held.front().done();
    // All that were taken are answered, in spite of it.
    std::size_t answers = 0;
    f.until([&] {
        const std::string part = raw.take().value_or("");
        answers += static_cast<std::size_t>(std::count(part.begin(), part.end(), '\n'));
        return answers == sent + 1;
    });
}

BOOST_AUTO_TEST_CASE(a_client_that_goes_away_is_noticed) {
    Fixture f;
    {
        const Raw raw(f.path());
        BOOST_REQUIRE_GT(raw.put("{\"cmd\":\"hold\"}\n"), 0);
        f.until([&] { return f.held.size() == 1; });
        BOOST_TEST(!f.held.front().abandoned());
    }
    f.until([&] { return f.server->connections() == 0; });
    BOOST_TEST(f.held.front().abandoned());
    f.held.front().line(Json::object());
    f.held.front().done();
}

BOOST_AUTO_TEST_CASE(a_client_that_ended_sending_gets_its_answers) {
    Fixture f;
    const Raw raw(f.path());
    BOOST_REQUIRE_GT(raw.put("{\"cmd\":\"later\"}\n{\"cmd\":\"echo\"}\n"), 0);
    BOOST_REQUIRE_EQUAL(::shutdown(raw.fd.get(), SHUT_WR), 0);
    const std::string all = read_all(f, raw);
    BOOST_TEST(std::count(all.begin(), all.end(), '\n') == 3);
    BOOST_TEST(f.server->connections() == 0u);
}

BOOST_AUTO_TEST_CASE(a_client_that_does_not_read_is_dropped) {
    Fixture f({.pending_bytes_max = 1U << 20});
    const Raw deaf(f.path());
    BOOST_REQUIRE_GT(deaf.put("{\"cmd\":\"count\",\"n\":5000,\"pad\":1000}\n"), 0);
    f.until([&] { return f.server->connections() == 0; });
    Fixture g({.stall_ns_max = 10 * ms});
    const Raw slow(g.path());
    BOOST_REQUIRE_GT(slow.put("{\"cmd\":\"count\",\"n\":2000,\"pad\":1000}\n"), 0);
    g.until([&] { return g.server->connections() == 1; });
    g.until([&] { return g.server->connections() == 0; });
}

BOOST_AUTO_TEST_CASE(a_request_that_does_not_end_is_closed_however_often_a_byte_comes) {
    Fixture f({.line_ns_max = 50 * ms});
    const Raw slow(f.path());
    const Raw waiting(f.path());
    BOOST_REQUIRE_GT(waiting.put("{\"cmd\":\"hold\"}\n{\"cmd\":"), 0);  // the second request waits behind the first: that is no fault
    std::string all;
    std::uint64_t next_ns = 0;
    f.until([&] {
        // Not as fast as this loop turns: that would soon be a request that is too long.
        if (const std::uint64_t now_ns = loop::Loop::now_ns(); now_ns >= next_ns) {
            (void)slow.put(" ");
            next_ns = now_ns + 5 * ms;
        }
        const auto part = slow.take();
        all += part.value_or("");
        return !part;
    });
    BOOST_TEST(all.find("did not come to its end in time") != std::string::npos);
    BOOST_TEST(f.held.size() == 1u);
    BOOST_TEST(f.server->connections() == 1u);
    BOOST_REQUIRE_GT(waiting.put("\"echo\"}\n"), 0);
    f.held.front().done();
    BOOST_TEST(read_line(f, waiting).find("\"ok\":true") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(an_idle_client_is_closed_but_not_one_that_waits) {
    Fixture f({.idle_ns_max = 10 * ms});
    const Raw idle(f.path());
    const Raw waiting(f.path());
    BOOST_REQUIRE_GT(waiting.put("{\"cmd\":\"hold\"}\n"), 0);
    f.until([&] { return f.held.size() == 1 && f.server->connections() == 2; });
    f.until([&] { return f.server->connections() == 1; });
    BOOST_TEST(!idle.take().has_value());
    BOOST_TEST(waiting.take().has_value());
    f.held.clear();
    BOOST_TEST(read_line(f, waiting).find("dropped") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(too_many_clients_are_told_so) {
    Fixture f({.connections_max = 2});
    const Raw a(f.path());
    const Raw b(f.path());
    f.until([&] { return f.server->connections() == 2; });
    const Raw c(f.path());
    BOOST_TEST(read_all(f, c).find("\"busy\"") != std::string::npos);
    BOOST_TEST(f.server->connections() == 2u);
}

BOOST_AUTO_TEST_CASE(the_socket_is_private_and_the_peer_is_checked) {
    Fixture f;
    struct stat st {};
    BOOST_REQUIRE_EQUAL(::stat(f.path().c_str(), &st), 0);
    BOOST_TEST((st.st_mode & 0777) == 0600u);
    if (::geteuid() != 0) {
        BOOST_TEST_MESSAGE("not root: no other user to try");
        return;
    }
    // Somebody opened the socket to all by hand: the check of the peer's user still holds.
    BOOST_REQUIRE_EQUAL(::chmod(f.dir.c_str(), 0755), 0);
    BOOST_REQUIRE_EQUAL(::chmod(f.path().c_str(), 0666), 0);
    const pid_t child = ::fork();
    BOOST_REQUIRE_GE(child, 0);
    if (child == 0) {
        if (::setgid(65534) != 0 || ::setuid(65534) != 0)
            ::_exit(2);
        const auto client = [&] {
            auto c = Client::connect(f.path());
            return c ? c->call(Json{{"cmd", "echo"}}) : Result<Json>(std::unexpected(c.error()));
        }();
        ::_exit(!client && client.error().code == Errc::denied ? 0 : 1);
    }
    int status = 0;
    f.until([&] { return ::waitpid(child, &status, WNOHANG) == child; });
    BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_stale_socket_is_replaced_and_a_live_one_is_not) {
    Fixture f;
    const auto second = ControlServer::create(*f.loop, f.path());
    BOOST_REQUIRE(!second);
    BOOST_TEST((second.error().code == Errc::exists));
    // As a killed daemon leaves it: the name is there, nobody holds it.
    const std::filesystem::path stale = f.dir / "stale.sock";
    {
        const Fd bound(::socket(AF_UNIX, SOCK_STREAM, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, stale.c_str(), sizeof address.sun_path - 1);
        BOOST_REQUIRE_EQUAL(::bind(bound.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    }
    BOOST_TEST(ControlServer::create(*f.loop, stale).has_value());
    std::ofstream(f.dir / "file") << "precious";
    BOOST_TEST(!ControlServer::create(*f.loop, f.dir / "file"));
    BOOST_TEST(std::filesystem::exists(f.dir / "file"));
    BOOST_TEST(!ControlServer::create(*f.loop, f.dir / std::string(120, 'x')));
    BOOST_TEST(!ControlServer::create(*f.loop, f.dir / "file" / "a.sock"));
    BOOST_TEST(ControlServer::create(*f.loop, f.dir / "made" / "a.sock").has_value());
}

BOOST_AUTO_TEST_CASE(shutting_down_answers_what_is_owed) {
    Fixture f;
    const Raw idle(f.path());
    const Raw raw(f.path());
    BOOST_REQUIRE_GT(raw.put("{\"cmd\":\"hold\"}\n"), 0);
    f.until([&] { return f.held.size() == 1; });
    f.server->shut_down();
    BOOST_TEST(!std::filesystem::exists(f.path()));
    BOOST_TEST(read_all(f, idle).empty());
    f.held.front().done();
    BOOST_TEST(read_all(f, raw).find("\"ok\":true") != std::string::npos);
    f.server.reset();
    f.held.clear();
}

BOOST_AUTO_TEST_CASE(replies_outlive_the_server_and_handlers_may_destroy_it) {
    Fixture f;
    f.server->on("suicide", [&](const Json&, Reply reply) {
        f.server.reset();
        reply.done();
    });
    const Raw holder(f.path());
    BOOST_REQUIRE_GT(holder.put("{\"cmd\":\"hold\"}\n"), 0);
    f.until([&] { return f.held.size() == 1; });
    const Raw raw(f.path());
    BOOST_REQUIRE_GT(raw.put("{\"cmd\":\"suicide\"}\n"), 0);
    f.until([&] { return !f.server; });
    BOOST_TEST(f.held.front().abandoned());
    f.held.clear();
    BOOST_REQUIRE(f.loop->run_once(ms).has_value());
}

BOOST_AUTO_TEST_CASE(the_client_says_what_is_wrong) {
    const auto none = Client::connect("/nonexistent/blkferry/agent.sock");
    BOOST_REQUIRE(!none);
    BOOST_TEST((none.error().code == Errc::not_found));
    BOOST_TEST(none.error().text.find("is the daemon running?") != std::string::npos);
    Fixture f;
    Result<Json> silent = Json();
    Result<Json> closed = Json();
    f.with_client([&] {
        auto client = Client::connect(f.path());
        silent = client->call(Json{{"cmd", "hold"}}, {}, 20);
        auto second = Client::connect(f.path());
        f.loop->post([&] { f.server.reset(); });
        closed = second->call(Json{{"cmd", "hold"}});
    });
    BOOST_TEST((silent.error().code == Errc::timeout));
    BOOST_TEST(!closed);
}

BOOST_AUTO_TEST_SUITE_END()
