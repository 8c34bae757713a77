// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "config/config.hpp"

using namespace blkferry::config;

namespace {

std::string manual(const std::string& name) {
    std::ifstream in(std::filesystem::path(MANUAL_DIR) / name);
    BOOST_REQUIRE_MESSAGE(in.good(), name + " is missing");
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
}

// In the manual each key stands as
//   .TP
//   .BR key " = " default
// and each key there is one of the schema, with the same default.
void check(const std::string& name, const std::vector<KeyHelp>& keys) {
    const std::string text = manual(name);
    std::set<std::string> documented;
    const std::regex entry("\n\\.TP\n\\.BR ([a-z_]+) \" = \" (\\S[^\n]*)\n");
    for (std::sregex_iterator it(text.begin(), text.end(), entry), end; it != end; ++it) {
        const std::string key = (*it)[1];
        std::string value = (*it)[2];
        value = std::regex_replace(value, std::regex("\\\\\\(dq"), "\"");
        if (value.size() > 1 && value.front() == '"' && value.back() == '"' && value.find('"', 1) != value.size() - 1)
            value = value.substr(1, value.size() - 2);
        BOOST_TEST_CONTEXT(name << ": " << key) {
            BOOST_TEST(documented.insert(key).second);
            const auto it2 = std::find_if(keys.begin(), keys.end(), [&](const KeyHelp& k) { return k.key == key; });
            BOOST_REQUIRE(it2 != keys.end());
            BOOST_TEST(value == (it2->default_value.empty() ? "required" : it2->default_value));
        }
    }
    for (const KeyHelp& key : keys)
        BOOST_TEST_CONTEXT(name) { BOOST_TEST(documented.contains(key.key), key.key << " is not in the manual"); }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(manuals)

BOOST_AUTO_TEST_CASE(agent_keys_are_documented) { check("blkferry-agent.toml.5", agent_keys()); }
BOOST_AUTO_TEST_CASE(server_keys_are_documented) { check("blkferry-server.toml.5", server_keys()); }

BOOST_AUTO_TEST_SUITE_END()
