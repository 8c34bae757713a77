// SPDX-License-Identifier: Apache-2.0
#include "workload.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/clock.hpp"

namespace blkferry::producer {

namespace {

constexpr std::size_t pool_bytes = 8U << 20;
constexpr std::uint32_t mixed_bytes_max = 256U << 10;

/// Something that compresses about as well as program files do.
std::vector<std::byte> make_text(std::mt19937_64& rng) {
    static constexpr std::array<std::string_view, 12> words = {
        "block ", "journal ", "extent=", "seq: ", "\n\tstatic ", "return 0;", "const ", "0x", "replica ", " -> ", "ring", "\n"};
    std::vector<std::byte> out;
    out.reserve(pool_bytes + 64);
    while (out.size() < pool_bytes) {
        const std::uint64_t r = rng();
        const auto word = std::as_bytes(std::span(words[r % words.size()]));
        out.insert(out.end(), word.begin(), word.end());
        if ((r >> 20) % 3 == 0)
            for (unsigned i = 0; i < 6; ++i)
                out.push_back(static_cast<std::byte>(r >> (24 + 6 * i)));
    }
    out.resize(pool_bytes);
    return out;
}

}  // namespace

Result<Pattern> parse_pattern(std::string_view text) {
    if (text == "random")
        return Pattern::random;
    if (text == "sequential")
        return Pattern::sequential;
    if (text == "hot")
        return Pattern::hot;
    if (text == "ordered")
        return Pattern::ordered;
    return fail(Errc::invalid, fmt::format("'{}' is not a pattern; use random, sequential, hot or ordered", text));
}

Result<Contents> parse_contents(std::string_view text) {
    if (text == "random")
        return Contents::random;
    if (text == "text")
        return Contents::text;
    if (text == "zero")
        return Contents::zero;
    if (text == "mixed")
        return Contents::mixed;
    return fail(Errc::invalid, fmt::format("'{}' are no contents; use random, text, zero or mixed", text));
}

Workload::Workload(Machine& machine, std::vector<std::uint64_t> devices, WorkloadConfig config)
    : machine_(machine), devices_(std::move(devices)), config_(config), rng_(config.seed) {
    for (const std::uint64_t dev : devices_) {
        const std::uint64_t sectors = machine_.sectors(dev).value_or(0);
        const std::uint64_t end = config_.sectors == 0 ? sectors : std::min(sectors, config_.first_sector + config_.sectors);
        BLKFERRY_ASSERT(end >= config_.first_sector + mixed_bytes_max / sector_bytes);
        limits_.push_back(end);
    }
    std::mt19937_64 contents(config.seed ^ 0x5eed);
    if (config_.contents == Contents::random || config_.contents == Contents::mixed) {
        random_pool_.resize(pool_bytes);
        for (std::size_t i = 0; i < pool_bytes; i += 8)
            store_le<std::uint64_t>(random_pool_.data() + i, contents());
    }
    if (config_.contents == Contents::text || config_.contents == Contents::mixed)
        text_pool_ = make_text(contents);
    if (config_.contents == Contents::zero || config_.contents == Contents::mixed)
        zero_pool_.resize(mixed_bytes_max + config_.block_bytes);
}

Workload::~Workload() {
    stop();
}

void Workload::start() {
    if (thread_.joinable()) {
        if (running_)
            return;
        thread_.join();
    }
    stop_ = false;
    running_ = true;
    started_ns_ = SystemClock().monotonic_ns();
    started_ops_ = stats().ops;
    thread_ = std::thread([this] { run(); });
}

void Workload::stop() {
    stop_ = true;
    wait();
}

void Workload::wait() {
    if (thread_.joinable())
        thread_.join();
}

Workload::Stats Workload::stats() const {
    const std::scoped_lock held(lock_);
    return stats_;
}

void Workload::run() {
    while (!stop_) {
        {
            const std::scoped_lock held(lock_);
            if (!stats_.error.empty() || (config_.ops != 0 && stats_.ops - started_ops_ >= config_.ops))
                break;
        }
        pace();
        if (config_.pattern == Pattern::ordered)
            step_ordered();
        else
            step();
    }
    while (!pending_.empty())
        end_one(below(pending_.size()));
    running_ = false;
}

/// Waits until the operation is due; wakes up for stop().
void Workload::pace() {
    if (config_.ops_per_second <= 0)
        return;
    const auto done = static_cast<double>(stats().ops - started_ops_);
    const auto due_ns = started_ns_ + static_cast<std::uint64_t>(done / config_.ops_per_second * 1e9);
    for (;;) {
        const std::uint64_t now = SystemClock().monotonic_ns();
        if (now >= due_ns || stop_)
            return;
        std::this_thread::sleep_for(std::chrono::nanoseconds(std::min<std::uint64_t>(due_ns - now, 50'000'000)));
    }
}

std::span<const std::byte> Workload::payload(std::size_t bytes) {
    const std::vector<std::byte>* pool = &random_pool_;
    Contents c = config_.contents;
    if (c == Contents::mixed)
        c = static_cast<Contents>(below(3));
    if (c == Contents::text)
        pool = &text_pool_;
    if (c == Contents::zero)
        pool = &zero_pool_;
    const std::size_t places = (pool->size() - bytes) / sector_bytes + 1;
    return std::span(*pool).subspan(below(places) * sector_bytes, bytes);
}

void Workload::step() {
    const std::size_t which = below(devices_.size());
    const std::uint64_t span = limits_[which] - config_.first_sector;
    std::uint64_t sectors = std::max<std::uint64_t>(1, config_.block_bytes / sector_bytes);
    if (config_.sizes == Sizes::mixed)
        sectors = below(4) == 0 ? 1 + below(mixed_bytes_max / sector_bytes) : 8 * (1 + below(16));
    std::uint64_t at = 0;
    if (config_.pattern == Pattern::sequential) {
        at = next_sector_ + sectors > span ? 0 : next_sector_;
        next_sector_ = which + 1 == devices_.size() || devices_.size() == 1 ? at + sectors : next_sector_;
    } else {
        const std::uint64_t reach = config_.pattern == Pattern::hot && below(10) != 0 ? std::max(span / 10, sectors) : span;
        const std::uint64_t places = reach - sectors + 1;
        at = config_.sizes == Sizes::fixed || below(2) == 0 ? below(places) / sectors * sectors : below(places);
    }
    const std::uint64_t sector = config_.first_sector + at;
    if (!config_.overlap)
        end_overlapping(devices_[which], sector, sectors);
    const std::uint64_t dice = below(100);
    if (dice < config_.discard_percent)
        submit(capture::OpKind::discard, devices_[which], sector, sectors, {});
    else if (dice < config_.discard_percent + config_.zeroes_percent)
        submit(capture::OpKind::zeroes, devices_[which], sector, sectors, {});
    else
        submit(capture::OpKind::write, devices_[which], sector, sectors, payload(sectors * sector_bytes));
    while (pending_.size() >= config_.depth)
        end_one(below(pending_.size()));
}

void Workload::step_ordered() {
    ++number_;
    std::vector<std::byte> record(4096);
    for (std::size_t i = 0; i < record.size(); i += 8)
        store_le<std::uint64_t>(record.data() + i, number_);
    for (const std::uint64_t dev : devices_) {
        submit(capture::OpKind::write, dev, config_.first_sector, record.size() / sector_bytes, record);
        while (!pending_.empty())
            end_one(0);
    }
}

void Workload::submit(capture::OpKind op, std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors,
                      std::span<const std::byte> data) {
    auto w = machine_.submit(op, dev, sector, sectors, data);
    const std::scoped_lock held(lock_);
    if (!w) {
        stats_.error = w.error().text;
        return;
    }
    ++stats_.ops;
    stats_.bytes += sectors * sector_bytes;
    Pending p;
    p.write = std::move(*w);
    if (config_.pattern == Pattern::ordered) {
        p.buffer.assign(data.begin(), data.end());
        p.write.data = p.buffer;
    }
    pending_.push_back(std::move(p));
}

void Workload::end_overlapping(std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors) {
    for (std::size_t i = pending_.size(); i-- > 0;) {
        const Machine::Write& w = pending_[i].write;
        if (w.dev == dev && w.sector < sector + sectors && sector < w.sector + w.sectors)
            end_one(i);
    }
}

void Workload::end_one(std::size_t at) {
    Pending p = std::move(pending_[at]);
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(at));
    const std::uint64_t dice = below(100);
    if (dice < config_.cancel_percent && config_.pattern != Pattern::ordered) {
        machine_.finish(p.write, End::cancelled);
        {
            const std::scoped_lock held(lock_);
            ++stats_.cancelled;
        }
        auto again = machine_.submit(p.write.op, p.write.dev, p.write.sector, p.write.sectors, p.write.data);
        if (!again)
            return;
        p.write = std::move(*again);
    }
    const bool fails = dice >= 100 - config_.fail_percent;
    if (!fails || below(2) == 0) {
        if (auto r = machine_.execute(p.write); !r) {
            machine_.finish(p.write, End::failed);
            const std::scoped_lock held(lock_);
            stats_.error = r.error().text;
            return;
        }
    }
    machine_.finish(p.write, fails ? End::failed : End::done);
    if (fails) {
        const std::scoped_lock held(lock_);
        ++stats_.failed;
    }
}

}  // namespace blkferry::producer
