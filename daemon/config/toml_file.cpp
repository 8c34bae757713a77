// SPDX-License-Identifier: Apache-2.0
#include "config/toml_file.hpp"

#include <algorithm>
#include <sstream>

#include <fmt/format.h>
#include <toml++/toml.h>

namespace blkferry::config {

namespace {

std::string kind_of(const toml::node& node) {
    std::ostringstream out;
    out << node.type();
    return std::move(out).str();
}

TomlValue value_of(const toml::node& node) {
    if (const auto* s = node.as_string())
        return s->get();
    if (const auto* i = node.as_integer())
        return i->get();
    if (const auto* f = node.as_floating_point())
        return f->get();
    if (const auto* b = node.as_boolean())
        return b->get();
    if (const auto* array = node.as_array()) {
        std::vector<std::string> strings;
        for (const toml::node& entry : *array) {
            if (!entry.is_string())
                return OtherValue{"array of other things than strings"};
            strings.push_back(entry.as_string()->get());
        }
        return strings;
    }
    return OtherValue{kind_of(node)};
}

}  // namespace

Result<std::vector<TomlEntry>> parse_toml(std::string_view text, std::string_view name) {
    try {
        const toml::table table = toml::parse(text, name);
        std::vector<TomlEntry> entries;
        for (const auto& [key, node] : table)
            entries.push_back({std::string(key.str()), key.source().begin.line, value_of(node)});
        std::sort(entries.begin(), entries.end(), [](const TomlEntry& a, const TomlEntry& b) { return a.line < b.line; });
        return entries;
    } catch (const toml::parse_error& err) {
        return fail(Errc::invalid, fmt::format("{}:{}: {}", name, err.source().begin.line, err.description()));
    } catch (const std::exception& err) {
        return fail(Errc::invalid, fmt::format("{}: {}", name, err.what()));
    }
}

}  // namespace blkferry::config
