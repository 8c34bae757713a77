// SPDX-License-Identifier: Apache-2.0
#include "tools/progress.hpp"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

#include "tools/human.hpp"

namespace blkferry::tools {

namespace {
constexpr double smoothing = 0.3;
constexpr std::uint64_t plain_interval_ms = 5'000;
constexpr std::uint64_t redraw_interval_ms = 100;
constexpr unsigned bar_width = 30;
}  // namespace

void Eta::update(std::uint64_t now_ms, std::uint64_t done) noexcept {
    if (last_ms_ && now_ms > *last_ms_) {
        const double moved = done > last_done_ ? static_cast<double>(done - last_done_) : 0.0;
        const double rate = moved / static_cast<double>(now_ms - *last_ms_);
        rate_ = rate_ == 0 ? rate : rate_ + smoothing * (rate - rate_);
    } else if (last_ms_) {
        return;
    }
    last_ms_ = now_ms;
    last_done_ = done;
}

std::optional<std::uint64_t> Eta::left_ms(std::uint64_t done, std::uint64_t total) const noexcept {
    constexpr double far = 365.0 * 86'400'000.0;
    if (done >= total)
        return 0;
    if (rate_ <= 0)
        return std::nullopt;
    const double left = static_cast<double>(total - done) / rate_;
    return left > far ? std::nullopt : std::optional(static_cast<std::uint64_t>(left));
}

std::string bar(std::uint64_t done, std::uint64_t total, bool complete, unsigned width) {
    unsigned filled = 0;
    if (complete)
        filled = width;
    else if (total != 0 && width != 0)
        filled = std::min(static_cast<unsigned>(static_cast<double>(std::min(done, total)) / static_cast<double>(total) * width),
                          width - 1);
    return fmt::format("[{}{}] {}", std::string(filled, '#'), std::string(width - filled, '-'),
                       human_percent(done, total, complete));
}

ProgressLine::ProgressLine(std::string label, bool terminal, bool quiet) noexcept
    : label_(std::move(label)), terminal_(terminal), quiet_(quiet) {}
ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::update(std::uint64_t now_ms, std::uint64_t done, std::uint64_t total) {
    eta_.update(now_ms, done);
    const auto left = eta_.left_ms(done, total);
    std::string text = fmt::format("{} {} of {}", bar(done, total, total != 0 && done >= total, bar_width), human_bytes(done),
                                   human_bytes(total));
    if (left && *left != 0)
        text += fmt::format(", {} left", human_ms(*left));
    show(now_ms, text);
}

void ProgressLine::update(std::uint64_t now_ms, std::string_view text) { show(now_ms, std::string(text)); }

void ProgressLine::show(std::uint64_t now_ms, const std::string& text) {
    const std::uint64_t interval = terminal_ ? redraw_interval_ms : plain_interval_ms;
    if (quiet_ || (shown_ms_ && now_ms < *shown_ms_ + interval))
        return;
    shown_ms_ = now_ms;
    if (terminal_)
        fmt::print(stderr, "\r\033[K{}: {}", label_, text);
    else
        fmt::print(stderr, "{}: {}\n", label_, text);
    std::fflush(stderr);
    drawn_ = terminal_;
}

void ProgressLine::finish() {
    if (drawn_)
        fmt::print(stderr, "\n");
    drawn_ = false;
}

}  // namespace blkferry::tools
