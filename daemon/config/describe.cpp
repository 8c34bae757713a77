// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "config/schema.hpp"

namespace blkferry::config {

namespace {

constexpr std::size_t comment_columns = 100;

std::string joined(std::span<const std::string_view> names) {
    std::string out;
    for (const std::string_view name : names)
        out += fmt::format("{}\"{}\"", out.empty() ? "" : ", ", name);
    return out;
}

template <class C>
struct Kind {
    const Key<C>& key;
    std::string operator()(std::string C::*) const { return key.rule == Rule::any || key.rule == Rule::proxy ? "string" : "name"; }
    std::string operator()(std::filesystem::path C::*) const { return "path"; }
    std::string operator()(std::uint64_t C::*) const {
        switch (key.unit) {
            case Unit::size: return "size";
            case Unit::rate: return "rate";
            case Unit::span: return "time";
            case Unit::seconds: return "integer (seconds)";
            case Unit::milliseconds: return "integer (milliseconds)";
            case Unit::none: break;
        }
        return "integer";
    }
    std::string operator()(std::int64_t C::*) const { return "integer"; }
    std::string operator()(std::vector<Endpoint> C::*) const {
        return key.rule == Rule::one_or_more ? "address, or array of addresses" : "array of addresses";
    }
    std::string operator()(Compression C::*) const { return "one of"; }
    std::string operator()(LogLevel C::*) const { return "one of"; }
    std::string operator()(SnapshotEngine C::*) const { return "one of"; }
    std::string operator()(Capture C::*) const { return "one of"; }
};

std::string bound(std::uint64_t value, Unit unit) {
    switch (unit) {
        case Unit::size: return format_size(value);
        case Unit::rate: return format_rate(value);
        case Unit::span: return format_duration_ms(value);
        case Unit::none:
        case Unit::seconds:
        case Unit::milliseconds: break;
    }
    return fmt::format("{}", value);
}

template <class C>
struct RangeText {
    const Key<C>& key;
    std::string numbers() const {
        const Range& r = key.range;
        std::string out;
        if (r.max >= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
            out = r.min == 0 ? "" : fmt::format("at least {}", bound(r.min, key.unit));
        else
            out = fmt::format("{} .. {}", bound(r.min, key.unit), bound(r.max, key.unit));
        if (r.multiple_of != 1)
            out += fmt::format(", a multiple of {}", bound(r.multiple_of, key.unit));
        return out;
    }
    std::string operator()(std::string C::*) const { return {}; }
    std::string operator()(std::filesystem::path C::*) const { return {}; }
    std::string operator()(std::uint64_t C::*) const { return numbers(); }
    std::string operator()(std::int64_t C::*) const { return numbers(); }
    std::string operator()(std::vector<Endpoint> C::*) const { return {}; }
    std::string operator()(Compression C::*) const { return joined(names_of(Compression{})); }
    std::string operator()(LogLevel C::*) const { return joined(names_of(LogLevel{})); }
    std::string operator()(SnapshotEngine C::*) const { return joined(names_of(SnapshotEngine{})); }
    std::string operator()(Capture C::*) const { return joined(names_of(Capture{})); }
};

template <class C>
std::vector<KeyHelp> help_of(std::span<const Key<C>> schema) {
    std::vector<KeyHelp> out;
    for (const Key<C>& key : schema)
        out.push_back({std::string(key.name), std::visit(Kind<C>{key}, key.field), std::string(key.fallback),
                       std::visit(RangeText<C>{key}, key.field), std::string(key.help), key.reloads});
    return out;
}

std::string comment(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        std::size_t cut = text.size();
        if (cut > comment_columns) {
            cut = text.rfind(' ', comment_columns);
            if (cut == std::string_view::npos)
                cut = std::min(text.find(' '), text.size());
        }
        out += fmt::format("# {}\n", text.substr(0, cut));
        text.remove_prefix(std::min(cut + 1, text.size()));
    }
    return out;
}

template <class C>
std::string default_file(std::string_view program, std::string_view manual, std::span<const Key<C>> schema) {
    std::string out = fmt::format("# Configuration of {}; the manual is {}.\n"
                                  "# A key that begins with '#' has the value shown, which is its default.\n",
                                  program, manual);
    const auto help = help_of(schema);
    for (std::size_t i = 0; i < schema.size(); ++i) {
        const KeyHelp& h = help[i];
        std::string facts = h.kind;
        if (!h.range.empty())
            facts += (h.kind == "one of" ? " " : ": ") + h.range;
        facts += h.reloads ? "; taken over by a reload" : "; needs a restart";
        out += "\n" + comment(h.help) + comment(fmt::format("({})", facts));
        if (h.default_value.empty())
            out += fmt::format("{} = {}\n", h.key, schema[i].example);
        else
            out += fmt::format("#{} = {}\n", h.key, h.default_value);
    }
    return out;
}

}  // namespace

std::vector<KeyHelp> agent_keys() { return help_of(agent_schema()); }
std::vector<KeyHelp> server_keys() { return help_of(server_schema()); }
std::string default_agent_file() { return default_file("blkferry-agent", "blkferry-agent.toml(5)", agent_schema()); }
std::string default_server_file() { return default_file("blkferry-server", "blkferry-server.toml(5)", server_schema()); }

}  // namespace blkferry::config
