// SPDX-License-Identifier: Apache-2.0
#include "harness.hpp"

#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <cstdlib>

#include "tls/pki.hpp"

namespace blkferry::server::test {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {
constexpr auto patience = 30s;

Uuid fixed(std::string_view text) {
    Uuid u;
    const auto hash = sha256(std::as_bytes(std::span(text)));
    for (std::size_t i = 0; i < u.bytes.size(); ++i)
        u.bytes[i] = std::to_integer<std::uint8_t>(hash[i]);
    return u;
}
}  // namespace

void MemoryLog::write(Level level, std::string_view line) {
    const std::lock_guard guard(lock_);
    text_ += fmt::format("{} {}\n", to_string(level), line);
}

std::size_t MemoryLog::count(std::string_view part) const {
    const std::lock_guard guard(lock_);
    std::size_t n = 0;
    for (std::size_t at = text_.find(part); at != std::string::npos; at = text_.find(part, at + 1))
        ++n;
    return n;
}

std::string MemoryLog::all() const {
    const std::lock_guard guard(lock_);
    return text_;
}

bool MemoryLog::wait_for(std::string_view part) const {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (count(part) == 0) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

Harness::Harness() {
    std::string name = (fs::temp_directory_path() / "blkferry-server-XXXXXX").string();
    BOOST_REQUIRE(::mkdtemp(name.data()) != nullptr);
    dir = name;
    fs::create_directory(dir / "certs");
    BOOST_REQUIRE(tls::pki::init(dir / "ca", "test", 30));
    const auto cert = tls::pki::issue(dir / "ca", tls::Role::server, "replica", 30, dir / "certs");
    BOOST_REQUIRE(cert);
    options.listen = {"127.0.0.1:0"};
    options.store_dir = dir / "store";
    options.tls = {.cert = cert->cert, .key = cert->key, .ca = dir / "ca" / "ca.pem", .crl = {}};
    options.heartbeat_ns = 100'000'000;
    options.disk_reserve_bytes = 0;
    options.store.source.journal.segment_bytes = 4U << 20;
    options.store.source.applier.chunk_bytes = 1U << 20;
    log.set_level(Level::debug);
}

Harness::~Harness() {
    crash();
    BOOST_TEST_MESSAGE(log.all());  // shown with --log_level=message
    std::error_code ignored;
    fs::remove_all(dir, ignored);
}

void Harness::start() {
    BOOST_REQUIRE(!loop_);
    auto loop = loop::Loop::create();
    BOOST_REQUIRE_MESSAGE(loop, "cannot make a loop");
    loop_ = std::move(*loop);
    auto server = Server::create(*loop_, clock_, log, options);
    if (!server) {
        loop_.reset();
        BOOST_FAIL(server.error().text);
    }
    server_ = std::move(*server);
    port = server_->ports().front();
    thread_ = std::thread([this] { (void)loop_->run(); });
}

void Harness::crash() {
    if (!loop_)
        return;
    loop_->stop();
    thread_.join();
    server_.reset();
    loop_.reset();
}

void Harness::stop() {
    loop_->post([this] { server_->stop([this] { loop_->stop(); }); });
    thread_.join();
    server_.reset();
    loop_.reset();
}

bool Harness::until(const std::function<bool(Server&)>& condition) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!in_loop([&](Server& s) { return condition(s); })) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

tls::Files Harness::files_of(const std::string& source) {
    const fs::path certs = dir / "certs";
    if (!fs::exists(certs / ("source-" + source + ".pem")))
        BOOST_REQUIRE(tls::pki::issue(dir / "ca", tls::Role::source, source, 30, certs));
    return {.cert = certs / ("source-" + source + ".pem"), .key = certs / ("source-" + source + ".key"),
            .ca = dir / "ca" / "ca.pem", .crl = {}};
}

tls::TlsContext Harness::context_of(const std::string& source) {
    auto context = tls::TlsContext::make_client(files_of(source), "replica");
    BOOST_REQUIRE_MESSAGE(context, "no client context");
    return std::move(*context);
}

Client Harness::connect(const std::string& source) {
    auto client = Client::connect(port, context_of(source));
    if (!client)
        BOOST_FAIL(client.error().text);
    return std::move(*client);
}

proto::Hello Harness::hello_of(const std::string& source) const {
    proto::Hello m;
    m.agent_version = "test";
    m.source = source;
    m.source_id = fixed(source + "/source");
    m.load_id = fixed(source + "/load");
    m.disks = {{.slot = 0, .disk_id = fixed(source + "/disk"), .name = "vda", .identity = "TEST0", .sectors = disk_sectors,
                .logical_block = 512, .attach_id = fixed(source + "/attach")}};
    return m;
}

Batch initial_sync(std::uint64_t number, std::uint64_t seq0, std::byte fill) {
    ExtentSet all;
    all.insert({0, disk_sectors});
    SetDigest digest;
    digest.add(0, all);
    Batch b{.number = number, .prev_mark = seq0, .mark = seq0, .consistent = false};
    b.epoch_begins = {{.slot = 0, .kind = proto::EpochKind::initial, .block_shift = 16, .seq0 = seq0,
                       .sectors = disk_sectors, .digest = digest.value()}};
    for (std::uint64_t at = 0; at < disk_sectors; at += 256)
        b.writes.push_back({.slot = 0, .kind = proto::ExtentKind::resync_data, .extent = {at, 256}, .fill = fill});
    b.epoch_ends = {{.slot = 0, .seq0 = seq0, .sectors = disk_sectors, .digest = digest.value()}};
    return b;
}

}  // namespace blkferry::server::test
