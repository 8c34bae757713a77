// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include "run.hpp"

#include <boost/test/unit_test.hpp>

#include <array>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace blkferry::tools::test {

namespace {

std::pair<Fd, Fd> make_pipe() {
    std::array<int, 2> fds{};
    BOOST_REQUIRE_EQUAL(::pipe2(fds.data(), O_CLOEXEC), 0);
    return {Fd(fds[0]), Fd(fds[1])};
}

}  // namespace

Ran run_blkferry(const std::vector<std::string>& arguments) {
    auto [out_read, out_write] = make_pipe();
    auto [err_read, err_write] = make_pipe();
    std::vector<std::string> words = {BLKFERRY};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& w : words)
        argv.push_back(w.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out_write.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err_write.get(), 2);
    pid_t pid = -1;
    BOOST_REQUIRE_EQUAL(::posix_spawn(&pid, BLKFERRY, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    out_write.reset();
    err_write.reset();
    Ran ran;
    std::array<pollfd, 2> fds = {pollfd{out_read.get(), POLLIN, 0}, pollfd{err_read.get(), POLLIN, 0}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        if (::poll(fds.data(), fds.size(), 60'000) == 0) {
            ::kill(pid, SIGKILL);
            BOOST_ERROR("blkferry does not end");
            break;
        }
        for (std::size_t i = 0; i < fds.size(); ++i) {
            if (fds[i].revents == 0)
                continue;
            std::array<char, 4096> data{};
            const ssize_t n = ::read(fds[i].fd, data.data(), data.size());
            if (n <= 0)
                fds[i].fd = -1;
            else
                (i == 0 ? ran.out : ran.err).append(data.data(), static_cast<std::size_t>(n));
        }
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    ran.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return ran;
}

const std::vector<std::vector<std::string>>& all_commands() {
    static const std::vector<std::vector<std::string>> commands = {
        {"status"}, {"disks"},  {"protect"}, {"unprotect"},        {"throttle"},       {"mark"},
        {"points"}, {"delete"}, {"verify"},  {"export"},           {"server", "status"}, {"server", "enroll-token"},
        {"server", "tokens"}, {"server", "revoke-token"}, {"server", "revoke"}, {"enroll"}, {"uninstall"}, {"server", "init"}, {"pki", "init"},
        {"pki", "issue"}, {"pki", "revoke"}, {"pki", "list"}, {"config", "check"}, {"config", "default"},
        {"completion"}};
    return commands;
}

}  // namespace blkferry::tools::test
