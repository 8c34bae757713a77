// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <nlohmann/json.hpp>

#include "tools/human.hpp"
#include "tools/progress.hpp"
#include "tools/views.hpp"

using namespace blkferry::tools;
using Json = nlohmann::json;

namespace {

Json status(const std::string& state, std::uint64_t done, std::uint64_t total, std::uint64_t backlog) {
    return Json{{"source", "web1"}, {"server", "r:1500"}, {"connected", true}, {"state", state}, {"cause", ""},
                {"progress", {{"done_bytes", done}, {"total_bytes", total}}}, {"backlog_bytes", backlog}, {"lag_ms", 350},
                {"disks", {{{"slot", 0}, {"name", "vda"}, {"size_bytes", 1 << 30}, {"state", "RESYNC"}, {"backlog_bytes", backlog}}}}};
}
bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

BOOST_AUTO_TEST_SUITE(view)

BOOST_AUTO_TEST_CASE(finalizing_texts_are_exact) {
    BOOST_TEST(has(status_text(status("FLUSHING_BACKLOG", 10, 10, 5), nullptr), "Finalizing initial sync - flushing backlog\n"));
    BOOST_TEST(has(status_text(status("CREATING_SNAPSHOT", 10, 10, 0), nullptr),
                   "Finalizing initial sync - creating first launchable snapshot\n"));
}

BOOST_AUTO_TEST_CASE(hundred_per_cent_only_when_nothing_is_left) {
    BOOST_TEST(!has(status_text(status("FLUSHING_BACKLOG", 1000, 1000, 1), nullptr), "100."));
    BOOST_TEST(!has(status_text(status("INITIAL_SYNC", 999'999'999, 1'000'000'000, 0), nullptr), "100."));
    BOOST_TEST(has(status_text(status("INITIAL_SYNC", 999'999'999, 1'000'000'000, 0), nullptr), "99.9 %"));
    BOOST_TEST(has(status_text(status("CREATING_SNAPSHOT", 1000, 1000, 0), nullptr), "100.0 %"));
    BOOST_TEST(human_percent(0, 0, false) == "0.0 %");
    BOOST_TEST(human_percent(UINT64_MAX, UINT64_MAX, false) == "99.9 %");
    BOOST_TEST(bar(5, 10, false, 10) == "[#####-----] 50.0 %");
    BOOST_TEST(bar(10, 10, false, 10) == "[#########-] 99.9 %");
}

BOOST_AUTO_TEST_CASE(a_stall_names_its_cause) {
    Json s = status("STALLED", 1, 2, 3);
    s["cause"] = "server: no space left";
    BOOST_TEST(has(status_text(s, nullptr), "Stalled: server: no space left\n"));
    BOOST_TEST(has(state_text("STALLED", ""), "names no cause"));
    BOOST_TEST(has(state_text("DISCONNECTED", "connection refused"), "Disconnected: connection refused"));
}

BOOST_AUTO_TEST_CASE(verification_tells_progress_and_last_result) {
    Json s = status("CONTINUOUS", 1, 1, 0);
    BOOST_TEST(!has(status_text(s, nullptr), "Verified"));
    s["verify"] = {{"running", true}, {"progress", {{"done_bytes", 5}, {"total_bytes", 10}}}, {"differing_bytes", 4096}};
    BOOST_TEST(has(status_text(s, nullptr), "Verified  running, 50.0 %, 4.0 KiB differ; never done to its end\n"));
    s["verify"] = {{"running", false}, {"last", {{"ended_ms", 0}, {"equal", true}, {"compared_bytes", 1024}}}};
    BOOST_TEST(has(status_text(s, nullptr), "last 1970-01-01 00:00:00: equal, 1.0 KiB compared\n"));
    s["verify"]["last"]["equal"] = false;
    BOOST_TEST(has(status_text(s, nullptr), "DIFFERED"));
    s["verify"]["last"]["error"] = "cannot read /dev/vda";
    BOOST_TEST(has(status_text(s, nullptr), "failed: cannot read /dev/vda"));
}

BOOST_AUTO_TEST_CASE(without_the_module_it_says_what_is_missing) {
    Json s = status("CONTINUOUS", 1, 1, 0);
    s["capture"] = {{"kind", "module"}, {"any_mark", true}, {"reason", ""}, {"limits", Json::array()}};
    BOOST_TEST(!has(status_text(s, nullptr), "Capture"));
    s["capture"] = {{"kind", "ebpf"}, {"any_mark", false}, {"reason", "no module"}, {"cycle_interval_ms", 5000}, {"limits", {"no this", 7, "no that"}}};
    const std::string text = status_text(s, nullptr);
    BOOST_TEST(has(text, "Capture   eBPF, without the module; rounds every 5"));
    BOOST_TEST(has(text, "(no module)\n          WARNING: no this\n          WARNING: no that\n"));
}

BOOST_AUTO_TEST_CASE(latency_is_that_of_the_worst_disk) {
    Json s = status("CONTINUOUS", 1, 1, 0);
    BOOST_TEST(!has(status_text(s, nullptr), "Latency"));
    s["disks"][0]["latency"] = nullptr;
    BOOST_TEST(!has(status_text(s, nullptr), "Latency"));
    const Json none = {{"p50_ns", 0}, {"p99_ns", 0}, {"max_ns", 0}, {"samples", 0}};
    s["disks"][0]["latency"] = {{"submit", none}, {"submit_bitmap", none}, {"end", none}};
    BOOST_TEST(!has(status_text(s, nullptr), "Latency"));
    s["disks"][0]["latency"]["submit"] = {{"p50_ns", 850}, {"p99_ns", 8'191}, {"max_ns", 12'345'678}, {"samples", 4}};
    s["disks"].push_back({{"name", "vdb"}, {"latency", {{"submit_bitmap", {{"p50_ns", 1}, {"p99_ns", 2}, {"max_ns", 3}, {"samples", 4}}}}}});
    BOOST_TEST(has(status_text(s, nullptr), "Latency   p50 850 ns, p99 8.1 us, max 12.3 ms added to a write (vda)\n"));
    s["disks"][1]["latency"]["submit_bitmap"]["max_ns"] = 2'500'000'000;
    BOOST_TEST(has(status_text(s, nullptr), "max 2.5 s added to a write (vdb)\n"));
}

BOOST_AUTO_TEST_CASE(any_shape_of_answer_is_survived) {
    for (const char* text : {"{}", "[]", "null", "5", R"({"disks":5,"rates":[],"state":7,"progress":"x"})",
                             R"({"disks":[1,null,{"slot":"x","latency":[{}]},{"latency":{"submit":7}}],"lag_ms":"y","backlog_bytes":-1})",
                             R"({"sources":[[],{"lag_ms":{}}],"listen":[1],"points":[{"time_ms":18446744073709551615}]})"}) {
        const Json message = Json::parse(text);
        BOOST_TEST(!status_text(message, nullptr).empty());
        BOOST_TEST(!disks_text(message).empty());
        BOOST_TEST(!server_status_text(message).empty());
        BOOST_TEST(!points_text(message).empty());
    }
    Json evil = status("CONTINUOUS", 0, 0, 0);
    evil["server"] = "\033[2Jx\xc2\x9b";
    BOOST_TEST(!has(status_text(evil, nullptr), "\033"));
    BOOST_TEST(!has(status_text(evil, nullptr), "\xc2\x9b"));
}

BOOST_AUTO_TEST_CASE(time_left) {
    Eta eta;
    BOOST_TEST(!eta.left_ms(0, 100).has_value());
    for (std::uint64_t i = 0; i <= 10; ++i)
        eta.update(i * 1000, i * 10);
    BOOST_TEST(*eta.left_ms(100, 200) == 10'000u);
    BOOST_TEST(*eta.left_ms(200, 200) == 0u);
    Eta stuck;
    stuck.update(0, 5);
    stuck.update(1000, 5);
    BOOST_TEST(!stuck.left_ms(5, 10).has_value());
    stuck.update(2000, 2);  // a new round began
    BOOST_TEST(!stuck.left_ms(2, 10).has_value());
}

BOOST_AUTO_TEST_CASE(numbers) {
    BOOST_TEST(human_bytes(0) == "0 B");
    BOOST_TEST(human_bytes(1536) == "1.5 KiB");
    BOOST_TEST(human_bytes(UINT64_MAX) == "16.0 EiB");
    BOOST_TEST(human_rate(2'500'000) == "2.5 MB/s");
    BOOST_TEST(human_ms(350) == "350 ms");
    BOOST_TEST(human_ms(2'450) == "2.4 s");
    BOOST_TEST(human_ms(200'000) == "3 min 20 s");
    BOOST_TEST(human_ms(7'500'000) == "2 h 05 min");
    BOOST_TEST(human_ms(273'600'000) == "3 d 04 h");
    BOOST_TEST(human_ns(999) == "999 ns");
    BOOST_TEST(human_ns(1'050) == "1.0 us");
    BOOST_TEST(human_time(0) == "1970-01-01 00:00:00");
    BOOST_TEST(table({{"A", "B"}, {"xxx", ""}}) == "A    B\nxxx\n");
}

BOOST_AUTO_TEST_SUITE_END()
