// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tls/context.hpp"
#include "tls/pki.hpp"

/// Real certificates in a temporary folder, and two ends of a connected socket driven from one thread.
namespace blkferry::tls::test {

class TempDir {
public:
    TempDir();
    ~TempDir();
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
    std::filesystem::path path_;
};

/// A CA with the server "replica" and the source "web1".
class World {
public:
    explicit World(std::string ca_name = "test");
    [[nodiscard]] std::filesystem::path ca_dir() const { return dir_.path() / "ca"; }
    [[nodiscard]] std::filesystem::path out() const { return dir_.path() / "out"; }
    [[nodiscard]] Files files(Role role, const std::string& name) const;
    /// A certificate of this CA that is valid from..to seconds from now.
    void issue_dated(Role role, const std::string& name, long from_s, long to_s) const;
    [[nodiscard]] Files server() const { return files(Role::server, "replica"); }
    [[nodiscard]] Files source() const { return files(Role::source, "web1"); }

private:
    TempDir dir_;
};

/// A connected pair of non-blocking stream sockets.
[[nodiscard]] std::pair<Fd, Fd> socket_pair();
/// A TCP connection over loopback, non-blocking.
[[nodiscard]] std::pair<Fd, Fd> tcp_pair();

struct Handshake {
    std::optional<Error> server_error;
    std::optional<Error> client_error;
    bool ok = false;
};
/// Drives both ends until both are done, or one failed and the other saw it (the client by a read).
[[nodiscard]] Handshake shake(std::optional<TlsStream>& server, std::optional<TlsStream>& client);

[[nodiscard]] std::vector<std::byte> pattern(std::size_t size, unsigned seed);

}  // namespace blkferry::tls::test
