// SPDX-License-Identifier: Apache-2.0
#include "tools/setup.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <pwd.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fd.hpp"
#include "tls/identity.hpp"

extern char** environ;

namespace blkferry::tools {

Result<void> hand_over(const std::filesystem::path& path, const char* name) {
    const passwd* user = ::geteuid() == 0 ? ::getpwnam(name) : nullptr;
    if (user != nullptr && ::lchown(path.c_str(), user->pw_uid, user->pw_gid) != 0)
        return fail_errno(errno, fmt::format("give {} to {}", path.string(), name));
    return {};
}

Result<void> make_folder(const std::filesystem::path& dir, const char* user) {
    std::error_code err;
    if (!std::filesystem::is_directory(dir, err)) {
        std::filesystem::create_directories(dir.parent_path(), err);
        if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST)
            return fail_errno(errno, dir.string());
    }
    return hand_over(dir, user);
}

bool governs_system(const std::filesystem::path& config, const char* own) {
    std::error_code err;
    return ::geteuid() == 0 && config == std::filesystem::path(own) && std::filesystem::exists("/run/systemd/system", err);
}

Result<void> run_program(const std::vector<std::string>& words) {
    std::vector<std::string> copy = words;
    std::vector<char*> argv;
    for (std::string& w : copy)
        argv.push_back(w.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    pid_t pid = -1;
    const int rc = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rc != 0)
        return fail_errno(rc, words.front());
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail(Errc::io, fmt::format("'{}' failed", fmt::join(words, " ")));
    return {};
}

Result<std::string> host_name() {
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0)
        return fail_errno(errno, "host name");
    std::string name = host.data();
    name.resize(std::min(name.size(), tls::name_bytes_max));
    BLKFERRY_TRY(tls::check_name(name));
    return name;
}

}  // namespace blkferry::tools
