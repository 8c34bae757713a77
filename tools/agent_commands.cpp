// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/units.hpp"
#include "tools/ask.hpp"
#include "tools/commands.hpp"
#include "tools/human.hpp"
#include "tools/output.hpp"
#include "tools/setup.hpp"
#include "tools/views.hpp"

namespace blkferry::tools {

namespace {

constexpr const char* clear_screen = "\033[H\033[2J";

// A relative path means something else to the daemon.
Result<std::vector<std::string>> absolute(const std::vector<std::string>& devices) {
    std::vector<std::string> out;
    for (const std::string& device : devices) {
        std::error_code err;
        const bool bare_name = device.find('/') == std::string::npos;
        const std::filesystem::path path =
            bare_name ? std::filesystem::path(device) : std::filesystem::absolute(device, err);
        if (err || device.empty())
            return fail(Errc::invalid, fmt::format("'{}': no usable path", device));
        out.push_back(path.lexically_normal().string());
    }
    return out;
}

Exit change_disks(const Global& global, const char* command, const std::vector<std::string>& devices, const char* done,
                  bool replicate = true) {
    const auto paths = absolute(devices);
    if (!paths)
        return report(global, paths.error(), Exit::usage);
    Json request{{"cmd", command}, {"devices", *paths}};
    if (!replicate)
        request["replicate"] = false;
    const auto answer = ask(global.agent_socket, request);
    return print_answer(global, answer, [&](const Json& message) {
        std::string out;
        for (const Json& disk : part(message, "disks"))
            out += fmt::format("{}: {} (slot {})\n", printable(text(disk, "device")), done, number(disk, "slot"));
        return out;
    });
}

}  // namespace

Exit run(const Global& global, const StatusOptions& options) {
    const auto interval = std::chrono::duration<double>(options.interval_s);
    const bool redraw = options.watch && !global.json && stdout_is_terminal();
    Eta eta;
    while (true) {
        const auto answer = ask(global.agent_socket, Json{{"cmd", "status"}});
        if (answer) {
            eta.update(monotonic_ms(), number(part(*answer, "progress"), "done_bytes"));
            if (redraw)
                print_text(clear_screen);
        }
        const Exit exit = print_answer(global, answer, [&](const Json& status) { return status_text(status, &eta); });
        if (!options.watch)
            return exit;
        // While watching, an agent that restarts is waited for.
        if (!answer && answer.error().exit != Exit::unreachable)
            return exit;
        if (!redraw && !global.json && answer)
            print_text("\n");
        std::this_thread::sleep_for(interval);
    }
}

Exit run(const Global& global, const DisksOptions&) {
    return print_answer(global, ask(global.agent_socket, Json{{"cmd", "disks"}}), disks_text);
}

Exit run(const Global& global, const ProtectOptions& options) {
    if (options.all)
        return protect_all(global, options);
    return change_disks(global, "protect", options.devices, options.no_replication ? "registered" : "protected", !options.no_replication);
}

Exit run(const Global& global, const UnprotectOptions& options) {
    return change_disks(global, "unprotect", options.devices, "not protected any more");
}

Exit run(const Global& global, const ThrottleOptions& options) {
    Json request = {{"cmd", "throttle"}};
    if (!options.rate.empty()) {
        const auto rate = config::parse_rate(options.rate);
        if (!rate)
            return report(global, rate.error(), Exit::usage);
        request["rate_bytes"] = *rate;
    }
    return print_answer(global, ask(global.agent_socket, request), [](const Json& answer) {
        const std::uint64_t rate = number(answer, "rate_bytes");
        return rate == 0 ? std::string("unlimited\n") : fmt::format("{} ({})\n", config::format_rate(rate), human_rate(rate));
    });
}

}  // namespace blkferry::tools
