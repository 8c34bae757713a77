// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace blkferry::tools {

/// The remaining time of a job, from a smoothed rate; pure: time comes in as milliseconds.
class Eta {
public:
    void update(std::uint64_t now_ms, std::uint64_t done) noexcept;
    /// Milliseconds left; nothing while the rate is unknown or 0.
    [[nodiscard]] std::optional<std::uint64_t> left_ms(std::uint64_t done, std::uint64_t total) const noexcept;
    [[nodiscard]] double rate_per_ms() const noexcept { return rate_; }

private:
    std::optional<std::uint64_t> last_ms_;
    std::uint64_t last_done_ = 0;
    double rate_ = 0;
};

/// "[#####-----] 50.0 %" of `width` cells. Full only if complete.
[[nodiscard]] std::string bar(std::uint64_t done, std::uint64_t total, bool complete, unsigned width);

/// Shows a running job on stderr: one line redrawn on a terminal, a plain line each 5 seconds in a pipe.
class ProgressLine {
public:
    /// quiet: shows nothing.
    ProgressLine(std::string label, bool terminal, bool quiet) noexcept;
    ~ProgressLine();
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    void update(std::uint64_t now_ms, std::uint64_t done, std::uint64_t total);
    void update(std::uint64_t now_ms, std::string_view text);
    /// Ends the redrawn line.
    void finish();

private:
    void show(std::uint64_t now_ms, const std::string& text);

    std::string label_;
    bool terminal_;
    bool quiet_;
    Eta eta_;
    std::optional<std::uint64_t> shown_ms_;
    bool drawn_ = false;
};

}  // namespace blkferry::tools
