// SPDX-License-Identifier: Apache-2.0
#include "control/line_buffer.hpp"

#include <fmt/format.h>

namespace blkferry::control {

Result<std::optional<std::string>> LineBuffer::next() {
    const std::size_t end = buffer_.find('\n', searched_);
    const std::size_t length = end == std::string::npos ? buffer_.size() : end + 1;
    if (length > line_bytes_max_)
        return fail(Errc::invalid, fmt::format("line longer than {} bytes", line_bytes_max_));
    if (end == std::string::npos) {
        searched_ = buffer_.size();
        return std::nullopt;
    }
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    searched_ = 0;
    if (!line.empty() && line.back() == '\r')
        line.pop_back();
    return line;
}

}  // namespace blkferry::control
