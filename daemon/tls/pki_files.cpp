// SPDX-License-Identifier: Apache-2.0
#include "tls/pki_files.hpp"

#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace blkferry::tls::pki {

Result<void> create_file_durable(const std::filesystem::path& path, std::string_view text, mode_t mode) {
    const std::filesystem::path dir = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    const std::filesystem::path temporary = path.string() + fmt::format(".{}.tmp", ::getpid());
    BLKFERRY_TRY_ASSIGN(const Fd file, open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode));
    Result<void> done = write_full_at(file.get(), std::as_bytes(std::span(text)), 0, temporary.string());
    if (done && (::fchmod(file.get(), mode) != 0 || ::fsync(file.get()) != 0))
        done = fail_errno(errno, temporary.string());
    if (done && ::link(temporary.c_str(), path.c_str()) != 0)
        done = fail_errno(errno, path.string());
    ::unlink(temporary.c_str());
    BLKFERRY_TRY(std::move(done));
    return sync_dir(dir);
}

Result<void> make_dir(const std::filesystem::path& dir) {
    std::error_code err;
    if (std::filesystem::is_directory(dir, err))
        return {};
    const std::filesystem::path parent = dir.has_parent_path() ? dir.parent_path() : std::filesystem::path(".");
    if (parent != dir)
        BLKFERRY_TRY(make_dir(parent));
    if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST)
        return fail_errno(errno, dir.string());
    return sync_dir(parent);
}

Result<Fd> lock_dir(const std::filesystem::path& dir) {
    BLKFERRY_TRY_ASSIGN(Fd lock, open_file(dir, O_RDONLY | O_DIRECTORY));
    while (::flock(lock.get(), LOCK_EX) != 0) {
        if (errno != EINTR)
            return fail_errno(errno, dir.string());
    }
    return lock;
}

}  // namespace blkferry::tls::pki
