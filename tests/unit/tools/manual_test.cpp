// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "base/fd.hpp"
#include "run.hpp"

using namespace blkferry;
using namespace blkferry::tools::test;

namespace {

using Options = std::set<std::string>;

std::string joined(const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& w : words)
        out += (out.empty() ? "" : " ") + w;
    return out;
}

Options find_all(const std::string& text, const std::regex& pattern) {
    Options out;
    for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it)
        out.insert((*it)[1]);
    return out;
}

// Sections "command" -> text of blkferry(1).
std::map<std::string, std::string> sections() {
    auto page = read_text_file(std::string(MANUAL_DIR) + "/blkferry.1", 1 << 20);
    BOOST_REQUIRE(page.has_value());
    std::string text = std::regex_replace(*page, std::regex("\\\\-"), "-");
    text = text.substr(text.find(".SH COMMANDS"), text.find(".SH EXIT STATUS") - text.find(".SH COMMANDS"));
    std::map<std::string, std::string> out;
    std::size_t at = text.find(".SS ");
    while (at != std::string::npos) {
        const std::size_t end_of_name = text.find('\n', at);
        const std::size_t next = text.find(".SS ", end_of_name);
        out[text.substr(at + 4, end_of_name - at - 4)] = text.substr(end_of_name, next - end_of_name);
        at = next;
    }
    return out;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(manual)

BOOST_AUTO_TEST_CASE(help_and_manual_name_the_same_commands) {
    Options in_manual;
    for (const auto& [name, text] : sections())
        in_manual.insert(name);
    Options in_help;
    const std::regex line("\n  ([a-z-]+) {2,}");
    const auto listed = [&](const std::vector<std::string>& words) {
        std::vector<std::string> arguments = words;
        arguments.emplace_back("--help");
        const std::string text = run_blkferry(arguments).out;
        const std::size_t at = text.find("Subcommands:");
        return at == std::string::npos ? Options{} : find_all(text.substr(at), line);
    };
    for (const std::string& name : listed({})) {
        const Options below = listed({name});
        if (below.empty())
            in_help.insert(name);
        for (const std::string& second : below)
            in_help.insert(name + " " + second);
    }
    BOOST_TEST(in_help == in_manual, boost::test_tools::per_element());
    Options tested;
    for (const auto& words : all_commands())
        tested.insert(joined(words));
    BOOST_TEST(tested == in_help, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(help_and_manual_name_the_same_options) {
    const auto manual = sections();
    const Options common = {"help", "json"};
    for (const auto& words : all_commands()) {
        BOOST_TEST_CONTEXT(joined(words)) {
            std::vector<std::string> arguments = words;
            arguments.emplace_back("--help");
            Options in_help = find_all(run_blkferry(arguments).out, std::regex("\n  (?:-h,)?--([a-z-]+)"));
            for (const std::string& option : common)
                BOOST_TEST(in_help.erase(option) == 1u);
            const Options in_manual = find_all(manual.at(joined(words)), std::regex("\n\\.TP\n\\.BI? --([a-z-]+)"));
            BOOST_TEST(in_help == in_manual, boost::test_tools::per_element());
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()
