// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/config.hpp"
#include "tools/commands.hpp"
#include "tools/output.hpp"

namespace blkferry::tools {

using Json = nlohmann::json;

Exit run(const Global& global, const ConfigCheckOptions& options) {
    const bool agent = options.part == "agent";
    const std::filesystem::path file =
        !options.file.empty() ? options.file : std::filesystem::path(agent ? config::agent_file : config::server_file);
    Result<void> loaded;
    if (agent) {
        if (const auto c = config::load_agent(file); !c)
            loaded = std::unexpected(c.error());
    } else if (const auto c = config::load_server(file); !c) {
        loaded = std::unexpected(c.error());
    }
    if (!loaded)
        return report(global, loaded.error());
    if (global.json)
        print_json(Json{{"ok", true}, {"file", file.string()}});
    else
        print_text(fmt::format("{}: fine\n", file.string()));
    return Exit::ok;
}

Exit run(const Global& global, const ConfigDefaultOptions& options) {
    const bool agent = options.part == "agent";
    if (!global.json) {
        print_text(agent ? config::default_agent_file() : config::default_server_file());
        return Exit::ok;
    }
    Json keys = Json::array();
    for (const config::KeyHelp& key : agent ? config::agent_keys() : config::server_keys())
        keys.push_back(Json{{"key", key.key}, {"kind", key.kind}, {"default", key.default_value}, {"range", key.range},
                            {"help", key.help}, {"reloads", key.reloads}});
    print_json(Json{{"ok", true}, {"keys", keys}});
    return Exit::ok;
}

}  // namespace blkferry::tools
