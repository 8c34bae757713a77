// SPDX-License-Identifier: Apache-2.0
#include "tools/toml_edit.hpp"

#include <fmt/format.h>

namespace blkferry::tools {

namespace {

/// The key that a line sets, with or without '#' before it; empty: none.
std::string_view key_of(std::string_view line, bool commented) {
    constexpr std::string_view white = " \t";
    line.remove_prefix(std::min(line.find_first_not_of(white), line.size()));
    if (commented != line.starts_with('#'))
        return {};
    if (commented)
        line.remove_prefix(1);  // "#key = value", no space: as the default file has it; prose has one
    const std::size_t end = line.find_first_of(" \t=");
    if (end == 0 || end == std::string_view::npos)
        return {};
    const std::size_t equals = line.find_first_not_of(white, end);
    return equals != std::string_view::npos && line[equals] == '=' ? line.substr(0, end) : std::string_view();
}

}  // namespace

std::string set_keys(std::string_view toml, const std::vector<std::pair<std::string, std::string>>& keys) {
    std::vector<std::string> lines;
    while (!toml.empty()) {
        const std::size_t end = std::min(toml.find('\n'), toml.size());
        lines.emplace_back(toml.substr(0, end));
        toml.remove_prefix(std::min(end + 1, toml.size()));
    }
    for (const auto& [key, value] : keys) {
        const std::string line = fmt::format("{} = {}", key, value);
        std::string* place = nullptr;
        for (const bool commented : {true, false})
            for (std::string& l : lines)
                if (key_of(l, commented) == key)
                    place = &l;
        if (place != nullptr)
            *place = line;
        else
            lines.push_back(line);
    }
    std::string out;
    for (const std::string& l : lines)
        out += l + "\n";
    return out;
}

std::string toml_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\')
            out += '\\';
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        else
            out += c;
    }
    return out + "\"";
}

}  // namespace blkferry::tools
