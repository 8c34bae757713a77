// SPDX-License-Identifier: Apache-2.0
#include "base/uuid.hpp"

#include <sys/random.h>

#include <fmt/format.h>

namespace blkferry {

std::string Uuid::str() const {
    std::string s;
    s.reserve(36);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            s += '-';
        s += fmt::format("{:02x}", bytes[i]);
    }
    return s;
}

namespace {
int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}
}  // namespace

Result<Uuid> Uuid::parse(std::string_view text) {
    Uuid u;
    if (text.size() != 36)
        return fail(Errc::invalid, fmt::format("'{}' is not a UUID", text.substr(0, 64)));
    std::size_t at = 0;
    for (std::size_t i = 0; i < u.bytes.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            if (text[at++] != '-')
                return fail(Errc::invalid, fmt::format("'{}' is not a UUID", text));
        }
        const int hi = hex_digit(text[at]);
        const int lo = hex_digit(text[at + 1]);
        if (hi < 0 || lo < 0)
            return fail(Errc::invalid, fmt::format("'{}' is not a UUID", text));
        u.bytes[i] = static_cast<std::uint8_t>(hi * 16 + lo);
        at += 2;
    }
    return u;
}

Uuid Uuid::random() {
    Uuid u;
    BLKFERRY_ASSERT(::getrandom(u.bytes.data(), u.bytes.size(), 0) == static_cast<ssize_t>(u.bytes.size()));
    u.bytes[6] = static_cast<std::uint8_t>((u.bytes[6] & 0x0f) | 0x40);
    u.bytes[8] = static_cast<std::uint8_t>((u.bytes[8] & 0x3f) | 0x80);
    return u;
}

}  // namespace blkferry
