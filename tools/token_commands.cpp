// SPDX-License-Identifier: Apache-2.0
// What the server's administrator does with tokens and certificates, through the server's control socket.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/units.hpp"
#include "tools/ask.hpp"
#include "tools/commands.hpp"
#include "tools/human.hpp"
#include "tools/output.hpp"

namespace blkferry::tools {

Exit run(const Global& global, const EnrollTokenOptions& options) {
    const auto life = config::parse_duration_ms(options.expires);
    if (!life)
        return report(global, life.error(), Exit::usage);
    const auto answer = ask(global.server_socket, Json{{"cmd", "enroll_token"}, {"source", options.source}, {"life_ms", *life}});
    return print_answer(global, answer, [](const Json& message) {
        // The token alone on standard output, so that it goes into a file or a pipe as it is.
        fmt::print(stderr, "one-time token{}, good until {} UTC; on the source: blkferry enroll SERVER --token-file -\n",
                   text(message, "source").empty() ? std::string() : fmt::format(" for source '{}'", printable(text(message, "source"))),
                   human_time(number(message, "expires_ms")));
        return printable(text(message, "token")) + "\n";
    });
}

Exit run(const Global& global, const TokensOptions&) {
    return print_answer(global, ask(global.server_socket, Json{{"cmd", "tokens"}}), [](const Json& answer) {
        std::vector<std::vector<std::string>> rows = {{"ID", "STATE", "SOURCE", "MADE (UTC)", "EXPIRES (UTC)"}};
        for (const Json& t : part(answer, "tokens"))
            rows.push_back({printable(text(t, "id")), printable(text(t, "state")), printable(text(t, "source")),
                            human_time(number(t, "made_ms")), human_time(number(t, "expires_ms"))});
        return rows.size() == 1 ? std::string("no tokens\n") : table(rows);
    });
}

Exit run(const Global& global, const TokenRevokeOptions& options) {
    return print_answer(global, ask(global.server_socket, Json{{"cmd", "token_revoke"}, {"id", options.id}}),
                        [](const Json&) { return std::string("the token is void\n"); });
}

Exit run(const Global& global, const RevokeOptions& options) {
    return print_answer(global, ask(global.server_socket, Json{{"cmd", "revoke"}, {"source", options.source}}), [&](const Json& answer) {
        std::string out;
        for (const Json& serial : part(answer, "serials"))
            if (serial.is_string())
                out += fmt::format("revoked: certificate {} of source {}\n", printable(serial.get<std::string>()), printable(options.source));
        return out + fmt::format("{} connections ended; the replica and its recovery points stay\n", number(answer, "sessions_ended"));
    });
}

}  // namespace blkferry::tools
