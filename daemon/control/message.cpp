// SPDX-License-Identifier: Apache-2.0
#include "control/message.hpp"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace blkferry::control {

namespace {

constexpr std::array all_codes = {Errc::invalid, Errc::not_found, Errc::exists,  Errc::denied,      Errc::busy,
                                  Errc::again,   Errc::no_space,  Errc::io,      Errc::corrupt,     Errc::closed,
                                  Errc::timeout, Errc::unsupported, Errc::conflict};

std::unexpected<Error> wrong_type(std::string_view key, std::string_view wanted) {
    return fail(Errc::invalid, fmt::format("member '{}': {} expected", key, wanted));
}

const Json* find(const Json& request, std::string_view key) {
    if (!request.is_object())
        return nullptr;
    const auto it = request.find(key);
    return it == request.end() ? nullptr : &*it;
}

std::unexpected<Error> missing(std::string_view key) {
    return fail(Errc::invalid, fmt::format("member '{}' is missing", key));
}

}  // namespace

Result<Json> parse_line(std::string_view line) {
    bool deep = false;
    bool twice = false;
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
        if (static_cast<std::size_t>(depth) > json_depth_max)
            deep = true;
        if (event == Json::parse_event_t::object_start)
            keys.emplace_back();
        else if (event == Json::parse_event_t::object_end && !keys.empty())
            keys.pop_back();
        else if (event == Json::parse_event_t::key && !keys.empty()) {
            twice = twice || !keys.back().insert(value.get_ref<const std::string&>()).second;
        }
        return !deep;
    };
    // The parser itself is iterative; the depth is bounded for whoever walks or destroys the value.
    Json message = Json::parse(line, watch, false);
    if (deep)
        return fail(Errc::invalid, fmt::format("JSON nested deeper than {} levels", json_depth_max));
    if (message.is_discarded())
        return fail(Errc::invalid, "not JSON");
    if (!message.is_object())
        return fail(Errc::invalid, "a JSON object is expected");
    if (twice)
        return fail(Errc::invalid, "a member appears twice");
    return message;
}

std::string to_line(const Json& message) {
    std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace);
    line += '\n';
    return line;
}

Json error_message(const Error& error) {
    return Json{{"ok", false}, {"end", true}, {"code", std::string(to_string(error.code))}, {"error", error.text}};
}

Errc errc_of(std::string_view code) noexcept {
    const auto it = std::find_if(all_codes.begin(), all_codes.end(), [&](Errc e) { return to_string(e) == code; });
    return it == all_codes.end() ? Errc::io : *it;
}

Error error_of(const Json& message) {
    const Json* code = find(message, "code");
    const Json* text = find(message, "error");
    Error error{Errc::io, 0, "the daemon tells an error without a text"};
    if (code != nullptr && code->is_string())
        error.code = errc_of(code->get_ref<const std::string&>());
    if (text != nullptr && text->is_string())
        error.text = text->get_ref<const std::string&>();
    return error;
}

Result<std::string> need_string(const Json& request, std::string_view key) {
    const Json* value = find(request, key);
    if (value == nullptr)
        return missing(key);
    if (!value->is_string())
        return wrong_type(key, "a string");
    return value->get_ref<const std::string&>();
}

Result<std::string> get_string(const Json& request, std::string_view key, std::string_view default_value) {
    return find(request, key) == nullptr ? Result<std::string>(default_value) : need_string(request, key);
}

Result<std::uint64_t> need_u64(const Json& request, std::string_view key) {
    const Json* value = find(request, key);
    if (value == nullptr)
        return missing(key);
    if (!value->is_number_unsigned() && !(value->is_number_integer() && value->get<std::int64_t>() >= 0))
        return wrong_type(key, "a number 0 .. 2^64 - 1 without fraction");
    return value->get<std::uint64_t>();
}

Result<std::uint64_t> get_u64(const Json& request, std::string_view key, std::uint64_t default_value) {
    return find(request, key) == nullptr ? Result<std::uint64_t>(default_value) : need_u64(request, key);
}

Result<bool> get_bool(const Json& request, std::string_view key, bool default_value) {
    const Json* value = find(request, key);
    if (value == nullptr)
        return default_value;
    if (!value->is_boolean())
        return wrong_type(key, "true or false");
    return value->get<bool>();
}

Result<std::vector<std::string>> get_strings(const Json& request, std::string_view key, std::size_t count_max) {
    std::vector<std::string> out;
    const Json* value = find(request, key);
    if (value == nullptr)
        return out;
    if (!value->is_array())
        return wrong_type(key, "an array of strings");
    if (value->size() > count_max)
        return fail(Errc::invalid, fmt::format("member '{}': at most {} entries possible", key, count_max));
    for (const Json& entry : *value) {
        if (!entry.is_string())
            return wrong_type(key, "an array of strings");
        out.push_back(entry.get_ref<const std::string&>());
    }
    return out;
}

Result<void> only_members(const Json& request, std::initializer_list<std::string_view> keys) {
    if (!request.is_object())
        return fail(Errc::invalid, "a JSON object is expected");
    for (const auto& [key, value] : request.items()) {
        if (key != "cmd" && std::find(keys.begin(), keys.end(), key) == keys.end())
            return fail(Errc::invalid, fmt::format("unknown member '{}'", key.substr(0, 64)));
    }
    return {};
}

}  // namespace blkferry::control
