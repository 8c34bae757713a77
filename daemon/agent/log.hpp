// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "config/config.hpp"

namespace blkferry::agent {

/// The agent's log: one line an event, key=value, the object first. On standard error; under systemd each line carries its
/// priority and no time (the journal has both).
class Log {
public:
    Log();
    ~Log();
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    void set_level(config::LogLevel level);
    void debug(std::string_view line);
    void info(std::string_view line);
    void warn(std::string_view line);
    void error(std::string_view line);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// A text as value: in double quotes, with quotes, backslashes and control characters escaped.
[[nodiscard]] std::string quote_value(std::string_view text);

}  // namespace blkferry::agent
