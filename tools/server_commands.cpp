// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "tools/ask.hpp"
#include "tools/commands.hpp"
#include "tools/output.hpp"
#include "tools/views.hpp"

namespace blkferry::tools {

Exit run(const Global& global, const ServerStatusOptions&) {
    const auto answer = ask(global.server_socket, Json{{"cmd", "status"}});
    if (!answer)
        return report(global, answer.error().error, answer.error().exit);
    if (global.json)
        print_json(*answer);
    else
        print_text(server_status_text(*answer));
    return Exit::ok;
}

}  // namespace blkferry::tools
