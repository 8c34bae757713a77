// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>

#include <boost/test/unit_test.hpp>
#include <unistd.h>

#include "../temp_dir.hpp"
#include "agent/registry.hpp"

using namespace blkferry;
using namespace blkferry::agent;
namespace fs = std::filesystem;

namespace {
using Folder = blkferry::test::TempDir;
DiskIdentity identity(std::string name) {
    DiskIdentity id;
    id.name = std::move(name);
    id.serial = "S-" + id.name;
    id.sectors = 4096;
    return id;
}
}  // namespace

BOOST_AUTO_TEST_CASE(what_was_stored_is_read_back) {
    const Folder dir;
    auto r = Registry::open(dir.path);
    BOOST_REQUIRE(r.has_value());
    auto a = r->add(identity("vda"));
    auto b = r->add(identity("vdb"));
    BOOST_REQUIRE((a.has_value() && b.has_value()));
    b->sync_attach = Uuid::random();
    b->sync_kind = SyncKind::rescan;
    BOOST_TEST(r->update(*b).has_value());
    BOOST_TEST(r->set_first_point(true).has_value());

    const auto again = Registry::open(dir.path);
    BOOST_REQUIRE(again.has_value());
    BOOST_TEST((again->source_id() == r->source_id()));
    BOOST_TEST((again->disks() == r->disks()));
    BOOST_TEST(again->first_point());
}

BOOST_AUTO_TEST_CASE(a_slot_is_never_given_twice) {
    const Folder dir;
    auto r = Registry::open(dir.path);
    BOOST_REQUIRE(r.has_value());
    const auto a = r->add(identity("vda"));
    BOOST_REQUIRE(a.has_value());
    BOOST_TEST(r->remove(a->disk_id).has_value());
    BOOST_TEST((r->remove(a->disk_id).error().code == Errc::not_found));
    auto again = Registry::open(dir.path);
    BOOST_REQUIRE(again.has_value());
    BOOST_TEST(again->add(identity("vda"))->slot == 1);
}

BOOST_AUTO_TEST_CASE(a_damaged_file_is_refused_and_kept) {
    const Folder dir;
    BOOST_REQUIRE(Registry::open(dir.path).has_value());
    for (const std::string text : {"", "{", "{}", "[]", R"({"format":2})",
                                   R"({"format":1,"source_id":"x","next_slot":0,"first_point":false,"disks":[]})",
                                   R"({"format":1,"source_id":7,"next_slot":"a","first_point":0,"disks":1})"}) {
        std::ofstream(dir.path / "source.json") << text;
        const auto r = Registry::open(dir.path);
        BOOST_REQUIRE(!r.has_value());
        BOOST_TEST((r.error().code == Errc::corrupt), text);
        BOOST_TEST(fs::file_size(dir.path / "source.json") == text.size());
    }
}
