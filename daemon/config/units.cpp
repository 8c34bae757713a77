// SPDX-License-Identifier: Apache-2.0
#include "config/units.hpp"

#include <array>
#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <span>

#include <fmt/format.h>

namespace blkferry::config {

namespace {

struct Unit {
    std::string_view name;  // lower case
    std::uint64_t factor;
};

constexpr std::uint64_t kib = 1024;
constexpr std::array size_units = std::to_array<Unit>({{"", 1},
                                                       {"b", 1},
                                                       {"kib", kib},
                                                       {"mib", kib* kib},
                                                       {"gib", kib* kib* kib},
                                                       {"tib", kib* kib* kib* kib},
                                                       {"kb", 1'000},
                                                       {"mb", 1'000'000},
                                                       {"gb", 1'000'000'000},
                                                       {"tb", 1'000'000'000'000}});
/// Bits per second.
constexpr std::array rate_units = std::to_array<Unit>({{"bit", 1},
                                                       {"kbit", 1'000},
                                                       {"mbit", 1'000'000},
                                                       {"gbit", 1'000'000'000},
                                                       {"byte", 8},
                                                       {"kbyte", 8'000},
                                                       {"mbyte", 8'000'000},
                                                       {"gbyte", 8'000'000'000},
                                                       {"b/s", 8},
                                                       {"kb/s", 8'000},
                                                       {"mb/s", 8'000'000},
                                                       {"gb/s", 8'000'000'000}});
constexpr std::array time_units = std::to_array<Unit>(
    {{"ms", 1}, {"s", 1'000}, {"min", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}});

constexpr std::size_t text_bytes_max = 64;
constexpr int fraction_digits_max = 6;
constexpr std::uint64_t rate_bits_min = 8'000;

std::string shown(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, text_bytes_max))
        out += c >= ' ' && c <= '~' ? c : '?';
    return out;
}

/// A decimal number as number / 10^digits, so that no binary fraction ever rounds it.
struct Number {
    std::uint64_t value = 0;
    std::uint64_t divisor = 1;
};

std::optional<Number> take_number(std::string_view& text) {
    Number n;
    const char* end = text.data() + text.size();
    auto [at, err] = std::from_chars(text.data(), end, n.value);
    if (err != std::errc() || at == text.data())
        return std::nullopt;
    if (at != end && *at == '.') {
        const char* first = ++at;
        while (at != end && *at >= '0' && *at <= '9') {
            if (at - first >= fraction_digits_max ||
                n.value > (std::numeric_limits<std::uint64_t>::max() - 9) / 10)
                return std::nullopt;
            n.value = n.value * 10 + static_cast<std::uint64_t>(*at++ - '0');
            n.divisor *= 10;
        }
        if (at == first)
            return std::nullopt;
    }
    text.remove_prefix(static_cast<std::size_t>(at - text.data()));
    return n;
}

std::optional<std::uint64_t> factor_of(std::string_view unit, std::span<const Unit> units) {
    std::string lower(unit);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    const auto it = std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.name == lower; });
    return it == units.end() ? std::nullopt : std::optional(it->factor);
}

// number * factor / divisor, exact or nothing.
std::optional<std::uint64_t> scale(const Number& n, std::uint64_t factor) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(n.value) * factor;
    if (product % n.divisor != 0 || product / n.divisor > std::numeric_limits<std::uint64_t>::max())
        return std::nullopt;
    return static_cast<std::uint64_t>(product / n.divisor);
}

Result<std::uint64_t> parse(std::string_view text, std::span<const Unit> units, std::string_view example) {
    std::string_view rest = text;
    if (text.size() <= text_bytes_max) {
        if (const auto number = take_number(rest)) {
            if (rest.starts_with(' ') && rest.size() > 1)
                rest.remove_prefix(1);
            if (const auto factor = factor_of(rest, units)) {
                if (const auto value = scale(*number, *factor))
                    return *value;
                return fail(Errc::invalid, fmt::format("'{}' is too large, or not a whole number of the smallest unit", shown(text)));
            }
        }
    }
    return fail(Errc::invalid, fmt::format("'{}' is not of the form {}", shown(text), example));
}

template <std::size_t N>
std::string format(std::uint64_t value, const std::array<Unit, N>& units, std::initializer_list<std::size_t> order) {
    for (const std::size_t i : order) {
        if (value % units[i].factor == 0)
            return fmt::format("{}{}", value / units[i].factor, units[i].name);
    }
    return fmt::format("{}", value);
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    return parse(text, size_units, "\"64MiB\" (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)");
}

std::string format_size(std::uint64_t bytes) {
    if (bytes == 0)
        return "0";
    constexpr std::array<Unit, 4> names = {Unit{"TiB", kib * kib * kib * kib}, Unit{"GiB", kib * kib * kib},
                                           Unit{"MiB", kib * kib}, Unit{"KiB", kib}};
    return format(bytes, names, {0, 1, 2, 3});
}

Result<std::uint64_t> parse_rate(std::string_view text) {
    if (text == "0" || text == "unlimited")
        return 0;
    BLKFERRY_TRY_ASSIGN(const std::uint64_t bits,
                        parse(text, rate_units, "\"20mbit\" (bit, kbit, mbit, gbit, byte, kbyte, mbyte, gbyte, MB/s), "
                                                "\"0\" = no limit"));
    if (bits < rate_bits_min)
        return fail(Errc::invalid, fmt::format("'{}': the slowest rate is 8kbit, \"0\" = no limit", shown(text)));
    if (bits % 8 != 0)
        return fail(Errc::invalid, fmt::format("'{}' is not a whole number of bytes per second", shown(text)));
    return bits / 8;
}

std::string format_rate(std::uint64_t bytes_per_second) {
    if (bytes_per_second == 0)
        return "0";
    // In bits where they fit, else in bytes.
    if (bytes_per_second <= std::numeric_limits<std::uint64_t>::max() / 8)
        return format(bytes_per_second * 8, rate_units, {3, 2, 1, 0});
    return fmt::format("{}byte", bytes_per_second);
}

Result<std::uint64_t> parse_duration_ms(std::string_view text) {
    if (text == "0")
        return 0;
    return parse(text, time_units, "\"200ms\" (ms, s, min, h, d)");
}

std::string format_duration_ms(std::uint64_t ms) {
    return ms == 0 ? "0" : format(ms, time_units, {4, 3, 2, 1, 0});
}

std::string Endpoint::str() const {
    return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

Result<Endpoint> parse_endpoint(std::string_view text, std::uint16_t default_port) {
    const auto refuse = [&](std::string_view why) {
        return fail(Errc::invalid, fmt::format("'{}': {} (\"name:1500\", \"192.0.2.1:1500\", \"[2001:db8::1]:1500\")", shown(text), why));
    };
    Endpoint out{std::string(), default_port};
    std::string_view rest = text;
    if (rest.starts_with('[')) {
        const std::size_t end = rest.find(']');
        if (end == std::string_view::npos)
            return refuse("']' is missing");
        out.host = rest.substr(1, end - 1);
        rest.remove_prefix(end + 1);
        // A zone such as %eth0 may follow the address.
        const std::string_view address = std::string_view(out.host).substr(0, out.host.find('%'));
        const std::string_view zone = std::string_view(out.host).substr(address.size());
        const bool v6 = address.find(':') != std::string_view::npos &&
                        address.find_first_not_of("0123456789abcdefABCDEF:.") == std::string_view::npos &&
                        zone.size() != 1 && zone.find_first_of("[]:%", 1) == std::string_view::npos;
        if (!v6)
            return refuse("no IPv6 address between the brackets");
    } else {
        const std::size_t colon = rest.find(':');
        out.host = rest.substr(0, colon);
        rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon);
        if (rest.find(':', 1) != std::string_view::npos && rest.size() > 1)
            return refuse("an IPv6 address stands in brackets");
    }
    if (out.host.empty() || out.host.size() > 253)
        return refuse("a host of 1 to 253 bytes is expected");
    if (std::any_of(out.host.begin(), out.host.end(), [](char c) { return c <= ' ' || c > '~' || c == '/' || c == '@'; }))
        return refuse("no valid host");
    if (rest.empty())
        return out;
    if (!rest.starts_with(':'))
        return refuse("':' and a port are expected behind the ']'");
    rest.remove_prefix(1);
    const auto [at, err] = std::from_chars(rest.data(), rest.data() + rest.size(), out.port);
    if (rest.empty() || err != std::errc() || at != rest.data() + rest.size() || out.port == 0)
        return refuse("a port 1 .. 65535 is expected behind the last ':'");
    return out;
}

Result<ProxyUrl> parse_proxy(std::string_view url) {
    constexpr std::uint16_t proxy_port_default = 3128;
    constexpr std::size_t proxy_user_bytes_max = 256;
    constexpr std::string_view scheme = "http://";
    if (!url.starts_with(scheme))
        return fail(Errc::invalid, "'http://[USER@]HOST[:PORT]' expected (the tunnel is encrypted end to end, the way to the proxy need not be)");
    std::string_view rest = url.substr(scheme.size());
    if (rest.ends_with('/'))
        rest.remove_suffix(1);
    ProxyUrl out;
    if (const std::size_t at = rest.rfind('@'); at != std::string_view::npos) {
        const std::string_view user = rest.substr(0, at);
        if (user.find(':') != std::string_view::npos)
            return fail(Errc::invalid, "the password does not belong here: put it into a file of mode 0600 and name that in "
                                       "'proxy_password_file'");
        if (user.empty() || user.size() > proxy_user_bytes_max ||
            !std::ranges::all_of(user, [](char c) { return c > ' ' && c <= '~'; }))
            return fail(Errc::invalid, "the user's name is not usable");
        out.user = user;
        rest.remove_prefix(at + 1);
    }
    auto endpoint = parse_endpoint(rest, proxy_port_default);
    if (!endpoint)
        return std::unexpected(std::move(endpoint).error().with("the proxy's address"));
    out.at = std::move(*endpoint);
    return out;
}

}  // namespace blkferry::config
