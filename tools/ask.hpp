// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "control/client.hpp"
#include "tools/options.hpp"

/// Asking a daemon, and reading its answers without trusting their shape.
namespace blkferry::tools {

using control::Json;

/// An error with the exit status that it means.
struct Failure {
    Error error;
    Exit exit = Exit::failed;
};
template <class T>
using Answer = std::expected<T, Failure>;

/// Connects and asks; `on_line` gets the lines before the last. silence_ms_max 0: wait for ever.
[[nodiscard]] Answer<Json> ask(const std::filesystem::path& socket, const Json& request,
                               const std::function<void(const Json&)>& on_line = {},
                               std::uint64_t silence_ms_max = 60'000);

/// Asks and shows {"progress": {"done_bytes", "total_bytes"}} or {"progress": {"step", ...}} lines while it runs.
[[nodiscard]] Answer<Json> ask_with_progress(const Global& global, const std::filesystem::path& socket,
                                             const Json& request, const std::string& label);

/// Prints an answer as it is (--json) or as `as_text` says it, or the failure; gives the exit status.
[[nodiscard]] Exit print_answer(const Global& global, const Answer<Json>& answer, const std::function<std::string(const Json&)>& as_text);

/// Members of an answer; a missing or ill-typed one gives the fallback.
[[nodiscard]] std::uint64_t number(const Json& object, const char* key, std::uint64_t fallback = 0);
[[nodiscard]] std::string text(const Json& object, const char* key);
[[nodiscard]] bool flag(const Json& object, const char* key);
/// The member if it is an object or array, else an empty array.
[[nodiscard]] const Json& part(const Json& object, const char* key);
[[nodiscard]] bool has_number(const Json& object, const char* key);

}  // namespace blkferry::tools
