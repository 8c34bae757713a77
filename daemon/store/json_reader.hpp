// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/result.hpp"
#include "base/uuid.hpp"

/// Private to the library's JSON decoders: reads the members of an object strictly. The first error sticks and yields empty
/// values after it: check finish() once at the end. It also refuses members that nobody asked for.
namespace blkferry::store {

class JsonReader {
public:
    JsonReader(const nlohmann::json& object, std::string what) : object_(object), what_(std::move(what)) {
        if (!object.is_object())
            refuse("is not an object");
    }

    [[nodiscard]] std::uint64_t integer(const char* key, std::uint64_t max = std::numeric_limits<std::uint64_t>::max()) {
        const auto* v = member(key);
        if (v == nullptr)
            return 0;
        if (!v->is_number_unsigned() || v->get<std::uint64_t>() > max) {
            refuse(fmt::format("member {} is not an integer up to {}", key, max));
            return 0;
        }
        return v->get<std::uint64_t>();
    }
    [[nodiscard]] bool boolean(const char* key) {
        const auto* v = member(key);
        if (v != nullptr && !v->is_boolean())
            refuse(fmt::format("member {} is not a truth value", key));
        return v != nullptr && v->is_boolean() && v->get<bool>();
    }
    [[nodiscard]] std::string text(const char* key, std::size_t bytes_max) {
        const auto* v = member(key);
        if (v == nullptr)
            return {};
        if (!v->is_string() || v->get_ref<const std::string&>().size() > bytes_max) {
            refuse(fmt::format("member {} is not a text of at most {} bytes", key, bytes_max));
            return {};
        }
        return v->get<std::string>();
    }
    [[nodiscard]] Uuid uuid(const char* key) {
        const auto id = Uuid::parse(text(key, 36));
        if (!id)
            refuse(fmt::format("member {} is not a uuid", key));
        return id.value_or(Uuid{});
    }
    /// The array under `key`; an empty one after an error.
    [[nodiscard]] const nlohmann::json& array(const char* key, std::size_t items_max) {
        static const nlohmann::json none = nlohmann::json::array();
        const auto* v = member(key);
        if (v != nullptr && v->is_array() && v->size() <= items_max)
            return *v;
        refuse(fmt::format("member {} is not a list of at most {} items", key, items_max));
        return none;
    }
    /// The value under `key` (which must exist), or nullptr after an error.
    [[nodiscard]] const nlohmann::json* member(const char* key) {
        if (bad())
            return nullptr;
        const auto it = object_.find(key);
        if (it == object_.end()) {
            refuse(fmt::format("member {} is missing", key));
            return nullptr;
        }
        seen_.insert(key);
        return &*it;
    }
    [[nodiscard]] bool has(const char* key) const { return object_.is_object() && object_.contains(key); }

    void refuse(std::string why) {
        if (error_.empty())
            error_ = fmt::format("{} {}", what_, why);
    }
    [[nodiscard]] bool bad() const noexcept { return !error_.empty(); }

    [[nodiscard]] Result<void> finish() {
        if (!bad())
            for (const auto& [key, value] : object_.items())
                if (!seen_.contains(key))
                    refuse(fmt::format("has an unknown member {}", key));
        if (bad())
            return fail(Errc::corrupt, error_);
        return {};
    }

private:
    const nlohmann::json& object_;
    const std::string what_;
    std::set<std::string, std::less<>> seen_;
    std::string error_;
};

/// Parses a bounded text; Errc::corrupt if it is not JSON.
[[nodiscard]] inline Result<nlohmann::json> parse_json(std::string_view text, std::size_t bytes_max, std::string_view what) {
    if (text.size() > bytes_max)
        return fail(Errc::corrupt, fmt::format("{} has {} bytes, {} allowed", what, text.size(), bytes_max));
    auto value = nlohmann::json::parse(text, nullptr, false);
    if (value.is_discarded())
        return fail(Errc::corrupt, fmt::format("{} is not JSON", what));
    return value;
}

/// Text for people may hold anything: bytes that are not UTF-8 are replaced when written.
[[nodiscard]] inline std::string dump_json(const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace blkferry::store
