// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "machine.hpp"

namespace blkferry::producer {

enum class Pattern : std::uint8_t {
    random,      ///< anywhere in the working set
    sequential,  ///< one after another, around and around
    hot,         ///< nine of ten writes into a tenth of the working set
    ordered,     ///< number n to sector first_sector of each device in turn, each after the one before has ended
};
enum class Sizes : std::uint8_t { fixed, mixed };                   ///< `block_bytes`, or 512 B .. 256 KiB
enum class Contents : std::uint8_t { random, text, zero, mixed };

struct WorkloadConfig {
    std::uint64_t seed = 1;
    std::uint64_t ops = 0;             ///< stop after so many; 0: go on until stop()
    double ops_per_second = 0;         ///< 0: as fast as it goes
    Pattern pattern = Pattern::random;
    Sizes sizes = Sizes::fixed;
    Contents contents = Contents::random;
    std::uint32_t block_bytes = 4096;
    std::uint32_t depth = 1;           ///< writes in flight; they end in an order drawn from the seed
    std::uint64_t first_sector = 0;
    std::uint64_t sectors = 0;         ///< working set per device; 0: to the end of the device
    std::uint32_t discard_percent = 0;
    std::uint32_t zeroes_percent = 0;
    std::uint32_t cancel_percent = 0;  ///< of the writes: die as a NOWAIT submission does, and come again
    std::uint32_t fail_percent = 0;    ///< of the writes: end with an error, on the medium or not
    bool overlap = false;              ///< allow writes in flight to overlap
};

/// One writer with its own thread and its own random numbers. The same seed gives the same operations in the same order
/// of submission and completion, whatever the timing.
class Workload {
public:
    Workload(Machine& machine, std::vector<std::uint64_t> devices, WorkloadConfig config);
    ~Workload();
    Workload(const Workload&) = delete;
    Workload& operator=(const Workload&) = delete;

    void start();
    /// Stops submitting and waits until nothing is in flight. May be started again.
    void stop();
    /// Waits for `ops` operations (config) or an error.
    void wait();
    [[nodiscard]] bool running() const noexcept { return running_.load(); }

    struct Stats {
        std::uint64_t ops = 0;
        std::uint64_t bytes = 0;
        std::uint64_t cancelled = 0;
        std::uint64_t failed = 0;
        std::string error;  ///< why the writer gave up
    };
    [[nodiscard]] Stats stats() const;

private:
    struct Pending {
        Machine::Write write;
        std::vector<std::byte> buffer;
    };
    void run();
    void step();
    void step_ordered();
    void submit(capture::OpKind op, std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors,
                std::span<const std::byte> data);
    void end_one(std::size_t at);
    void end_overlapping(std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors);
    void pace();
    [[nodiscard]] std::span<const std::byte> payload(std::size_t bytes);
    [[nodiscard]] std::uint64_t below(std::uint64_t n) { return rng_() % n; }

    Machine& machine_;
    std::vector<std::uint64_t> devices_;
    std::vector<std::uint64_t> limits_;  ///< end of the working set per device
    WorkloadConfig config_;
    std::mt19937_64 rng_;
    std::vector<std::byte> random_pool_;
    std::vector<std::byte> text_pool_;
    std::vector<std::byte> zero_pool_;
    std::vector<Pending> pending_;
    std::uint64_t number_ = 0;
    std::uint64_t next_sector_ = 0;
    std::uint64_t started_ns_ = 0;
    std::uint64_t started_ops_ = 0;
    std::atomic<bool> running_{false};
    std::atomic<bool> stop_{false};
    mutable std::mutex lock_;  ///< stats_
    Stats stats_;
    std::thread thread_;
};

[[nodiscard]] Result<Pattern> parse_pattern(std::string_view text);
[[nodiscard]] Result<Contents> parse_contents(std::string_view text);

}  // namespace blkferry::producer
