// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "server/options.hpp"

namespace blkferry::server {

/// Who did what when to certificates and tokens: one JSON object a line at the end of a file that nothing here ever shortens, and the same
/// as a log line. Secrets never come here. One thread at a time.
///
/// Refusals come from strangers: more than refusals_max in a minute are only counted, and told with the next line.
class Audit {
public:
    using Members = std::vector<std::pair<std::string_view, std::string>>;
    static constexpr unsigned refusals_max = 10;

    Audit(std::filesystem::path file, const Clock& clock, Log& log) : file_(std::move(file)), clock_(clock), log_(log) {}

    /// Durable before it returns. An error means that the event is not recorded: what it permits must not happen.
    [[nodiscard]] Result<void> record(std::string_view event, const Members& members);
    /// A refusal: recorded if there is room for it, logged if that fails.
    void refused(const Members& members);
    [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }

private:
    const std::filesystem::path file_;
    const Clock& clock_;
    Log& log_;
    std::uint64_t window_ns_ = 0;
    unsigned in_window_ = 0;
    std::uint64_t left_out_ = 0;
};

}  // namespace blkferry::server
