// SPDX-License-Identifier: Apache-2.0
#include "codec/zero.hpp"

#include <algorithm>
#include <cstring>

namespace blkferry {

bool is_zero(std::span<const std::byte> data) noexcept {
    const auto head = data.first(std::min<std::size_t>(data.size(), 64));
    for (const std::byte b : head)
        if (b != std::byte{0})
            return false;
    if (data.size() <= head.size())
        return true;
    // The first 64 bytes are zero, so equality of the rest with the span 64 bytes before it makes all of it zero.
    return std::memcmp(data.data(), data.data() + head.size(), data.size() - head.size()) == 0;
}

}  // namespace blkferry
