// SPDX-License-Identifier: Apache-2.0
#include "net/proxy.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace blkferry::net {

namespace {

constexpr std::size_t password_bytes_max = 256;
constexpr std::size_t shown_bytes_max = 100;

std::string base64(std::string_view text) {
    std::vector<unsigned char> out(4 * (text.size() / 3 + 1) + 1);
    const int n = EVP_EncodeBlock(out.data(), reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
    return {reinterpret_cast<const char*>(out.data()), static_cast<std::size_t>(n)};
}

std::string shown(std::string_view line) {
    std::string out(line.substr(0, shown_bytes_max));
    std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
    return out;
}

}  // namespace

Result<std::string> read_password(const std::filesystem::path& path) {
    BLKFERRY_TRY_ASSIGN(const Fd file, open_file(path, O_RDONLY));
    struct stat st {};
    if (::fstat(file.get(), &st) != 0)
        return fail_errno(errno, path.string());
    if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0)
        return fail(Errc::denied, fmt::format("{}: holds a password, and others than its owner can use it: chmod 600 it", path.string()));
    if (st.st_size <= 0 || st.st_size > 4096)
        return fail(Errc::invalid, fmt::format("{}: a password in one line is expected", path.string()));
    std::string text(static_cast<std::size_t>(st.st_size), '\0');
    BLKFERRY_TRY(read_full_at(file.get(), std::as_writable_bytes(std::span(text)), 0, path.string()));
    text.resize(std::min(text.size(), text.find_first_of("\r\n")));
    if (text.empty() || text.size() > password_bytes_max)
        return fail(Errc::invalid, fmt::format("{}: a password of 1 to {} bytes in one line is expected", path.string(), password_bytes_max));
    return text;
}

Result<Proxy> make_proxy(std::string_view url, const std::filesystem::path& password_file) {
    BLKFERRY_TRY_ASSIGN(auto parsed, config::parse_proxy(url));
    Proxy out{std::move(parsed.at), std::move(parsed.user), {}};
    if (out.user.empty() != password_file.empty())
        return fail(Errc::invalid, out.user.empty() ? "proxy_password_file: the proxy has no user: 'http://USER@HOST:PORT'"
                                                    : "proxy: it has a user, so 'proxy_password_file' is needed");
    if (password_file.empty())
        return out;
    BLKFERRY_TRY_ASSIGN(out.password, read_password(password_file));
    return out;
}

std::string connect_request(const Proxy& proxy, const config::Endpoint& target) {
    std::string out = fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n", target.str());
    if (!proxy.user.empty())
        out += fmt::format("Proxy-Authorization: Basic {}\r\n", base64(proxy.user + ":" + proxy.password));
    return out + "\r\n";
}

Result<ConnectReply::State> ConnectReply::feed(std::span<const std::byte> data) {
    text_.append(reinterpret_cast<const char*>(data.data()), std::min(data.size(), reply_bytes_max + 1 - std::min(text_.size(), reply_bytes_max)));
    constexpr std::string_view version = "HTTP/1.";
    const std::string_view begin = std::string_view(text_).substr(0, version.size());
    if (!version.starts_with(begin))
        return fail(Errc::invalid, "proxy: this is no HTTP proxy");
    const std::size_t end = text_.find("\r\n\r\n");
    if (end == std::string::npos) {
        if (text_.size() >= reply_bytes_max)
            return fail(Errc::invalid, fmt::format("proxy: its answer is longer than {} bytes", reply_bytes_max));
        return State::need_more;
    }
    const std::string_view line = std::string_view(text_).substr(0, text_.find("\r\n"));
    const std::size_t space = line.find(' ');
    const std::string_view code = space == std::string_view::npos ? std::string_view() : line.substr(space + 1, 3);
    if (code.size() != 3 || !std::ranges::all_of(code, [](char c) { return c >= '0' && c <= '9'; }))
        return fail(Errc::invalid, "proxy: this is no HTTP proxy");
    if (code == "407")
        return fail(Errc::denied, "proxy: it wants another user or password (407): see 'proxy' and 'proxy_password_file'");
    if (code.front() != '2')
        return fail(Errc::closed, fmt::format("proxy: it makes no connection to the server: {}", shown(line)));
    if (text_.size() != end + 4)
        return fail(Errc::invalid, "proxy: it sent more than its answer");
    return State::open;
}

}  // namespace blkferry::net
