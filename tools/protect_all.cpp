// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/ask.hpp"
#include "tools/human.hpp"
#include "tools/output.hpp"
#include "tools/setup.hpp"

namespace blkferry::tools {

std::vector<Choice> choose_disks(const Json& answer, bool only_register) {
    std::vector<Choice> out;
    for (const Json& disk : part(answer, "disks")) {
        Choice c{text(disk, "device"), number(disk, "size_bytes"), false, {}};
        if (flag(disk, "protected"))
            c.why = "it is protected already";
        else if (only_register && flag(disk, "registered"))
            c.why = "it is registered already";
        else if (!flag(disk, "protectable"))
            c.why = text(disk, "reason");
        else
            c.why = text(disk, "left_out");
        c.taken = c.why.empty() && !c.device.empty();
        out.push_back(std::move(c));
    }
    return out;
}

Exit protect_all(const Global& global, const ProtectOptions& options) {
    const auto disks = ask(global.agent_socket, Json{{"cmd", "disks"}});
    if (!disks)
        return report(global, disks.error().error, disks.error().exit);
    const auto choices = choose_disks(*disks, options.no_replication);
    Json devices = Json::array();
    Json rows = Json::array();
    bool any_protected = false;
    std::vector<std::vector<std::string>> lines = {{"DEVICE", "SIZE", "TAKEN"}};
    for (const Choice& c : choices) {
        if (c.taken)
            devices.push_back(c.device);
        any_protected = any_protected || c.why.ends_with("already");
        rows.push_back({{"device", c.device}, {"size_bytes", c.bytes}, {"taken", c.taken}, {"reason", c.why}});
        lines.push_back({printable(c.device), human_bytes(c.bytes), c.taken ? "yes" : "no: " + printable(c.why)});
    }
    if (!global.json)
        print_text(lines.size() == 1 ? "no disks\n" : table(lines));
    if (devices.empty() && !any_protected)
        return report(global, {Errc::not_found, 0, "there is no disk here that --all takes; name one if you want it all the same"});
    Json answer{{"ok", true}, {"disks", Json::array()}};
    if (!devices.empty() && !options.dry_run) {
        Json request{{"cmd", "protect"}, {"devices", devices}};
        if (options.no_replication)
            request["replicate"] = false;
        auto done = ask(global.agent_socket, request);
        if (!done)
            return report(global, done.error().error, done.error().exit);
        answer = std::move(*done);
    }
    if (global.json) {
        answer["choices"] = std::move(rows);
        answer["dry_run"] = options.dry_run;
        print_json(answer);
    } else {
        print_text(devices.empty()           ? "nothing more to do\n"
                   : options.dry_run         ? fmt::format("{} would be taken; nothing was done\n", devices.size())
                   : options.no_replication  ? fmt::format("{} registered; 'blkferry protect --all' begins to replicate\n", devices.size())
                                             : fmt::format("{} protected; 'blkferry status --watch' shows how it goes\n", devices.size()));
    }
    return Exit::ok;
}

}  // namespace blkferry::tools
