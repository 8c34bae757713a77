// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <fstream>
#include <stdlib.h>

#include "capture/module_advice.hpp"

using namespace blkferry::capture;
namespace fs = std::filesystem;

namespace {

/// A file system root of its own with what the kernel would tell.
struct Root {
    fs::path path;

    Root() {
        std::string name = (fs::temp_directory_path() / "bf-advice-XXXXXX").string();
        BOOST_REQUIRE(::mkdtemp(name.data()));
        path = name;
    }
    Root(const Root&) = delete;
    Root& operator=(const Root&) = delete;
    ~Root() { fs::remove_all(path); }

    void tell(const fs::path& file, const char* text) const {
        fs::create_directories((path / file).parent_path());
        std::ofstream(path / file) << text << '\n';
    }
    [[nodiscard]] bool enrol() const { return module_advice(path).find("mokutil --import") != std::string::npos; }
};

constexpr const char* enforce = "sys/module/module/parameters/sig_enforce";
constexpr const char* lockdown = "sys/kernel/security/lockdown";

}  // namespace

BOOST_AUTO_TEST_SUITE(module_advice_suite)

BOOST_AUTO_TEST_CASE(a_kernel_that_loads_any_module) {
    const Root root;
    BOOST_TEST(module_advice(root.path) == "load the module (modprobe blkferry)");
    root.tell(enforce, "N");
    root.tell(lockdown, "[none] integrity confidentiality");
    BOOST_TEST(!root.enrol());
}

BOOST_AUTO_TEST_CASE(signatures_enforced) {
    const Root root;
    root.tell(enforce, "Y");
    BOOST_TEST(root.enrol());
}

BOOST_AUTO_TEST_CASE(locked_down) {
    for (const char* text : {"none [integrity] confidentiality", "none integrity [confidentiality]"}) {
        const Root root;
        root.tell(enforce, "N");
        root.tell(lockdown, text);
        BOOST_TEST(root.enrol());
    }
}

BOOST_AUTO_TEST_SUITE_END()
