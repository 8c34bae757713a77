// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Numbers as people read them; pure.
namespace blkferry::tools {

/// "0 B", "999 B", "1.5 KiB", "64.0 MiB", ...
[[nodiscard]] std::string human_bytes(std::uint64_t bytes);
/// "12.3 MB/s": decimal, as links are sold.
[[nodiscard]] std::string human_rate(std::uint64_t bytes_per_second);
/// "350 ms", "2.4 s", "3 min 20 s", "2 h 05 min", "3 d 04 h".
[[nodiscard]] std::string human_ms(std::uint64_t ms);
/// "850 ns", "12.3 us", "4.5 ms", then as human_ms().
[[nodiscard]] std::string human_ns(std::uint64_t ns);
/// UTC, "2026-11-21 02:40:00".
[[nodiscard]] std::string human_time(std::uint64_t ms_since_1970);
/// Percent with one digit, rounded down: 100.0 only if done == total and nothing is left elsewhere (`complete`).
[[nodiscard]] std::string human_percent(std::uint64_t done, std::uint64_t total, bool complete);
/// Bytes that a terminal would act upon are shown as '?': names come from disks and peers.
[[nodiscard]] std::string printable(std::string_view text);

/// Rows in columns as wide as their widest cell; the first row is the heading.
[[nodiscard]] std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace blkferry::tools
