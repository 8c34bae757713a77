// SPDX-License-Identifier: Apache-2.0
// The seeded simulation of agent and server. Exit codes: 0 all seeds passed, 1 one failed (its replay command is printed),
// 2 wrong usage.
//
//   sim --seed N [--trace]      one seed, with everything that happened
//   sim --seeds FROM COUNT      many
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include <fmt/format.h>

#include "scenario.hpp"

namespace {

using namespace blkferry::sim;

double real_seconds() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

int failed(const char* program, std::uint64_t seed, const Outcome& o, const char* mutation) {
    fmt::print("seed {} failed: {}\nreplay: {} --seed {}{}{} --trace\n", seed, o.problem, program, seed,
               *mutation != '\0' ? " --mutation " : "", mutation);
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    std::uint64_t from = 1;
    std::uint64_t count = 0;
    double limit_s = 0;
    bool trace = false;
    const char* mutation_name = "";
    Mutation mutation = Mutation::none;
    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        if (arg == "--seed" && i + 1 < argc) {
            from = std::strtoull(argv[++i], nullptr, 10);
            count = 1;
        } else if (arg == "--seeds" && i + 2 < argc) {
            from = std::strtoull(argv[++i], nullptr, 10);
            count = std::strtoull(argv[++i], nullptr, 10);
        } else if (arg == "--seconds" && i + 1 < argc) {
            limit_s = std::strtod(argv[++i], nullptr);
        } else if (arg == "--mutation" && i + 1 < argc) {
            mutation_name = argv[++i];
            const std::string name = mutation_name;
            if (name != "lose-sync" && name != "wrong-payload") {
                count = 0;
                break;
            }
            mutation = name == "lose-sync" ? Mutation::lose_sync : Mutation::wrong_payload;
        } else if (arg == "--trace") {
            trace = true;
        } else {
            count = 0;
            break;
        }
    }
    if (count == 0) {
        fmt::print(stderr, "usage: {} --seed N [--trace] | --seeds FROM COUNT [--seconds S] [--mutation lose-sync|wrong-payload]\n", argv[0]);
        return 2;
    }
    const double begin = real_seconds();
    std::uint64_t done = 0;
    Outcome sum;
    for (std::uint64_t seed = from; seed - from < count && (limit_s <= 0 || real_seconds() - begin < limit_s); ++seed, ++done) {
        const Outcome o = run_seed(seed, trace, mutation);
        if (!o.problem.empty())
            return failed(argv[0], seed, o, mutation_name);
        if (count == 1)
            fmt::print("digest {:016x}\n", o.digest);
        sum.virtual_ns += o.virtual_ns;
        sum.writes += o.writes;
        sum.points += o.points;
        sum.agent_crashes += o.agent_crashes;
        sum.server_crashes += o.server_crashes;
    }
    const double took = real_seconds() - begin;
    fmt::print("{} seeds passed in {:.1f} s ({:.1f} seeds/s): {:.0f} s of virtual time, {} writes, {} points, {} agent crashes, "
               "{} server crashes\n", done, took, static_cast<double>(done) / took, static_cast<double>(sum.virtual_ns) / 1e9,
               sum.writes, sum.points, sum.agent_crashes, sum.server_crashes);
    return 0;
}
