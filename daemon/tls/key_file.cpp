// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "tls/request.hpp"

namespace blkferry::tls {

namespace {
constexpr std::size_t pem_bytes_max = 1U << 20;
}

// The mode is checked on the opened file, so it cannot change between check and use.
Result<std::string> read_key_file(const std::filesystem::path& path) {
    auto opened = open_file(path, O_RDONLY);
    if (!opened && opened.error().sys_errno == EACCES)
        return fail(Errc::denied, fmt::format("{}: this process (user {}) may not read the private key: chown it to that user",
                                              path.string(), ::geteuid()));
    BLKFERRY_TRY_ASSIGN(const Fd file, std::move(opened));
    struct stat st {};
    if (::fstat(file.get(), &st) != 0)
        return fail_errno(errno, path.string());
    if (!S_ISREG(st.st_mode))
        return fail(Errc::invalid, fmt::format("{}: not a regular file", path.string()));
    if ((st.st_mode & 077) != 0)
        return fail(Errc::denied, fmt::format("{}: private key with mode {:04o}, others than its owner can use it: chmod 600 it",
                                              path.string(), st.st_mode & 07777));
    if (st.st_uid != 0 && st.st_uid != ::geteuid())
        return fail(Errc::denied, fmt::format("{}: private key is owned by user {}, not by root or by the user of this process",
                                              path.string(), st.st_uid));
    if (st.st_size <= 0 || static_cast<std::size_t>(st.st_size) > pem_bytes_max)
        return fail(Errc::invalid, fmt::format("{}: no private key in PEM form", path.string()));
    std::string text(static_cast<std::size_t>(st.st_size), '\0');
    BLKFERRY_TRY(read_full_at(file.get(), std::as_writable_bytes(std::span(text)), 0, path.string()));
    return text;
}

}  // namespace blkferry::tls
