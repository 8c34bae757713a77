// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>

#include "base/fd.hpp"
#include "config/schema.hpp"
#include "config/toml_file.hpp"

namespace blkferry::config {

namespace {

constexpr std::size_t file_bytes_max = 1U << 20;
constexpr std::size_t listen_max = 16;
constexpr std::size_t path_bytes_max = 4096;
constexpr std::size_t name_bytes_max = 64;

constexpr std::array<std::string_view, 3> compression_names = {"none", "lz4", "zstd"};
constexpr std::array<std::string_view, 4> level_names = {"error", "warning", "info", "debug"};
constexpr std::array<std::string_view, 3> capture_names = {"auto", "module", "ebpf"};
constexpr std::array<std::string_view, 3> engine_names = {"auto", "reflink", "copy"};

std::string_view written_as(const TomlValue& value) {
    struct Visitor {
        std::string_view operator()(const std::string&) const { return "a string"; }
        std::string_view operator()(std::int64_t) const { return "an integer"; }
        std::string_view operator()(double) const { return "a number with fraction"; }
        std::string_view operator()(bool) const { return "a boolean"; }
        std::string_view operator()(const std::vector<std::string>&) const { return "an array"; }
        std::string_view operator()(const OtherValue& v) const { return v.kind; }
    };
    return std::visit(Visitor{}, value);
}

std::unexpected<Error> ill_typed(const TomlValue& value, std::string_view wanted) {
    return fail(Errc::invalid, fmt::format("{} expected, not {}", wanted, written_as(value)));
}

Result<std::string> text_of(const TomlValue& value, std::string_view wanted) {
    if (const auto* s = std::get_if<std::string>(&value)) {
        if (s->find('\0') != std::string::npos)
            return fail(Errc::invalid, "a zero byte is not possible here");
        return *s;
    }
    return ill_typed(value, wanted);
}

std::string shown(std::uint64_t number, Unit unit) {
    switch (unit) {
        case Unit::size: return fmt::format("\"{}\"", format_size(number));
        case Unit::rate: return fmt::format("\"{}\"", format_rate(number));
        case Unit::span: return fmt::format("\"{}\"", format_duration_ms(number));
        case Unit::none:
        case Unit::seconds:
        case Unit::milliseconds: break;
    }
    return fmt::format("{}", number);
}

Result<std::uint64_t> check_range(std::uint64_t number, Unit unit, const Range& range) {
    if (number < range.min || number > range.max)
        return fail(Errc::invalid, fmt::format("{} is out of range, {} .. {} possible", shown(number, unit),
                                               shown(range.min, unit), shown(range.max, unit)));
    if (number % range.multiple_of != 0)
        return fail(Errc::invalid,
                    fmt::format("{} is not a multiple of {}", shown(number, unit), shown(range.multiple_of, unit)));
    return number;
}

Result<std::uint64_t> number_of(const TomlValue& value, Unit unit, const Range& range) {
    if (unit == Unit::size || unit == Unit::rate) {
        const bool size = unit == Unit::size;
        BLKFERRY_TRY_ASSIGN(const std::string text, text_of(value, size ? "a size such as \"64MiB\"" : "a rate such as \"20mbit\""));
        BLKFERRY_TRY_ASSIGN(const std::uint64_t number, size ? parse_size(text) : parse_rate(text));
        return check_range(number, unit, range);
    }
    if (unit == Unit::span) {
        BLKFERRY_TRY_ASSIGN(const std::string text, text_of(value, "a time such as \"7d\""));
        BLKFERRY_TRY_ASSIGN(const std::uint64_t number, parse_duration_ms(text));
        return check_range(number, unit, range);
    }
    const auto* integer = std::get_if<std::int64_t>(&value);
    if (integer == nullptr)
        return ill_typed(value, "an integer");
    if (*integer < 0)
        return fail(Errc::invalid, fmt::format("{} is out of range, {} .. {} possible", *integer, range.min, range.max));
    return check_range(static_cast<std::uint64_t>(*integer), unit, range);
}

Result<std::filesystem::path> path_of(const TomlValue& value) {
    BLKFERRY_TRY_ASSIGN(const std::string text, text_of(value, "a path"));
    const std::filesystem::path path(text);
    if (text.size() > path_bytes_max)
        return fail(Errc::invalid, "the path is too long");
    if (!text.empty() && !path.is_absolute())
        return fail(Errc::invalid, fmt::format("'{}': an absolute path is expected", text));
    return path;
}

bool valid_name(std::string_view name) {
    const auto letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    };
    return !name.empty() && name.size() <= name_bytes_max && letter(name.front()) &&
           std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || c == '.' || c == '-'; });
}

template <class Enum>
Result<Enum> enum_of(const TomlValue& value) {
    const auto names = names_of(Enum{});
    BLKFERRY_TRY_ASSIGN(const std::string text, text_of(value, "a string"));
    const auto it = std::find(names.begin(), names.end(), text);
    if (it == names.end())
        return fail(Errc::invalid, fmt::format("'{}': one of {} expected", text, fmt::join(names, ", ")));
    return static_cast<Enum>(it - names.begin());
}

template <class C>
struct Setter {
    C& config;
    const Key<C>& key;
    const TomlValue& value;

    template <class T>
    static Result<void> put(T& field, Result<T> result) {
        BLKFERRY_TRY_ASSIGN(field, std::move(result));
        return {};
    }
    Result<void> operator()(std::string C::*field) const {
        BLKFERRY_TRY_ASSIGN(const std::string text, text_of(value, "a string"));
        const bool must = key.rule == Rule::name || (key.rule == Rule::optional_name && !text.empty());
        if (must && !valid_name(text))
            return fail(Errc::invalid, fmt::format("'{}': 1 to {} letters, digits, '.', '-', '_' expected", text, name_bytes_max));
        if (key.rule == Rule::proxy && !text.empty())
            BLKFERRY_TRY(parse_proxy(text));
        config.*field = text;
        return {};
    }
    Result<void> operator()(std::filesystem::path C::*field) const {
        BLKFERRY_TRY(put(config.*field, path_of(value)));
        if ((config.*field).empty() && key.fallback != "\"\"")
            return fail(Errc::invalid, "a path is expected, not an empty string");
        return {};
    }
    Result<void> operator()(std::uint64_t C::*field) const { return put(config.*field, number_of(value, key.unit, key.range)); }
    Result<void> operator()(std::int64_t C::*field) const {
        BLKFERRY_TRY_ASSIGN(const std::uint64_t number, number_of(value, key.unit, key.range));
        config.*field = static_cast<std::int64_t>(number);
        return {};
    }
    Result<void> operator()(std::vector<Endpoint> C::*field) const {
        std::vector<std::string> single;
        const auto* texts = std::get_if<std::vector<std::string>>(&value);
        if (const auto* one = std::get_if<std::string>(&value); one != nullptr && key.rule == Rule::one_or_more) {
            single.push_back(*one);
            texts = &single;
        }
        if (texts == nullptr)
            return ill_typed(value, key.rule == Rule::one_or_more ? "a string \"host:port\", or an array of them,"
                                                                  : "an array of strings \"host:port\"");
        if (texts->empty() || texts->size() > listen_max)
            return fail(Errc::invalid, fmt::format("1 .. {} addresses expected", listen_max));
        (config.*field).clear();
        for (const std::string& text : *texts) {
            BLKFERRY_TRY_ASSIGN(Endpoint endpoint, parse_endpoint(text, default_port));
            (config.*field).push_back(std::move(endpoint));
        }
        return {};
    }
    Result<void> operator()(Compression C::*field) const { return put(config.*field, enum_of<Compression>(value)); }
    Result<void> operator()(LogLevel C::*field) const { return put(config.*field, enum_of<LogLevel>(value)); }
    Result<void> operator()(Capture C::*field) const { return put(config.*field, enum_of<Capture>(value)); }
    Result<void> operator()(SnapshotEngine C::*field) const { return put(config.*field, enum_of<SnapshotEngine>(value)); }
};

// A default is written as it stands in the file, and goes the same way as a value from there.
template <class C>
void set_default(C& config, const Key<C>& key) {
    const auto entries = parse_toml(fmt::format("{} = {}", key.name, key.fallback), "default");
    BLKFERRY_ASSERT(entries && entries->size() == 1);
    const auto set = std::visit(Setter<C>{config, key, entries->front().value}, key.field);
    BLKFERRY_ASSERT(set.has_value());
}

template <class C>
Result<C> parse(std::string_view toml, std::string_view name, std::span<const Key<C>> schema) {
    BLKFERRY_TRY_ASSIGN(const auto entries, parse_toml(toml, name));
    C config;
    for (const Key<C>& key : schema) {
        if (!key.fallback.empty())
            set_default(config, key);
    }
    std::set<std::string_view> seen;
    for (const TomlEntry& entry : entries) {
        const auto key = std::find_if(schema.begin(), schema.end(), [&](const Key<C>& k) { return k.name == entry.key; });
        if (key == schema.end())
            return fail(Errc::invalid, fmt::format("{}:{}: unknown key '{}'", name, entry.line, entry.key));
        const auto set = std::visit(Setter<C>{config, *key, entry.value}, key->field);
        if (!set)
            return std::unexpected(Error(set.error()).with(fmt::format("{}:{}: {}", name, entry.line, entry.key)));
        seen.insert(key->name);
    }
    for (const Key<C>& key : schema) {
        if (key.fallback.empty() && !seen.contains(key.name))
            return fail(Errc::invalid, fmt::format("{}: the key '{}' is missing (for example {} = {})", name, key.name, key.name,
                                                   key.example));
    }
    return config;
}

template <class C>
Changes changes(const C& before, const C& after, std::span<const Key<C>> schema) {
    Changes out;
    for (const Key<C>& key : schema) {
        if (std::visit([&](auto field) { return before.*field == after.*field; }, key.field))
            continue;
        out.changed.emplace_back(key.name);
        if (!key.reloads)
            out.needs_restart.emplace_back(key.name);
    }
    return out;
}

template <class C>
void take_reloadable(C& running, const C& fresh, std::span<const Key<C>> schema) {
    for (const Key<C>& key : schema)
        if (key.reloads)
            std::visit([&](auto field) { running.*field = fresh.*field; }, key.field);
}

}  // namespace

std::span<const std::string_view> names_of(Compression) noexcept { return compression_names; }
std::span<const std::string_view> names_of(LogLevel) noexcept { return level_names; }
std::span<const std::string_view> names_of(SnapshotEngine) noexcept { return engine_names; }
std::span<const std::string_view> names_of(Capture) noexcept { return capture_names; }

std::string_view to_string(Capture value) noexcept { return capture_names[static_cast<std::size_t>(value)]; }
std::string_view to_string(Compression value) noexcept { return compression_names[static_cast<std::size_t>(value)]; }
std::string_view to_string(LogLevel value) noexcept { return level_names[static_cast<std::size_t>(value)]; }
std::string_view to_string(SnapshotEngine value) noexcept { return engine_names[static_cast<std::size_t>(value)]; }

Result<AgentConfig> parse_agent(std::string_view toml, std::string_view name) { return parse(toml, name, agent_schema()); }
Result<ServerConfig> parse_server(std::string_view toml, std::string_view name) {
    return parse(toml, name, server_schema());
}

Result<AgentConfig> load_agent(const std::filesystem::path& file) {
    BLKFERRY_TRY_ASSIGN(const std::string text, read_text_file(file, file_bytes_max));
    return parse_agent(text, file.string());
}
Result<ServerConfig> load_server(const std::filesystem::path& file) {
    BLKFERRY_TRY_ASSIGN(const std::string text, read_text_file(file, file_bytes_max));
    return parse_server(text, file.string());
}

std::string to_string(const std::vector<Endpoint>& endpoints) {
    std::string out;
    for (const Endpoint& e : endpoints)
        out += (out.empty() ? "" : ", ") + e.str();
    return out;
}

Changes compare(const AgentConfig& before, const AgentConfig& after) { return changes(before, after, agent_schema()); }
Changes compare(const ServerConfig& before, const ServerConfig& after) { return changes(before, after, server_schema()); }
void take_over(AgentConfig& running, const AgentConfig& fresh) { take_reloadable(running, fresh, agent_schema()); }
void take_over(ServerConfig& running, const ServerConfig& fresh) { take_reloadable(running, fresh, server_schema()); }

}  // namespace blkferry::config
