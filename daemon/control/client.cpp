// SPDX-License-Identifier: Apache-2.0
#include "control/client.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "control/line_buffer.hpp"

namespace blkferry::control {

namespace {

Errc unreachable(int err) noexcept {
    switch (err) {
        case ENOENT: return Errc::not_found;
        case EACCES:
        case EPERM: return Errc::denied;
        default: return Errc::closed;
    }
}

std::string_view advice(int err) noexcept {
    switch (err) {
        case EACCES:
        case EPERM: return "only root and the daemon's own user may use it";
        default: return "is the daemon running? (systemctl status blkferry-agent, blkferry-server)";
    }
}

}  // namespace

Result<Client> Client::connect(const std::filesystem::path& socket) {
    const std::string name = socket.string();
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (name.empty() || name.size() >= sizeof address.sun_path)
        return fail(Errc::invalid, fmt::format("{}: a socket's path has at most {} bytes", name, sizeof address.sun_path - 1));
    std::memcpy(address.sun_path, name.data(), name.size());
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        const int err = errno;
        return std::unexpected(Error{unreachable(err), err,
                                     fmt::format("{}: {}; {}", name, std::strerror(err), advice(err))});
    }
    return Client(std::move(fd), name);
}

Result<std::string> Client::read_line(std::uint64_t silence_ms_max) {
    while (true) {
        if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
            std::string line = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            return line;
        }
        if (buffer_.size() > answer_bytes_max)
            return fail(Errc::invalid, fmt::format("{}: answer line longer than {} bytes", name_, answer_bytes_max));
        pollfd p{socket_.get(), POLLIN, 0};
        const int timeout = silence_ms_max == 0 ? -1 : static_cast<int>(std::min<std::uint64_t>(silence_ms_max, 1U << 30));
        const int ready = ::poll(&p, 1, timeout);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            return fail_errno(errno, name_);
        if (ready == 0)
            return fail(Errc::timeout, fmt::format("{}: no answer for {} s", name_, silence_ms_max / 1000));
        std::array<char, 65536> data;
        const ssize_t n = ::recv(socket_.get(), data.data(), data.size(), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(errno, name_);
        if (n == 0)
            return fail(Errc::closed, fmt::format("{}: the daemon closed the connection before it answered", name_));
        buffer_.append(data.data(), static_cast<std::size_t>(n));
    }
}

Result<Json> Client::call(const Json& request, const std::function<void(const Json&)>& on_line,
                          std::uint64_t silence_ms_max) {
    const std::string line = to_line(request);
    if (line.size() > request_bytes_max)
        return fail(Errc::invalid, fmt::format("request of {} bytes, at most {} possible", line.size(), request_bytes_max));
    for (std::size_t sent = 0; sent < line.size();) {
        const ssize_t n = ::send(socket_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;  // the daemon may have said why before it closed
        sent += static_cast<std::size_t>(n);
    }
    while (true) {
        BLKFERRY_TRY_ASSIGN(const std::string text, read_line(silence_ms_max));
        auto message = parse_line(text);
        if (!message)
            return std::unexpected(std::move(message).error().with(name_));
        if (!get_bool(*message, "end", false).value_or(false)) {
            if (on_line)
                on_line(*message);
            continue;
        }
        if (!get_bool(*message, "ok", false).value_or(false))
            return std::unexpected(error_of(*message));
        return message;
    }
}

}  // namespace blkferry::control
