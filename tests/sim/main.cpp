// SPDX-License-Identifier: Apache-2.0
// The seeded simulation of agent and server. Exit codes: 0 all seeds passed, 1 one failed (its replay command is printed),
// 2 wrong usage.
//
//   sim --seed N [--trace]      one seed, with everything that happened
//   sim --seeds FROM COUNT      many; with --keep-going over those that fail, and with a line for each thousand
//   sim --sweep N [STEP]        one seed, once for each (STEP-th) operation of the store: there the server dies
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iterator>
#include <malloc.h>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "scenario.hpp"

namespace {

using namespace blkferry::sim;

/// A process that has run some seeds keeps what libraries keep; from then on a seed gives back what it took.
constexpr std::uint64_t seeds_warm = 20;
constexpr std::size_t memory_slack_bytes = 4U << 20;

double real_seconds() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

std::size_t entries_of(const char* folder) {
    const std::filesystem::directory_iterator all(folder);
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

/// O5: what the process holds between two seeds.
class Leaks {
public:
    /// What has grown, or nothing.
    std::string look(std::uint64_t seeds_done) {
        const struct mallinfo2 m = ::mallinfo2();
        const std::size_t bytes = m.uordblks + m.hblkhd;
        const std::size_t files = entries_of("/proc/self/fd");
        if (seeds_done <= seeds_warm) {
            bytes_ = std::max(bytes_, bytes);
            files_ = seeds_done <= 1 ? files : files_;
        }
        if (files != files_)
            return fmt::format("O5: {} files are open, {} after the first seed", files, files_);
        if (bytes > bytes_ + memory_slack_bytes)
            return fmt::format("O5: {} bytes are taken, {} after {} seeds", bytes, bytes_, seeds_warm);
        return {};
    }

private:
    std::size_t bytes_ = 0;
    std::size_t files_ = 0;
};

struct Options {
    std::uint64_t from = 1;
    std::uint64_t count = 0;
    double limit_s = 0;
    bool trace = false;
    bool keep_going = false;
    std::uint64_t sweep_step = 0;
    std::string mutation_name;
    Plan plan;
};

std::optional<Options> parse(int argc, char** argv) {
    Options o;
    const auto number = [&](int& i) { return std::strtoull(argv[++i], nullptr, 10); };
    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        const int left = argc - i - 1;
        if ((arg == "--seed" || arg == "--sweep") && left >= 1) {
            o.from = number(i);
            o.count = 1;
            if (arg == "--sweep")
                o.sweep_step = left >= 2 && argv[i + 1][0] != '-' ? std::max<std::uint64_t>(number(i), 1) : 1;
        } else if (arg == "--seeds" && left >= 2) {
            o.from = number(i);
            o.count = number(i);
        } else if (arg == "--die-at" && left >= 1) {
            o.plan.die_at = number(i);
        } else if (arg == "--seconds" && left >= 1) {
            o.limit_s = std::strtod(argv[++i], nullptr);
        } else if (arg == "--mutation" && left >= 1) {
            o.mutation_name = argv[++i];
            const auto found = mutation_of(o.mutation_name);
            if (!found)
                return std::nullopt;
            o.plan.mutation = *found;
        } else if (arg == "--trace") {
            o.trace = true;
        } else if (arg == "--keep-going") {
            o.keep_going = true;
        } else {
            return std::nullopt;
        }
    }
    return o.count == 0 ? std::nullopt : std::optional(o);
}

int failed(const char* program, std::uint64_t seed, const std::string& why, const Options& o, std::uint64_t die_at) {
    fmt::print("seed {} failed: {}\nreplay: {} --seed {}{}{}{} --trace\n", seed, why, program, seed,
               o.mutation_name.empty() ? "" : " --mutation ", o.mutation_name,
               die_at == 0 ? "" : fmt::format(" --die-at {}", die_at));
    return 1;
}

/// One seed without faults of its own, then once more for every operation of its store.
int sweep(const char* program, const Options& o) {
    Plan plan = o.plan;
    plan.die_at = UINT64_MAX / 2;
    const Outcome whole = run_seed(o.from, false, plan);
    if (!whole.problem.empty())
        return failed(program, o.from, whole.problem, o, plan.die_at);
    std::uint64_t done = 0;
    for (plan.die_at = 1; plan.die_at <= whole.operations; plan.die_at += o.sweep_step, ++done) {
        const Outcome out = run_seed(o.from, o.trace, plan);
        if (!out.problem.empty())
            return failed(program, o.from, out.problem, o, plan.die_at);
    }
    fmt::print("{} deaths passed, at every {}. of {} operations of seed {}\n", done, o.sweep_step, whole.operations, o.from);
    return 0;
}

void report(std::uint64_t done, std::uint64_t failed, double took, const Outcome& sum) {
    fmt::print("{} seeds {} in {:.1f} s ({:.1f} seeds/s): {:.0f} s of virtual time, {} writes, {} points, {} agent crashes, "
               "{} server crashes, {} reboots, {} bits rotten, {} frozen cuts, {} deletions, {} store errors\n",
               done, failed == 0 ? "passed" : fmt::format("done, {} failed,", failed), took, static_cast<double>(done) / took, static_cast<double>(sum.virtual_ns) / 1e9, sum.writes, sum.points,
               sum.agent_crashes, sum.server_crashes, sum.reboots, sum.rots, sum.freezes, sum.deletions, sum.store_errors);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const auto o = parse(argc, argv);
    if (!o) {
        fmt::print(stderr, "usage: {} --seed N [--trace] [--die-at OPERATION] | --seeds FROM COUNT [--seconds S] [--keep-going] | --sweep N [STEP]\n"
                           "       [--mutation NAME]\n", argv[0]);
        return 2;
    }
    if (o->sweep_step != 0)
        return sweep(argv[0], *o);
    const double begin = real_seconds();
    std::uint64_t done = 0;
    std::uint64_t bad = 0;
    Outcome sum;
    Leaks leaks;
    for (std::uint64_t seed = o->from; seed - o->from < o->count && (o->limit_s <= 0 || real_seconds() - begin < o->limit_s); ++seed) {
        const Outcome out = run_seed(seed, o->trace, o->plan);
        ++done;
        const std::string why = out.problem.empty() ? leaks.look(done) : out.problem;
        if (!why.empty()) {
            ++bad;
            (void)failed(argv[0], seed, why, *o, o->plan.die_at);
            if (!o->keep_going)
                return 1;
        }
        if (o->count == 1)
            fmt::print("digest {:016x}\n", out.digest);
        sum.add(out);
        if (o->keep_going && done % 1000 == 0)
            report(done, bad, real_seconds() - begin, sum);
    }
    report(done, bad, real_seconds() - begin, sum);
    return bad == 0 ? 0 : 1;
}
