// SPDX-License-Identifier: Apache-2.0
#include "tools/ask.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/human.hpp"
#include "tools/output.hpp"
#include "tools/progress.hpp"

namespace blkferry::tools {

Answer<Json> ask(const std::filesystem::path& socket, const Json& request,
                 const std::function<void(const Json&)>& on_line, std::uint64_t silence_ms_max) {
    auto client = control::Client::connect(socket);
    if (!client)
        return std::unexpected(Failure{std::move(client).error(), Exit::unreachable});
    auto answer = client->call(request, on_line, silence_ms_max);
    if (!answer) {
        const bool gone = answer.error().code == Errc::closed || answer.error().code == Errc::timeout;
        return std::unexpected(Failure{std::move(answer).error(), gone ? Exit::unreachable : Exit::failed});
    }
    return std::move(*answer);
}

Answer<Json> ask_with_progress(const Global& global, const std::filesystem::path& socket, const Json& request,
                               const std::string& label) {
    ProgressLine line(label, stderr_is_terminal(), global.json);
    const auto show = [&](const Json& message) {
        const Json& progress = part(message, "progress");
        if (has_number(progress, "total_bytes"))
            line.update(monotonic_ms(), number(progress, "done_bytes"), number(progress, "total_bytes"));
        else if (!text(progress, "step").empty())
            line.update(monotonic_ms(), fmt::format("{}, backlog {}", printable(text(progress, "step")),
                                                    human_bytes(number(progress, "backlog_bytes"))));
    };
    return ask(socket, request, show, 0);
}

bool has_number(const Json& object, const char* key) {
    if (!object.is_object())
        return false;
    const auto it = object.find(key);
    return it != object.end() && it->is_number();
}

Exit print_answer(const Global& global, const Answer<Json>& answer, const std::function<std::string(const Json&)>& as_text) {
    if (!answer)
        return report(global, answer.error().error, answer.error().exit);
    if (global.json)
        print_json(*answer);
    else
        print_text(as_text(*answer));
    return Exit::ok;
}

std::uint64_t number(const Json& object, const char* key, std::uint64_t fallback) {
    return control::get_u64(object, key, fallback).value_or(fallback);
}

std::string text(const Json& object, const char* key) { return control::get_string(object, key, "").value_or(""); }

bool flag(const Json& object, const char* key) { return control::get_bool(object, key, false).value_or(false); }

const Json& part(const Json& object, const char* key) {
    static const Json none = Json::array();
    if (!object.is_object())
        return none;
    const auto it = object.find(key);
    return it != object.end() && it->is_structured() ? *it : none;
}

}  // namespace blkferry::tools
