// SPDX-License-Identifier: Apache-2.0
#include "loop/signals.hpp"

#include <cerrno>

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace blkferry::loop {

Result<Signals> Signals::create(Loop& loop, std::initializer_list<int> signals, Callback callback) {
    Signals s;
    sigset_t mask;
    sigemptyset(&mask);
    for (const int sig : signals)
        sigaddset(&mask, sig);
    if (const int err = pthread_sigmask(SIG_BLOCK, &mask, &s.before_); err != 0)
        return fail_errno(err, "cannot block signals");
    s.fd_ = Fd(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!s.fd_) {
        const int err = errno;
        pthread_sigmask(SIG_SETMASK, &s.before_, nullptr);
        return fail_errno(err, "signalfd");
    }
    const int fd = s.fd_.get();
    s.watch_ = loop.watch(fd, POLLIN, [fd, callback = std::move(callback)](std::uint32_t) mutable {
        signalfd_siginfo info{};
        if (::read(fd, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
            callback(static_cast<int>(info.ssi_signo));
    });
    return s;
}

Signals::~Signals() {
    if (!fd_)
        return;
    watch_.reset();
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace blkferry::loop
