// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace blkferry::agent {

/// A place in a verification: everything before it, on disks of lower slots too, has been judged.
struct VerifyPlace {
    std::uint16_t slot = 0;
    std::uint64_t sector = 0;
    bool operator==(const VerifyPlace&) const = default;
};

/// What survives a restart of the agent about verifications of source against replica: `verify.json` in the state folder, a
/// few hundred bytes, replaced as a whole.
class VerifyState {
public:
    struct Running {
        std::vector<std::uint16_t> slots;  ///< ascending
        VerifyPlace place;
        std::uint64_t differing_bytes = 0; ///< found before `place`
        std::uint64_t unsettled_bytes = 0;
        std::uint64_t began_ms = 0;        ///< wall time
        bool scheduled = false;
        bool operator==(const Running&) const = default;
    };
    struct Last {
        std::uint64_t began_ms = 0;
        std::uint64_t ended_ms = 0;
        std::uint64_t compared_bytes = 0;
        std::uint64_t differing_bytes = 0;
        std::uint64_t unsettled_bytes = 0;
        std::string error;                 ///< why it ended before its end; empty: it did not
        bool operator==(const Last&) const = default;
        [[nodiscard]] bool equal() const noexcept { return error.empty() && differing_bytes == 0 && unsettled_bytes == 0; }
    };

    /// Reads the file. A missing or damaged one begins anew at `now_ms`: nothing in it is needed to be right. The error, if
    /// any, says what was wrong with it.
    static VerifyState open(const std::filesystem::path& dir, std::uint64_t now_ms, std::optional<Error>& damage);

    /// When the next scheduled one is due: an interval after the last one began (after the file was made, if there was none).
    /// A last one in the future (the clock was set back) counts as of the first call that sees it there. 0 if the interval is 0.
    [[nodiscard]] std::uint64_t due_ms(std::uint64_t interval_ms, std::uint64_t now_ms) const noexcept;

    [[nodiscard]] Result<void> save() const;
    [[nodiscard]] std::string text() const;
    [[nodiscard]] static Result<VerifyState> parse(const std::string& text);

    std::optional<Running> running;
    std::optional<Last> last;

private:
    std::filesystem::path path_;
    std::uint64_t made_ms_ = 0;
    mutable std::uint64_t set_back_ms_ = ~0ULL;  ///< what the clock showed when the last one was in the future first
};

}  // namespace blkferry::agent
