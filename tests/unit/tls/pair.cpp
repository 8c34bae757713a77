// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include "pair.hpp"

#include <boost/test/unit_test.hpp>

#include <array>
#include <cstdlib>
#include <random>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls/pki_cert.hpp"
#include "tls/pki_files.hpp"

namespace blkferry::tls::test {

TempDir::TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "blkferry-tls-XXXXXX").string();
    BOOST_REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
}
TempDir::~TempDir() {
    std::error_code err;
    std::filesystem::remove_all(path_, err);
}

World::World(std::string ca_name) {
    const auto made = pki::init(ca_dir(), ca_name);
    BOOST_REQUIRE_MESSAGE(made.has_value(), (made ? std::string() : made.error().text));
    for (const auto& [role, name] : {std::pair{Role::server, "replica"}, std::pair{Role::source, "web1"}}) {
        const auto issued = pki::issue(ca_dir(), role, name, 30, out());
        BOOST_REQUIRE_MESSAGE(issued.has_value(), (issued ? std::string() : issued.error().text));
    }
}

Files World::files(Role role, const std::string& name) const {
    const std::string stem = std::string(to_string(role)) + "-" + name;
    return {out() / (stem + ".pem"), out() / (stem + ".key"), ca_dir() / "ca.pem", {}};
}

void World::issue_dated(Role role, const std::string& name, long from_s, long to_s) const {
    const auto ca = parse_certs(read_text_file(ca_dir() / "ca.pem", 1 << 20).value(), "ca").value()[0].release();
    const CertPtr ca_cert(ca);
    const KeyPtr ca_key = parse_key(read_text_file(ca_dir() / "ca.key", 1 << 20).value(), "ca").value();
    const KeyPtr key = pki::make_key().value();
    const std::time_t now = std::time(nullptr);
    const CertPtr cert = pki::make_cert(*ca_cert, *ca_key, *key, {role, name}, {now + from_s, now + to_s}).value();
    const Files paths = files(role, name);
    BOOST_REQUIRE(pki::create_file_durable(paths.cert, pki::to_pem(*cert).value(), 0600));
    BOOST_REQUIRE(pki::create_file_durable(paths.key, pki::to_pem(*key).value(), 0600));
}

std::pair<Fd, Fd> socket_pair() {
    std::array<int, 2> fds{};
    BOOST_REQUIRE_EQUAL(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
    return {Fd(fds[0]), Fd(fds[1])};
}

std::pair<Fd, Fd> tcp_pair() {
    const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    BOOST_REQUIRE_EQUAL(::bind(listener.get(), raw, size), 0);
    BOOST_REQUIRE_EQUAL(::listen(listener.get(), 1), 0);
    BOOST_REQUIRE_EQUAL(::getsockname(listener.get(), raw, &size), 0);
    Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    BOOST_REQUIRE_EQUAL(::connect(client.get(), raw, size), 0);
    Fd server(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    BOOST_REQUIRE(server);
    BOOST_REQUIRE_EQUAL(::fcntl(client.get(), F_SETFL, O_NONBLOCK), 0);
    return {std::move(server), std::move(client)};
}

Handshake shake(std::optional<TlsStream>& server, std::optional<TlsStream>& client) {
    Handshake out;
    bool server_done = false;
    bool client_done = false;
    for (int round = 0; round < 10'000; ++round) {
        if (client && !client_done) {
            if (const auto r = client->handshake(); !r) {
                out.client_error = r.error();
                client.reset();
            } else {
                client_done = r->status == Status::done;
                if (r->status == Status::closed)
                    client.reset();
            }
        }
        if (server && !server_done) {
            if (const auto r = server->handshake(); !r) {
                out.server_error = r.error();
                server.reset();
            } else {
                server_done = r->status == Status::done;
                if (r->status == Status::closed)
                    server.reset();
            }
        }
        if (client_done && server_done) {
            out.ok = true;
            return out;
        }
        if (client && client_done && !server) {
            std::array<std::byte, 16> buffer{};
            const auto r = client->read(buffer);
            if (!r) {
                out.client_error = r.error();
                return out;
            }
            if (r->status == Status::closed)
                return out;
        }
        if (!client && !server)
            return out;
        if (!client && client_done)
            return out;
        std::array<pollfd, 2> fds{pollfd{client ? client->fd() : -1, POLLIN, 0},
                                  pollfd{server ? server->fd() : -1, POLLIN, 0}};
        (void)::poll(fds.data(), fds.size(), 1);
    }
    BOOST_FAIL("the handshake never ended");
    return out;
}

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::byte> data(size);
    for (auto& b : data)
        b = static_cast<std::byte>(random() & 0xff);
    return data;
}

}  // namespace blkferry::tls::test
