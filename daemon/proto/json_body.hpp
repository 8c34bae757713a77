// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "proto/limits.hpp"

/// Reading and writing JSON bodies; private to this library.
namespace blkferry::proto {

using nlohmann::json;

/// Reads members of one object; remembers the first complaint.
class Members {
public:
    explicit Members(const json& object) : object_(object) {}

    std::string text(const char* key, std::size_t max = text_bytes_max) {
        const json* v = member(key);
        if (v == nullptr || !v->is_string() || v->get_ref<const std::string&>().size() > max)
            return complain(key, fmt::format("text of at most {} bytes", max)), std::string();
        return v->get<std::string>();
    }
    std::uint64_t number(const char* key, std::uint64_t max) {
        const json* v = member(key);
        if (v == nullptr || !v->is_number_unsigned() || v->get<std::uint64_t>() > max)
            return complain(key, fmt::format("number of at most {}", max)), std::uint64_t{0};
        return v->get<std::uint64_t>();
    }
    bool flag(const char* key) {
        const json* v = member(key);
        if (v == nullptr || !v->is_boolean())
            return complain(key, "true or false"), false;
        return v->get<bool>();
    }
    Uuid uuid(const char* key) {
        const auto u = Uuid::parse(text(key, 36));
        if (!u) {
            complain(key, "a UUID");
            return {};
        }
        return *u;
    }
    const json* list(const char* key, std::size_t max) {
        const json* v = member(key);
        if (v == nullptr || !v->is_array() || v->size() > max)
            return complain(key, fmt::format("list of at most {} entries", max)), nullptr;
        return v;
    }
    std::vector<std::string> texts(const char* key) {
        std::vector<std::string> out;
        const json* v = list(key, 64);
        for (std::size_t i = 0; v != nullptr && i < v->size(); ++i) {
            const json& item = (*v)[i];
            if (!item.is_string() || item.get_ref<const std::string&>().size() > name_bytes_max) {
                complain(key, "list of short texts");
                break;
            }
            out.push_back(item.get<std::string>());
        }
        return out;
    }
    void complain(const char* key, const std::string& wanted) {
        if (complaint_.empty())
            complaint_ = fmt::format("member '{}' must be a {}", key, wanted);
    }
    [[nodiscard]] const std::string& complaint() const { return complaint_; }

private:
    const json* member(const char* key) const {
        const auto it = object_.find(key);
        return it == object_.end() ? nullptr : &*it;
    }
    const json& object_;
    std::string complaint_;
};

[[nodiscard]] inline Result<json> parse_object(std::span<const std::byte> body, std::string_view what) {
    if (body.size() > json_body_bytes_max)
        return fail(Errc::invalid, fmt::format("{} refused: {} bytes, {} allowed", what, body.size(), json_body_bytes_max));
    const auto* p = reinterpret_cast<const char*>(body.data());
    // Depth is bounded by the callback: a flood of brackets must not recurse the parser's destructor.
    const auto shallow = [](int depth, json::parse_event_t, json&) { return depth <= 4; };
    json j = json::parse(p, p + body.size(), shallow, false);
    if (j.is_discarded() || !j.is_object())
        return fail(Errc::invalid, fmt::format("{} refused: not a JSON object", what));
    return j;
}

inline void put(const json& j, std::vector<std::byte>& out) {
    const std::string text = j.dump(-1, ' ', false, json::error_handler_t::replace);
    const auto raw = std::as_bytes(std::span(text));
    out.insert(out.end(), raw.begin(), raw.end());
}

}  // namespace blkferry::proto
