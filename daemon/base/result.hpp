// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace blkferry {

/// What kind of operating error happened; the caller decides by it, people read the text.
enum class Errc : std::uint8_t {
    invalid,       ///< input refused: malformed, out of range, unknown key
    not_found,     ///< the named object does not exist
    exists,        ///< the named object exists already
    denied,        ///< certificate, identity or permission does not allow it
    busy,          ///< try again later
    again,         ///< nothing to do yet (would block, not drained)
    no_space,      ///< disk full, ring full, limit reached
    io,            ///< the operating system reported an I/O error
    corrupt,       ///< checksum, magic or invariant of stored or received data is wrong
    closed,        ///< the peer or the object went away
    timeout,       ///< a deadline passed
    unsupported,   ///< not available on this system or version
    conflict,      ///< contradicts the state of the object
};

[[nodiscard]] std::string_view to_string(Errc code) noexcept;

/// An operating error as a value: kind, the errno it stems from (0 if none) and a text that names the object.
struct Error {
    Errc code = Errc::invalid;
    int sys_errno = 0;
    std::string text;

    /// Puts `context: ` in front of the text; returns itself so that it can be passed on.
    [[nodiscard]] Error with(std::string_view context) &&;
};

template <class T>
using Result = std::expected<T, Error>;

/// An error without errno. Use as `return fail(Errc::invalid, fmt::format(...))`.
[[nodiscard]] std::unexpected<Error> fail(Errc code, std::string text);

/// An error from errno (taken by value so that the caller can save it first): picks the kind and appends strerror.
[[nodiscard]] std::unexpected<Error> fail_errno(int err, std::string_view what);

/// Broken invariant: prints to stderr and aborts. For conditions that only a bug can cause.
[[noreturn]] void panic(std::string_view what, const char* file, int line) noexcept;

}  // namespace blkferry

#define BLKFERRY_CONCAT2(a, b) a##b
#define BLKFERRY_CONCAT(a, b) BLKFERRY_CONCAT2(a, b)

/// Returns the error of a Result<void>-like expression from the enclosing function.
#define BLKFERRY_TRY(expr)                                              \
    do {                                                                \
        if (auto blkferry_r = (expr); !blkferry_r) [[unlikely]]         \
            return std::unexpected(std::move(blkferry_r).error());      \
    } while (false)

/// `BLKFERRY_TRY_ASSIGN(auto x, f());` declares x with the value, or returns the error.
#define BLKFERRY_TRY_ASSIGN(decl, expr)                                              \
    auto BLKFERRY_CONCAT(blkferry_r_, __LINE__) = (expr);                            \
    if (!BLKFERRY_CONCAT(blkferry_r_, __LINE__)) [[unlikely]]                        \
        return std::unexpected(std::move(BLKFERRY_CONCAT(blkferry_r_, __LINE__)).error()); \
    decl = std::move(*BLKFERRY_CONCAT(blkferry_r_, __LINE__))

/// Aborts when an invariant does not hold (in every build type).
#define BLKFERRY_ASSERT(cond) ((cond) ? void() : ::blkferry::panic(#cond, __FILE__, __LINE__))
