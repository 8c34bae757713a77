// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <fstream>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "pair.hpp"

using namespace blkferry;
using namespace blkferry::tls;
using namespace blkferry::tls::test;

namespace {

mode_t mode_of(const std::filesystem::path& path) {
    struct stat st {};
    BOOST_REQUIRE_EQUAL(::stat(path.c_str(), &st), 0);
    return st.st_mode & 07777;
}

std::string text_of(const std::filesystem::path& path) { return read_text_file(path, 1 << 20).value(); }

}  // namespace

BOOST_AUTO_TEST_SUITE(pki_suite)

BOOST_AUTO_TEST_CASE(keys_are_private_whatever_the_umask) {
    const mode_t before = ::umask(0);
    const World world;
    ::umask(before);
    for (const auto& path : {world.ca_dir() / "ca.key", world.source().key})
        BOOST_TEST(mode_of(path) == 0600u);
    for (const auto& path : {world.ca_dir() / "ca.pem", world.source().cert})
        BOOST_TEST(mode_of(path) == 0644u);
    BOOST_TEST(mode_of(world.ca_dir()) == 0700u);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(world.ca_dir().parent_path()))
        BOOST_TEST(entry.path().extension() != ".tmp");
}

BOOST_AUTO_TEST_CASE(nothing_is_overwritten) {
    const World world;
    const std::string key = text_of(world.ca_dir() / "ca.key");
    const auto again = pki::init(world.ca_dir(), "test");
    BOOST_REQUIRE(!again);
    BOOST_TEST((again.error().code == Errc::exists));
    BOOST_TEST(text_of(world.ca_dir() / "ca.key") == key);
    const std::string source_key = text_of(world.source().key);
    for (const char* gone : {"", "source-web1.pem"}) {
        if (*gone != '\0')
            std::filesystem::remove(world.out() / gone);
        const auto issued = pki::issue(world.ca_dir(), Role::source, "web1", 1, world.out());
        BOOST_REQUIRE(!issued);
        BOOST_TEST((issued.error().code == Errc::exists));
    }
    BOOST_TEST(text_of(world.source().key) == source_key);
    BOOST_TEST(pki::list(world.ca_dir())->size() == 2u);
}

BOOST_AUTO_TEST_CASE(bad_input_is_refused) {
    const World world;
    for (const std::string name : {"", "..", "a/b", "a b", "x\ny", "a,URI:blkferry:server:evil"})
        BOOST_TEST(!pki::issue(world.ca_dir(), Role::source, name, 1, world.out()));
    BOOST_TEST(!pki::issue(world.ca_dir(), Role::source, "x", 0, world.out()));
    BOOST_TEST(!pki::issue(world.ca_dir(), Role::source, "x", pki::days_max + 1, world.out()));
    for (const std::string serial : {"", "../ca", "xyz", "0"})
        BOOST_TEST(!pki::revoke(world.ca_dir(), serial));
    const auto no_ca = pki::issue(world.out(), Role::source, "x", 1, world.out());
    BOOST_REQUIRE(!no_ca);
    BOOST_TEST(no_ca.error().text.find("pki init") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(list_and_revoke) {
    const World world;
    const auto second = pki::issue(world.ca_dir(), Role::source, "web1", 7, world.out() / "new");
    BOOST_REQUIRE(second);
    auto listed = pki::list(world.ca_dir());
    BOOST_REQUIRE(listed);
    BOOST_TEST(listed->size() == 3u);
    for (const auto& l : *listed) {
        BOOST_TEST(!l.revoked);
        BOOST_TEST(l.not_after > l.not_before);
    }
    const auto revoked = pki::revoke(world.ca_dir(), second->serial);
    BOOST_REQUIRE(revoked);
    BOOST_TEST(revoked->identity.name == "web1");
    BOOST_REQUIRE(pki::revoke(world.ca_dir(), second->serial));  // once more changes nothing
    const auto rest = pki::revoke(world.ca_dir(), Identity{Role::source, "web1"});
    BOOST_REQUIRE(rest);
    BOOST_TEST(rest->size() == 1u);
    BOOST_TEST(rest->front().serial != second->serial);
    BOOST_TEST((pki::revoke(world.ca_dir(), Identity{Role::source, "web1"}).error().code == Errc::not_found));
    listed = pki::list(world.ca_dir());
    for (const auto& l : *listed)
        BOOST_TEST(l.revoked == (l.identity.role == Role::source));
}

BOOST_AUTO_TEST_CASE(openssl_accepts_what_we_make) {
    const World world;
    BOOST_REQUIRE(pki::revoke(world.ca_dir(), Identity{Role::source, "web1"}));
    const auto run = [](const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()); };
    const std::string ca = (world.ca_dir() / "ca.pem").string();
    BOOST_TEST(run(fmt::format("openssl verify -x509_strict -purpose sslserver -CAfile {} {}", ca,
                               world.server().cert.string())) == 0);
    BOOST_TEST(run(fmt::format("openssl verify -x509_strict -purpose sslclient -CAfile {} {}", ca,
                               world.source().cert.string())) == 0);
    BOOST_TEST(run(fmt::format("openssl verify -purpose sslclient -CAfile {} {}", ca, world.server().cert.string())) != 0);
    BOOST_TEST(run(fmt::format("openssl verify -crl_check -CRLfile {} -CAfile {} {}",
                               (world.ca_dir() / "ca.crl").string(), ca, world.source().cert.string())) != 0);
    BOOST_TEST(run(fmt::format("openssl verify -crl_check -CRLfile {} -CAfile {} {}",
                               (world.ca_dir() / "ca.crl").string(), ca, world.server().cert.string())) == 0);
}

BOOST_AUTO_TEST_CASE(a_request_is_signed_and_works) {
    const World world;
    const auto dir = world.out();
    const std::string command = fmt::format(
        "openssl req -new -newkey ed25519 -nodes -subj /CN=whatever -addext subjectAltName=URI:blkferry:server:evil "
        "-keyout {0}/source-edge.key -out {0}/edge.csr >/dev/null 2>&1 && chmod 600 {0}/source-edge.key",
        dir.string());
    BOOST_REQUIRE_EQUAL(std::system(command.c_str()), 0);
    const auto issued = pki::sign_request(world.ca_dir(), dir / "edge.csr", Role::source, "edge", 5, dir);
    BOOST_REQUIRE_MESSAGE(issued.has_value(), (issued ? std::string() : issued.error().text));
    BOOST_TEST(issued->key.empty());
    const auto server = TlsContext::make_server(world.server());
    const auto client = TlsContext::make_client(world.files(Role::source, "edge"));
    BOOST_REQUIRE_MESSAGE(client.has_value(), (client ? std::string() : client.error().text));
    auto sockets = socket_pair();
    std::optional<TlsStream> s = server->wrap(std::move(sockets.first), "c").value();
    std::optional<TlsStream> c = client->wrap(std::move(sockets.second), "s").value();
    BOOST_TEST(shake(s, c).ok);
    BOOST_TEST(s->peer_name() == "edge");
    // A request whose signature is wrong is not one.
    std::string csr = text_of(dir / "edge.csr");
    const std::size_t at = csr.size() / 2;
    csr[at] = csr[at] == 'A' ? 'B' : 'A';
    std::ofstream(dir / "bad.csr") << csr;
    BOOST_TEST(!pki::sign_request(world.ca_dir(), dir / "bad.csr", Role::source, "edge2", 5, dir));
    BOOST_TEST(!std::filesystem::exists(dir / "source-edge2.pem"));
}

BOOST_AUTO_TEST_SUITE_END()
