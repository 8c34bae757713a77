// SPDX-License-Identifier: Apache-2.0
#include "tools/human.hpp"

#include <algorithm>
#include <array>
#include <ctime>

#include <fmt/format.h>

namespace blkferry::tools {

namespace {

std::string scaled(std::uint64_t value, std::uint64_t step, const std::array<std::string_view, 7>& units) {
    if (value < step)
        return fmt::format("{} {}", value, units[0]);
    std::size_t unit = 0;
    double v = static_cast<double>(value);
    while (v >= static_cast<double>(step) && unit + 1 < units.size()) {
        v /= static_cast<double>(step);
        ++unit;
    }
    return fmt::format("{:.1f} {}", v, units[unit]);
}

// Code points, so that columns stay straight under UTF-8 names.
std::size_t width(std::string_view text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

std::string human_bytes(std::uint64_t bytes) {
    return scaled(bytes, 1024, {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"});
}

std::string human_rate(std::uint64_t bytes_per_second) {
    return scaled(bytes_per_second, 1000, {"B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"});
}

std::string human_ms(std::uint64_t ms) {
    const std::uint64_t s = ms / 1000;
    if (ms < 1000)
        return fmt::format("{} ms", ms);
    if (s < 60)
        return fmt::format("{}.{} s", s, ms % 1000 / 100);
    if (s < 3600)
        return fmt::format("{} min {:02} s", s / 60, s % 60);
    if (s < 86400)
        return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
    return fmt::format("{} d {:02} h", s / 86400, s % 86400 / 3600);
}

std::string human_ns(std::uint64_t ns) {
    if (ns < 1000)
        return fmt::format("{} ns", ns);
    if (ns < 1'000'000)
        return fmt::format("{}.{} us", ns / 1000, ns % 1000 / 100);
    if (ns < 1'000'000'000)
        return fmt::format("{}.{} ms", ns / 1'000'000, ns % 1'000'000 / 100'000);
    return human_ms(ns / 1'000'000);
}

std::string human_time(std::uint64_t ms_since_1970) {
    const auto seconds = static_cast<std::time_t>(ms_since_1970 / 1000);
    std::tm tm{};
    if (gmtime_r(&seconds, &tm) == nullptr)
        return "?";
    return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                       tm.tm_min, tm.tm_sec);
}

std::string human_percent(std::uint64_t done, std::uint64_t total, bool complete) {
    if (complete)
        return "100.0 %";
    if (total == 0)
        return "0.0 %";
    const double ratio = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
    const auto permille = std::min<unsigned>(static_cast<unsigned>(ratio * 1000.0), 999);
    return fmt::format("{}.{} %", permille / 10, permille % 10);
}

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        out += u < 0x20 || u == 0x7f ? '?' : c;
    }
    // C1 control characters arrive as two bytes of UTF-8.
    for (std::size_t i = 0; i + 1 < out.size(); ++i) {
        if (out[i] == '\xc2' && static_cast<unsigned char>(out[i + 1]) < 0xa0)
            out.replace(i, 2, "?");
    }
    return out;
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); ++i)
            widths[i] = std::max(widths[i], width(row[i]));
    }
    std::string out;
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            line += row[i];
            if (i + 1 < row.size())
                line.append(widths[i] - width(row[i]) + 2, ' ');
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + '\n';
    }
    return out;
}

}  // namespace blkferry::tools
