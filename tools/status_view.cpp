// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/ask.hpp"
#include "tools/human.hpp"
#include "tools/views.hpp"

namespace blkferry::tools {

namespace {

constexpr unsigned bar_width = 30;

struct StateText {
    std::string_view state;
    std::string_view text;
};
constexpr std::array state_texts = std::to_array<StateText>({
    {"STOPPED", "Stopped: no disk is protected"},
    {"INITIATING", "Initiating"},
    {"INITIAL_SYNC", "Initial sync"},
    {"FLUSHING_BACKLOG", "Finalizing initial sync - flushing backlog"},
    {"CREATING_SNAPSHOT", "Finalizing initial sync - creating first launchable snapshot"},
    {"CONTINUOUS", "Continuous replication"},
    {"BACKLOG", "Backlog: writes came faster than they could be shipped"},
    {"RESCAN", "Rescan: comparing the disks with the replica"},
    {"PAUSED", "Paused"},
    {"STALLED", "Stalled"},
    {"DISCONNECTED", "Disconnected"},
});

std::string lag_text(const Json& status) {
    return has_number(status, "lag_ms") ? human_ms(number(status, "lag_ms")) : "no durable mark yet";
}

std::string progress_text(const Json& owner, bool complete) {
    const Json& progress = part(owner, "progress");
    if (!has_number(progress, "total_bytes"))
        return {};
    return human_percent(number(progress, "done_bytes"), number(progress, "total_bytes"), complete);
}

std::string disk_rows(const Json& status) {
    std::vector<std::vector<std::string>> rows = {{"SLOT", "DISK", "SIZE", "STATE", "PHASE", "SYNC", "BACKLOG", "DIRTY"}};
    for (const Json& disk : part(status, "disks")) {
        const bool left = number(disk, "backlog_bytes") != 0 || number(disk, "dirty_bytes") != 0;
        const Json& progress = part(disk, "progress");
        const bool complete = !left && number(progress, "done_bytes") >= number(progress, "total_bytes");
        rows.push_back({fmt::format("{}", number(disk, "slot")), printable(text(disk, "name")),
                        human_bytes(number(disk, "size_bytes")), printable(text(disk, "state")),
                        printable(text(disk, "phase")), progress_text(disk, complete),
                        human_bytes(number(disk, "backlog_bytes")), human_bytes(number(disk, "dirty_bytes"))});
    }
    if (rows.size() == 1)
        return "no protected disks (blkferry protect DEVICE)\n";
    std::string out = table(rows);
    for (const Json& disk : part(status, "disks")) {
        if (const std::string error = text(disk, "error"); !error.empty())
            out += fmt::format("{}: {}\n", printable(text(disk, "name")), printable(error));
        if (const auto bytes = number(disk, "untracked_bytes"); bytes != 0)
            out += fmt::format("{}: WARNING: {} were written past the module, found by the disk's own counter; see blkferry-agent(8)\n",
                               printable(text(disk, "name")), human_bytes(bytes));
    }
    return out;
}

/// What the module added to a write, of the disk and path where the longest was seen; empty if nothing was measured.
std::string latency_text(const Json& status) {
    const Json* worst = nullptr;
    std::string name;
    for (const Json& disk : part(status, "disks")) {
        const Json& latency = part(disk, "latency");
        for (const char* path : {"submit", "submit_bitmap"}) {
            const Json& set = part(latency, path);
            if (number(set, "samples") == 0 || (worst != nullptr && number(set, "max_ns") <= number(*worst, "max_ns")))
                continue;
            worst = &set;
            name = printable(text(disk, "name"));
        }
    }
    if (worst == nullptr)
        return {};
    return fmt::format("p50 {}, p99 {}, max {} added to a write ({})", human_ns(number(*worst, "p50_ns")),
                       human_ns(number(*worst, "p99_ns")), human_ns(number(*worst, "max_ns")), name);
}

/// Only where writes are not captured by the module: what follows from it.
std::string capture_text(const Json& capture) {
    if (text(capture, "kind") != "ebpf")
        return {};
    std::string out = fmt::format("eBPF, without the module; rounds every {}", human_ms(number(capture, "cycle_interval_ms")));
    if (const std::string reason = text(capture, "reason"); !reason.empty())
        out += fmt::format(" ({})", printable(reason));
    for (const Json& limit : part(capture, "limits"))
        if (limit.is_string())
            out += fmt::format("\n          WARNING: {}", printable(limit.get_ref<const std::string&>()));
    return out;
}

std::string verify_text(const Json& verify) {
    std::string out;
    if (flag(verify, "running")) {
        const Json& progress = part(verify, "progress");
        out = fmt::format("running, {}, {} differ; ", human_percent(number(progress, "done_bytes"), number(progress, "total_bytes"), false),
                          human_bytes(number(verify, "differing_bytes")));
    } else if (flag(verify, "waiting")) {
        out = "waits for the server; ";
    }
    const Json& last = part(verify, "last");
    if (!has_number(last, "ended_ms"))
        return out + "never done to its end";
    out += fmt::format("last {}: ", human_time(number(last, "ended_ms")));
    if (const std::string error = text(last, "error"); !error.empty())
        return out + "failed: " + printable(error);
    if (flag(last, "equal"))
        return out + fmt::format("equal, {} compared", human_bytes(number(last, "compared_bytes")));
    return out + fmt::format("DIFFERED, {} of {}, {} unsettled", human_bytes(number(last, "differing_bytes")),
                             human_bytes(number(last, "compared_bytes")), human_bytes(number(last, "unsettled_bytes")));
}

}  // namespace

std::string state_text(const std::string& state, const std::string& cause) {
    const auto it = std::find_if(state_texts.begin(), state_texts.end(), [&](const StateText& s) { return s.state == state; });
    std::string out = it == state_texts.end() ? printable(state) : std::string(it->text);
    if (!cause.empty())
        out += ": " + printable(cause);
    else if (state == "STALLED")
        out += ": the agent names no cause";
    return out;
}

bool is_complete(const Json& status) {
    const Json& progress = part(status, "progress");
    return number(progress, "done_bytes") >= number(progress, "total_bytes") && number(status, "backlog_bytes") == 0;
}

std::string status_text(const Json& status, const Eta* eta) {
    const Json& rates = part(status, "rates");
    const std::uint64_t throttle = number(part(status, "throttle"), "rate_bytes");
    std::string server = printable(text(status, "server"));
    if (const std::string name = text(status, "server_name"); !name.empty())
        server += fmt::format(" ({})", printable(name));
    std::string out;
    const auto line = [&](std::string_view label, std::string_view value) { out += fmt::format("{:<9} {}\n", label, value); };
    line("Source", printable(text(status, "source")));
    line("Server", fmt::format("{}, {}", server, flag(status, "connected") ? "connected" : "not connected"));
    line("State", state_text(text(status, "state"), text(status, "cause")));
    if (const std::string capture = capture_text(part(status, "capture")); !capture.empty())
        line("Capture", capture);
    const Json& progress = part(status, "progress");
    if (has_number(progress, "total_bytes")) {
        const std::uint64_t done = number(progress, "done_bytes");
        const std::uint64_t total = number(progress, "total_bytes");
        std::string shown = fmt::format("{} {} of {}", bar(done, total, is_complete(status), bar_width), human_bytes(done), human_bytes(total));
        const auto left = eta != nullptr ? eta->left_ms(done, total) : std::nullopt;
        if (left && *left != 0)
            shown += fmt::format(", {} left", human_ms(*left));
        line("Sync", shown);
    }
    line("Backlog", human_bytes(number(status, "backlog_bytes")));
    line("Lag", lag_text(status));
    line("Points", fmt::format("{}", number(status, "points")));
    line("Rates", fmt::format("capture {}, ship {}, wire {}", human_rate(number(rates, "capture_bytes")),
                              human_rate(number(rates, "ship_bytes")), human_rate(number(rates, "wire_bytes"))));
    line("Throttle", throttle == 0 ? std::string("unlimited") : human_rate(throttle));
    if (const std::string latency = latency_text(status); !latency.empty())
        line("Latency", latency);
    if (const Json& verify = part(status, "verify"); !verify.empty())
        line("Verified", verify_text(verify));
    return out + "\n" + disk_rows(status);
}

std::string disks_text(const Json& answer) {
    std::vector<std::vector<std::string>> rows = {{"DEVICE", "SIZE", "PROTECTED", "CAN BE", "IDENTITY", "CONTENT", "MOUNTED ON"}};
    for (const Json& disk : part(answer, "disks")) {
        std::string mounts;
        for (const Json& mount : part(disk, "mounts")) {
            if (mount.is_string())
                mounts += (mounts.empty() ? "" : " ") + printable(mount.get_ref<const std::string&>());
        }
        rows.push_back({printable(text(disk, "device")), human_bytes(number(disk, "size_bytes")),
                        flag(disk, "protected") ? "yes" : "no",
                        flag(disk, "protectable") ? "yes" : "no: " + printable(text(disk, "reason")),
                        printable(text(disk, "identity")), printable(text(disk, "content")), mounts});
    }
    return rows.size() == 1 ? "no disks\n" : table(rows);
}

}  // namespace blkferry::tools
