// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include <fmt/format.h>

namespace blkferry {

std::string_view to_string(Errc code) noexcept {
    switch (code) {
        case Errc::invalid: return "invalid";
        case Errc::not_found: return "not-found";
        case Errc::exists: return "exists";
        case Errc::denied: return "denied";
        case Errc::busy: return "busy";
        case Errc::again: return "again";
        case Errc::no_space: return "no-space";
        case Errc::io: return "io";
        case Errc::corrupt: return "corrupt";
        case Errc::closed: return "closed";
        case Errc::timeout: return "timeout";
        case Errc::unsupported: return "unsupported";
        case Errc::conflict: return "conflict";
    }
    return "unknown";
}

Error Error::with(std::string_view context) && {
    text.insert(0, fmt::format("{}: ", context));
    return std::move(*this);
}

std::unexpected<Error> fail(Errc code, std::string text) {
    return std::unexpected(Error{code, 0, std::move(text)});
}

namespace {
Errc kind_of(int err) noexcept {
    switch (err) {
        case ENOENT:
        case ENODEV:
        case ENXIO: return Errc::not_found;
        case EEXIST: return Errc::exists;
        case EACCES:
        case EPERM: return Errc::denied;
        case EBUSY: return Errc::busy;
        case EAGAIN:
        case EINTR: return Errc::again;
        case ENOSPC:
        case EDQUOT: return Errc::no_space;
        case EPIPE:
        case ECONNRESET: return Errc::closed;
        case ETIMEDOUT: return Errc::timeout;
        case EOPNOTSUPP:
        case ENOSYS: return Errc::unsupported;
        case EINVAL: return Errc::invalid;
        default: return Errc::io;
    }
}
}  // namespace

std::unexpected<Error> fail_errno(int err, std::string_view what) {
    return std::unexpected(
        Error{kind_of(err), err, fmt::format("{}: {}", what, std::generic_category().message(err))});
}

void panic(std::string_view what, const char* file, int line) noexcept {
    std::fprintf(stderr, "blkferry: broken invariant: %.*s (%s:%d)\n", static_cast<int>(what.size()), what.data(), file,
                 line);
    std::abort();
}

}  // namespace blkferry
