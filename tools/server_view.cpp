// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/ask.hpp"
#include "tools/human.hpp"
#include "tools/views.hpp"

namespace blkferry::tools {

namespace {

std::string joined(const Json& array) {
    std::string out;
    for (const Json& entry : array) {
        if (entry.is_string())
            out += (out.empty() ? "" : ", ") + printable(entry.get_ref<const std::string&>());
    }
    return out;
}

}  // namespace

std::string server_status_text(const Json& status) {
    std::string out;
    const auto line = [&](std::string_view label, std::string_view value) { out += fmt::format("{:<9} {}\n", label, value); };
    line("Server", fmt::format("{}, version {}, up {}", printable(text(status, "server")), printable(text(status, "version")),
                               human_ms(number(status, "uptime_ms"))));
    line("Listen", joined(part(status, "listen")));
    line("Store", fmt::format("{}, engine {}, {} free", printable(text(status, "store")), printable(text(status, "engine")),
                              human_bytes(number(status, "free_bytes"))));
    std::string errors;
    if (const Json& own = part(status, "certificate"); own.is_object()) {
        line("TLS", fmt::format("certificate until {} UTC, {}", human_time(number(own, "not_after_ms")),
                                flag(own, "renewable") ? "renewed by the server" : "made elsewhere"));
        if (const std::string warning = text(own, "warning"); !warning.empty())
            errors += fmt::format("ALARM: {}\n", printable(warning));
    }
    std::vector<std::vector<std::string>> rows = {{"SOURCE", "PEER", "STATE", "LAG", "TO APPLY", "POINTS", "NEWEST POINT", "USED"}};
    for (const Json& source : part(status, "sources")) {
        rows.push_back({printable(text(source, "source")),
                        flag(source, "connected") ? printable(text(source, "peer")) : has_number(source, "retired_ms") ? "retired" : "not connected",
                        state_text(text(source, "state"), text(source, "cause")),
                        has_number(source, "lag_ms") ? human_ms(number(source, "lag_ms")) : "-",
                        human_bytes(number(source, "journal_bytes")), fmt::format("{}", number(source, "points")),
                        printable(text(source, "newest_point")), human_bytes(number(source, "used_bytes"))});
        if (const std::string error = text(source, "error"); !error.empty())
            errors += fmt::format("{}: {}\n", printable(text(source, "source")), printable(error));
        for (const Json& alarm : part(source, "alarms"))
            errors += fmt::format("{}: ALARM: {} ({})\n", printable(text(source, "source")), printable(text(alarm, "error")),
                                  printable(text(alarm, "action")));
    }
    return out + "\n" + (rows.size() == 1 ? "no sources\n" : table(rows)) + errors;
}

std::string points_text(const Json& answer) {
    std::vector<std::vector<std::string>> rows = {{"SOURCE", "POINT", "TIME (UTC)", "MARK", "KIND", "LAUNCHABLE", "OWN BYTES"}};
    for (const Json& point : part(answer, "points")) {
        rows.push_back({printable(text(point, "source")), printable(text(point, "point")), human_time(number(point, "time_ms")),
                        fmt::format("{}", number(point, "mark")), printable(text(point, "kind")),
                        flag(point, "launchable") ? "yes" : "not proven", human_bytes(number(point, "bytes"))});
    }
    return rows.size() == 1 ? "no recovery points\n" : table(rows);
}

}  // namespace blkferry::tools
