// SPDX-License-Identifier: Apache-2.0
// blkferry-opener: opens rings and asks the module on behalf of an agent that has no capability.
//
// Exit codes: 0 ended by a signal, 1 it cannot run (the log says why), 2 wrong usage.
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <pwd.h>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include "opener/service.hpp"
#include "service/notify.hpp"

namespace {

using namespace blkferry;

constexpr int exit_failure = 1;
constexpr int exit_usage = 2;
constexpr int backlog = 8;

Result<uid_t> user_id(const std::string& user) {
    uid_t id = 0;
    if (const auto [end, err] = std::from_chars(user.data(), user.data() + user.size(), id); err == std::errc() && end == user.data() + user.size())
        return id;
    errno = 0;
    const passwd* entry = ::getpwnam(user.c_str());
    if (entry == nullptr)
        return fail(Errc::not_found, fmt::format("there is no user '{}'", user));
    return entry->pw_uid;
}

/// A socket of its own, for one user alone.
Result<Fd> listen_at(const std::string& path, uid_t user) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    if (path.size() >= sizeof(at.sun_path))
        return fail(Errc::invalid, fmt::format("{}: the path is too long", path));
    std::memcpy(at.sun_path, path.data(), path.size());
    ::unlink(path.c_str());
    Fd s(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const mode_t before = ::umask(0177);
    const bool bound = s && ::bind(s.get(), static_cast<const sockaddr*>(static_cast<const void*>(&at)), sizeof(at)) == 0;
    const int err = errno;
    ::umask(before);
    if (!bound)
        return fail_errno(err, fmt::format("cannot listen at {}", path));
    if (user != ::geteuid() && ::chown(path.c_str(), user, static_cast<gid_t>(-1)) != 0)
        return fail_errno(errno, fmt::format("cannot give {} to user {}", path, user));
    if (::listen(s.get(), backlog) != 0)
        return fail_errno(errno, fmt::format("cannot listen at {}", path));
    return s;
}

/// What systemd listens on already (blkferry-opener.socket), or the path.
Result<Fd> listener(const std::string& path, uid_t user) {
    if (!path.empty())
        return listen_at(path, user);
    const int given = ::sd_listen_fds(1);
    if (given != 1 || ::sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, nullptr, 0) <= 0)
        return fail(Errc::invalid, "no socket from systemd (blkferry-opener.socket): give one with --socket");
    return Fd(SD_LISTEN_FDS_START);
}

}  // namespace

int main(int argc, char** argv) {
    std::string user;
    std::string path;
    bool verbose = false;
    CLI::App app("Opens rings and asks the blkferry module on behalf of an agent that has no capability.", "blkferry-opener");
    app.add_option("--user", user, "The one user that may connect, by name or number")->required();
    app.add_option("--socket", path, "Socket to make and listen at; without it the one that systemd gives");
    app.add_flag("--verbose", verbose, "Log every request");
    app.set_version_flag("--version", "blkferry-opener " BLKFERRY_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : exit_usage;
    }
    const auto log = service::make_stderr_log("blkferry-opener");
    if (verbose)
        log->set_level(service::Level::debug);
    const auto failed = [&](const Error& error) {
        log->error("event=start error={}", service::quote(error));
        return exit_failure;
    };
    const auto uid = user_id(user);
    if (!uid)
        return failed(uid.error());
    const auto socket = listener(path, *uid);
    if (!socket)
        return failed(socket.error());
    opener::Service service(*uid, capture::ModuleChannel::direct, *log);
    log->info("event=start version={} uid={}", BLKFERRY_VERSION, *uid);
    service::notify::ready();
    return failed(service.serve(*socket));
}
