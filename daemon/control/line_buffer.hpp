// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace blkferry::control {

/// Collects bytes and gives whole lines; never holds more than `line_bytes_max` of an unfinished one.
class LineBuffer {
public:
    explicit LineBuffer(std::size_t line_bytes_max) noexcept : line_bytes_max_(line_bytes_max) {}

    void append(std::string_view bytes) { buffer_.append(bytes); }
    /// The next line without its newline (and without a carriage return before it); nothing if none is whole. Errc::invalid:
    /// the line is longer than allowed; the buffer is of no use then.
    [[nodiscard]] Result<std::optional<std::string>> next();
    /// Bytes that wait.
    [[nodiscard]] std::size_t size() const noexcept { return buffer_.size(); }

private:
    std::string buffer_;
    std::size_t searched_ = 0;
    std::size_t line_bytes_max_;
};

}  // namespace blkferry::control
