// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/result.hpp"

namespace blkferry::server {

enum class Level : std::uint8_t { debug, info, warn, error };

[[nodiscard]] std::string_view to_string(Level level) noexcept;
/// "debug", "info", "warn" or "error".
[[nodiscard]] Result<Level> parse_level(std::string_view text);

/// Where the daemon's lines go: key=value, object first. Thread-safe.
class Log {
public:
    virtual ~Log() = default;
    virtual void write(Level level, std::string_view line) = 0;

    void set_level(Level level) noexcept { level_.store(level, std::memory_order_relaxed); }
    [[nodiscard]] bool enabled(Level level) const noexcept { return level >= level_.load(std::memory_order_relaxed); }

    template <class... A>
    void debug(fmt::format_string<A...> text, A&&... args) {
        line(Level::debug, text, std::forward<A>(args)...);
    }
    template <class... A>
    void info(fmt::format_string<A...> text, A&&... args) {
        line(Level::info, text, std::forward<A>(args)...);
    }
    template <class... A>
    void warn(fmt::format_string<A...> text, A&&... args) {
        line(Level::warn, text, std::forward<A>(args)...);
    }
    template <class... A>
    void error(fmt::format_string<A...> text, A&&... args) {
        line(Level::error, text, std::forward<A>(args)...);
    }

private:
    template <class... A>
    void line(Level level, fmt::format_string<A...> text, A&&... args) {
        if (enabled(level))
            write(level, fmt::format(text, std::forward<A>(args)...));
    }
    std::atomic<Level> level_{Level::info};
};

/// Lines on stderr; under systemd with the priority prefix of its journal instead of time and level.
[[nodiscard]] std::unique_ptr<Log> make_stderr_log();

/// A value for key=value: as it is if it is plain, else in double quotes with \" \\ and \xNN, cut after 512 bytes. Texts of
/// peers go through this, so that they cannot forge lines.
[[nodiscard]] std::string quote(std::string_view text);
[[nodiscard]] inline std::string quote(const Error& error) {
    return quote(error.text);
}

}  // namespace blkferry::server
