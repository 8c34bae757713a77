// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "config/units.hpp"

/// The way through an HTTP proxy (CONNECT, RFC 9110 9.3.6): what is sent and what comes back, without a socket. TLS runs inside of the
/// tunnel, so the proxy sees where the server is and how much is said, nothing else.
namespace blkferry::net {

struct Proxy {
    config::Endpoint at;
    std::string user;      ///< empty: no authentication
    std::string password;  ///< never logged
};

/// The first line of a file that group and others cannot read.
[[nodiscard]] Result<std::string> read_password(const std::filesystem::path& file);
/// Both keys of the configuration; the password's file is needed if the proxy has a user.
[[nodiscard]] Result<Proxy> make_proxy(std::string_view url, const std::filesystem::path& password_file);

/// The request for a tunnel to `target`; holds the password in Basic form.
[[nodiscard]] std::string connect_request(const Proxy& proxy, const config::Endpoint& target);

/// Reads the answer. Bytes come in pieces; at most reply_bytes_max of them.
class ConnectReply {
public:
    static constexpr std::size_t reply_bytes_max = 16U << 10;
    enum class State : std::uint8_t { need_more, open };

    /// State::open: the tunnel stands. Errors: Errc::denied (407: user or password), Errc::closed (the proxy does not reach the server),
    /// Errc::invalid (this is no proxy, or it sent more than its header before the server was spoken to).
    [[nodiscard]] Result<State> feed(std::span<const std::byte> data);

private:
    std::string text_;
};

}  // namespace blkferry::net
