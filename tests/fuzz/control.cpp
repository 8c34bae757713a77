// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "control/line_buffer.hpp"
#include "control/message.hpp"

/// A control socket's two ends: bytes in pieces of any size -> lines -> objects -> members. The first byte chooses the size of
/// the pieces. Every accepted line can be written again and reads the same; nothing waits beyond the longest line.
using namespace blkferry;
using namespace blkferry::control;

namespace {

constexpr std::size_t line_max = 4096;

std::size_t depth(const Json& j) {
    std::size_t deepest = 0;
    if (j.is_structured())
        for (const Json& child : j)
            deepest = std::max(deepest, depth(child));
    return deepest + (j.is_structured() ? 1 : 0);
}

void check_members(const Json& m) {
    for (const auto& [key, value] : m.items()) {
        if (const auto s = need_string(m, key))
            BLKFERRY_ASSERT(value.is_string() && value.get_ref<const std::string&>() == *s);
        if (const auto n = need_u64(m, key))
            BLKFERRY_ASSERT(value.is_number_integer() && value.get<std::uint64_t>() == *n);
        if (const auto b = get_bool(m, key, false))
            BLKFERRY_ASSERT(value.is_boolean());
        if (const auto list = get_strings(m, key, 64))
            BLKFERRY_ASSERT(list->size() <= 64);
        BLKFERRY_ASSERT(key == "cmd" || !only_members(m, {}));
    }
    // The fuzzer reads the strings it is compared with: it writes any name that stands here into a message.
    constexpr const char* absent = "no such member";
    if (!m.contains(absent))
        BLKFERRY_ASSERT(!need_string(m, absent) && get_u64(m, absent, 7).value() == 7);
    const Error told = error_of(m);
    BLKFERRY_ASSERT(error_of(error_message(told)).code == told.code);
}

void check_line(std::string_view line) {
    const auto m = parse_line(line);
    if (!m) {
        BLKFERRY_ASSERT(m.error().code == Errc::invalid);
        return;
    }
    BLKFERRY_ASSERT(m->is_object() && depth(*m) <= json_depth_max);
    const std::string written = to_line(*m);
    BLKFERRY_ASSERT(written.find('\n') == written.size() - 1);
    BLKFERRY_ASSERT(parse_line(std::string_view(written).substr(0, written.size() - 1)).value() == *m);
    check_members(*m);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
    const std::size_t piece = 1 + std::size_t{data[0]} * 3;
    LineBuffer lines(line_max);
    for (std::size_t at = 0; at < stream.size(); at += piece) {
        lines.append(stream.substr(at, piece));
        for (;;) {
            const auto line = lines.next();
            if (!line)
                return 0;
            if (!*line)
                break;
            BLKFERRY_ASSERT((*line)->size() < line_max && (*line)->find('\n') == std::string::npos);
            check_line(**line);
        }
        BLKFERRY_ASSERT(lines.size() <= line_max);
    }
    check_line(stream);
    return 0;
}
