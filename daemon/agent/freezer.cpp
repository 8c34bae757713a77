// SPDX-License-Identifier: Apache-2.0
#include "agent/freezer.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <linux/fs.h>
#include <poll.h>
#include <sstream>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

namespace blkferry::agent {

namespace {

/// What child and parent tell each other.
struct Message {
    enum class Kind : std::uint8_t { frozen, failed, thaw, thawed, deadline } kind = Kind::frozen;
    int err = 0;
    std::size_t which = 0;  ///< mount point that failed
};

constexpr int thaw_wait_ms = 5'000;

std::uint64_t now_ms() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1000 + static_cast<std::uint64_t>(t.tv_nsec) / 1'000'000;
}

void say(int socket, Message m) noexcept {
    (void)!::send(socket, &m, sizeof(m), MSG_NOSIGNAL);
}

/// Everything but `kept` (ascending) is closed: the child must not keep the agent's connections open.
void close_others(const std::vector<int>& kept) noexcept {
    unsigned from = 3;
    for (const int fd : kept) {
        if (static_cast<unsigned>(fd) > from)
            ::syscall(SYS_close_range, from, static_cast<unsigned>(fd) - 1, 0U);
        from = static_cast<unsigned>(fd) + 1;
    }
    ::syscall(SYS_close_range, from, ~0U, 0U);
}

/// 0, or an errno.
int freeze(int fd) noexcept {
    if (::ioctl(fd, FIFREEZE, 0) == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOTTY)
        return errno;
    return ::syncfs(fd) == 0 ? 0 : errno;
}

/// The child's life. System calls only: it was forked from a process with threads, and the file systems of its memory may be frozen.
[[noreturn]] void child(int socket, const std::vector<int>& mounts, const std::vector<int>& kept, std::uint32_t ms) noexcept {
    close_others(kept);
    (void)::mlockall(MCL_CURRENT);
    const std::uint64_t until = now_ms() + ms;
    std::size_t frozen = 0;
    Message answer;
    while (frozen < mounts.size()) {
        if (const int err = freeze(mounts[frozen]); err != 0) {
            answer = {Message::Kind::failed, err, frozen};
            break;
        }
        ++frozen;
    }
    if (frozen == mounts.size()) {
        say(socket, {Message::Kind::frozen, 0, 0});
        answer.kind = Message::Kind::deadline;
        for (std::uint64_t now = now_ms(); now < until; now = now_ms()) {
            pollfd p{socket, POLLIN, 0};
            if (::poll(&p, 1, static_cast<int>(until - now)) > 0) {
                answer.kind = Message::Kind::thawed;  // told to, or the agent is gone
                break;
            }
        }
    }
    while (frozen > 0)
        (void)::ioctl(mounts[--frozen], FITHAW, 0);
    say(socket, answer);
    ::_exit(0);
}

/// Octal escapes of mountinfo.
std::string unescape(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned code = 0;
        if (text[i] == '\\' && i + 3 < text.size() && std::from_chars(&text[i + 1], &text[i] + 4, code, 8).ptr == &text[i] + 4) {
            out += static_cast<char>(code);
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

}  // namespace

Result<std::vector<MountPoint>> open_mount_points(const std::vector<std::uint64_t>& devices, const std::string& proc) {
    std::vector<MountPoint> out;
    for (const std::uint64_t dev : devices) {
        const std::string wanted = fmt::format("{}:{}", dev >> 32, dev & 0xffffffffU);
        std::ifstream in(proc + "/self/mountinfo");
        std::string line;
        Result<Fd> fd = fail(Errc::not_found, fmt::format("the file system on device {} is not mounted any more", wanted));
        std::string path;
        while (!fd && std::getline(in, line)) {
            std::istringstream fields(line);
            std::string id;
            std::string parent;
            std::string number;
            std::string root;
            std::string where;
            if (!(fields >> id >> parent >> number >> root >> where) || number != wanted)
                continue;
            path = unescape(where);
            fd = open_file(path, O_RDONLY | O_NONBLOCK);
        }
        if (!fd)
            return std::unexpected(Error(fd.error()).with("cannot freeze"));
        out.push_back({std::move(path), std::move(*fd)});
    }
    return out;
}

Result<std::unique_ptr<Freezer>> Freezer::start(loop::Loop& loop, std::vector<MountPoint> mounts, std::uint32_t ms, Frozen frozen) {
    int pair[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return fail_errno(errno, "cannot talk to a freezing process");
    std::unique_ptr<Freezer> f(new Freezer);
    f->socket_ = Fd(pair[0]);
    const Fd theirs(pair[1]);
    f->mounts_ = std::move(mounts);
    f->frozen_ = std::move(frozen);
    std::vector<int> fds;
    for (const MountPoint& m : f->mounts_)
        fds.push_back(m.fd.get());
    std::vector<int> kept = fds;
    kept.push_back(theirs.get());
    std::ranges::sort(kept);
    f->child_ = ::fork();
    if (f->child_ < 0)
        return fail_errno(errno, "cannot make a freezing process");
    if (f->child_ == 0)
        child(theirs.get(), fds, kept, std::min(ms, ms_max));
    f->watch_ = loop.watch(f->socket_.get(), POLLIN, [raw = f.get()](std::uint32_t) { raw->heard(); });
    return f;
}

void Freezer::heard() {
    Message m;
    const ssize_t n = ::recv(socket_.get(), &m, sizeof(m), MSG_DONTWAIT | MSG_PEEK);
    if (n < 0 && errno == EAGAIN)
        return;
    watch_.reset();  // the rest is for thaw()
    if (!frozen_)
        return;
    Frozen frozen = std::exchange(frozen_, nullptr);
    (void)!::recv(socket_.get(), &m, sizeof(m), MSG_DONTWAIT);
    if (n == sizeof(m) && m.kind == Message::Kind::frozen)
        frozen({});
    else if (n == sizeof(m) && m.kind == Message::Kind::failed && m.which < mounts_.size())
        frozen(fail_errno(m.err, fmt::format("cannot freeze the file system at {}", mounts_[m.which].path)));
    else
        frozen(fail(Errc::io, "the freezing process ended by itself"));
}

Result<void> Freezer::thaw() {
    say(socket_.get(), {Message::Kind::thaw, 0, 0});
    pollfd p{socket_.get(), POLLIN, 0};
    Message m;
    if (::poll(&p, 1, thaw_wait_ms) <= 0 || ::recv(socket_.get(), &m, sizeof(m), MSG_DONTWAIT) != sizeof(m))
        return fail(Errc::io, "the freezing process does not answer");
    if (m.kind == Message::Kind::deadline)
        return fail(Errc::timeout, "the file systems were thawed at their deadline");
    return {};
}

Freezer::~Freezer() {
    watch_.reset();
    socket_.reset();  // thaws, if they are frozen still
    if (child_ > 0)
        while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
        }
}

}  // namespace blkferry::agent
