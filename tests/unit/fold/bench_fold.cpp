// SPDX-License-Identifier: Apache-2.0
// Prints what merging, folding and encoding cost per operation and per GB of 4 KiB writes. Not a test: run it by hand.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <deque>
#include <random>

#include <fmt/format.h>

#include "../capture/ring_memory.hpp"
#include "capture/merger.hpp"
#include "fold/encoder.hpp"

using namespace blkferry;

namespace {

double cpu_seconds() {
    timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/// Best of some rounds, in CPU seconds.
template <class F>
double best(int rounds, F f) {
    double b = 1e9;
    for (int i = 0; i < rounds; ++i) {
        const double t = cpu_seconds();
        f();
        b = std::min(b, cpu_seconds() - t);
    }
    return b;
}

void bench_merge(std::size_t disks) {
    constexpr std::uint32_t total = 1U << 20;
    std::mt19937_64 rng(1);
    std::vector<capture::test::WritableRing> memory;
    memory.reserve(disks);
    for (std::size_t i = 0; i < disks; ++i) {
        capture::test::WritableRing::Shape shape;
        shape.disk = static_cast<std::uint32_t>(i);
        shape.descs = 1U << 21;
        shape.data_bytes = 1U << 20;
        memory.emplace_back(shape);
    }
    for (std::uint64_t seq = 1; seq <= total; ++seq)
        memory[rng() % disks].push(seq, BLKFERRY_OP_WRITE, rng() % 100000, 8, rng() % 256 * 4096);
    std::deque<capture::Ring> rings;
    capture::Merger merger;
    for (std::size_t i = 0; i < disks; ++i) {
        rings.push_back(memory[i].ring());
        merger.add(rings.back(), static_cast<std::uint16_t>(i));
    }
    std::uint64_t sum = 0;
    const double t = best(5, [&] {
        merger.restart(1);
        capture::CapturedOp op;
        while (merger.next(op) == capture::Merger::Status::op)
            sum += op.sector;
    });
    fmt::print("merge {:>3} disks: {:6.1f} ns/op  (check {})\n", disks, t / total * 1e9, sum % 997);
}

struct Batch {
    std::vector<capture::CapturedOp> ops;
    std::vector<std::byte> memory;
};

/// `count` writes of 4 KiB; the working set and its skew decide how much folds away.
Batch make_batch(std::size_t count, std::string_view kind) {
    constexpr std::size_t bytes = 4096;
    constexpr std::uint64_t blocks = 1U << 20;
    Batch b;
    b.memory.resize(std::min<std::size_t>(count, 65536) * bytes);
    std::mt19937_64 rng(7);
    for (std::size_t i = 0; i < b.memory.size(); i += 8) {
        const std::uint64_t v = rng();
        std::memcpy(b.memory.data() + i, &v, 8);
    }
    std::uniform_real_distribution<double> u(0, 1);
    for (std::size_t i = 0; i < count; ++i) {
        capture::CapturedOp op;
        op.seq = i + 1;
        std::uint64_t block = rng() % blocks;
        if (kind == "zipf")  // rank by inverse power, spread over the disk
            block = static_cast<std::uint64_t>(std::pow(static_cast<double>(blocks), u(rng))) * 2654435761U % blocks;
        if (kind == "seq")
            block = i % blocks;
        op.sector = block * 8;
        op.nr_sectors = 8;
        if (kind == "mixed") {
            op.sector = rng() % (blocks * 8 - 64);
            op.nr_sectors = 8;
        }
        op.data = b.memory.data() + i * bytes % b.memory.size();
        b.ops.push_back(op);
    }
    return b;
}

void bench_fold(std::size_t count, std::string_view kind) {
    const Batch b = make_batch(count, kind);
    fold::Folder folder(fold::FoldLimits{.extents_max = 1U << 30, .payload_bytes_max = 1ULL << 40});
    fold::Folded out;
    const int rounds = static_cast<int>(std::max<std::size_t>(3, 400000 / count));
    const double t = best(rounds, [&] {
        for (const auto& op : b.ops)
            if (folder.fits(op))
                folder.add(op);
        out = folder.finish();
    });
    ExtentSet ideal;
    for (const auto& op : b.ops)
        ideal.insert({op.sector, op.nr_sectors});
    const double gb = static_cast<double>(count) * 4096 / 1e9;
    fmt::print("fold {:>7} {:<6}: {:6.1f} ns/op  {:.3f} s/GB in  achieved/ideal {:.4f}\n", count, kind,
               t / static_cast<double>(count) * 1e9, t / gb,
               static_cast<double>(ideal.sectors() * sector_bytes) / static_cast<double>(out.payload_bytes));
}

void bench_encode(Codec codec, bool detect_zero) {
    const Batch b = make_batch(65536, "random");
    fold::Folder folder;
    for (const auto& op : b.ops)
        folder.add(op);
    fold::BatchParts parts;
    parts.batch = 1;
    const fold::Folded folded = folder.finish();
    const double gb = static_cast<double>(folded.payload_bytes) / 1e9;
    fold::EncodeOptions options;
    options.detect_zero = detect_zero;
    double plan_s = 1e9;
    const double t = best(5, [&] {
        const double at = cpu_seconds();
        auto plan = fold::BatchPlan::make(folded, parts, options);
        plan_s = std::min(plan_s, cpu_seconds() - at);
        Compressor compressor(codec, 1);
        fold::FrameBuffer scratch;
        fold::FrameBuffer out;
        for (std::size_t i = 0; i < plan->jobs(); ++i)
            (void)plan->encode(i, codec == Codec::none ? nullptr : &compressor, scratch, out);
    });
    fmt::print("encode {:<4} zero={:d}: {:6.1f} ns/4KiB  {:.3f} s/GB (of that plan {:.3f})\n", to_string(codec), detect_zero,
               t / (gb * 1e9 / 4096) * 1e9, t / gb, plan_s / gb);
}

}  // namespace

int main() {
    for (const std::size_t disks : {1U, 4U, 16U})
        bench_merge(disks);
    for (const std::size_t n : {256U, 4096U, 65536U, 262144U})
        for (const std::string_view kind : {"random", "zipf", "seq", "mixed"})
            bench_fold(n, kind);
    for (const Codec c : {Codec::none, Codec::lz4, Codec::zstd})
        bench_encode(c, true);
    bench_encode(Codec::none, false);
    return 0;
}
