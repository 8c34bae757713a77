// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>

#include <boost/test/unit_test.hpp>
#include <unistd.h>

#include "../temp_dir.hpp"
#include "agent/identity.hpp"

using namespace blkferry;
using namespace blkferry::agent;
namespace fs = std::filesystem;

namespace {

BlockDevice device(DiskIdentity id) {
    BlockDevice d;
    d.identity = std::move(id);
    return d;
}

DiskIdentity with_serial(std::string name, std::string serial) {
    DiskIdentity id;
    id.name = std::move(name);
    id.serial = std::move(serial);
    id.sectors = 2048;
    return id;
}

struct FakeSystem {
    blkferry::test::TempDir dir;
    fs::path root = dir.path;
    SystemRoots roots{(root / "sys").string(), (root / "proc").string(), (root / "dev").string()};

    FakeSystem() {
        fs::create_directories(root / "dev");
        fs::create_directories(root / "proc/self");
        fs::create_directories(root / "sys/class/block");
    }
    void put(const std::string& path, const std::string& text) const {
        fs::create_directories((root / path).parent_path());
        std::ofstream(root / path) << text << '\n';
    }
    void disk(const std::string& name, const std::string& dev, const std::string& sectors) const {
        put("sys/class/block/" + name + "/dev", dev);
        put("sys/class/block/" + name + "/size", sectors);
        put("sys/class/block/" + name + "/ro", "0");
        put("sys/class/block/" + name + "/queue/zoned", "none");
        put("sys/class/block/" + name + "/queue/logical_block_size", "512");
    }
};

const BlockDevice& named(const std::vector<BlockDevice>& list, const std::string& name) {
    const auto it = std::ranges::find(list, name, [](const BlockDevice& d) { return d.identity.name; });
    BOOST_REQUIRE(it != list.end());
    return *it;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_renamed_disk_is_found_by_its_serial) {
    const auto wanted = with_serial("sda", "S1");
    const std::vector<BlockDevice> devices{device(with_serial("sda", "S2")), device(with_serial("sdb", "S1"))};
    const auto found = find_device(wanted, devices);
    BOOST_REQUIRE(found.has_value());
    BOOST_TEST(*found == 1U);
}

BOOST_AUTO_TEST_CASE(two_disks_of_one_identity_are_refused) {
    const auto wanted = with_serial("sda", "S1");
    const std::vector<BlockDevice> devices{device(with_serial("sda", "S1")), device(with_serial("sdb", "S1"))};
    const auto found = find_device(wanted, devices);
    BOOST_REQUIRE(!found.has_value());
    BOOST_TEST((found.error().code == Errc::conflict));
    BOOST_TEST(found.error().text.find("sda, sdb") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(another_disk_in_the_same_place_is_not_it) {
    const std::vector<BlockDevice> devices{device(with_serial("sda", "S2"))};
    BOOST_TEST((find_device(with_serial("sda", "S1"), devices).error().code == Errc::not_found));
}

BOOST_AUTO_TEST_CASE(hardware_goes_before_contents_and_contents_before_names) {
    DiskIdentity wanted = with_serial("vda", "S1");
    wanted.table_guid = "G";
    DiskIdentity clone;  // the same contents on a disk without a serial
    clone.name = "vdb";
    clone.table_guid = "G";
    DiskIdentity grown = with_serial("vdc", "S1");  // repartitioned meanwhile
    grown.table_guid = "H";
    std::vector<BlockDevice> devices{device(clone), device(grown)};
    BOOST_TEST(find_device(wanted, devices).value() == 1U);
    devices.pop_back();
    BOOST_TEST(find_device(wanted, devices).value() == 0U);

    DiskIdentity bare;
    bare.name = "vdd";
    bare.sectors = 99;
    devices = {device(bare)};
    BOOST_TEST(find_device(bare, devices).value() == 0U);
    DiskIdentity other = bare;
    other.sectors = 100;
    BOOST_TEST(!find_device(other, devices).has_value());
    BOOST_TEST(!find_device(wanted, devices).has_value());
}

BOOST_AUTO_TEST_CASE(a_device_on_top_of_the_disk_is_not_the_disk) {
    DiskIdentity disk;  // a virtual disk without serial that holds a file system
    disk.name = "vda";
    disk.fs_uuid = "F";
    DiskIdentity mapped = disk;
    mapped.name = "dm-0";
    mapped.mapper = "LVM-xyz";
    const std::vector<BlockDevice> devices{device(mapped), device(disk)};
    BOOST_TEST(find_device(disk, devices).value() == 1U);
    BOOST_TEST(find_device(mapped, devices).value() == 0U);
}

BOOST_AUTO_TEST_CASE(devices_are_described_with_their_obstacles) {
    const FakeSystem sys;
    sys.disk("sda", "8:0", "4096");
    sys.put("sys/class/block/sda/device/wwid", "naa.5000");
    sys.put("sys/class/block/sda/device/model", "  Fast Disk  ");
    sys.disk("sda1", "8:1", "2048");
    sys.put("sys/class/block/sda1/partition", "1");
    sys.disk("sdb", "8:16", "4096");
    sys.put("sys/class/block/sdb/ro", "1");
    sys.disk("sdc", "8:32", "4096");
    sys.put("sys/class/block/sdc/queue/zoned", "host-managed");
    sys.disk("sdd", "8:48", "0");
    sys.disk("sde", "8:64", "64");
    sys.put("proc/self/mountinfo", "22 1 8:0 / /a\\040b rw - ext4 /dev/sda rw");
    const auto list = list_devices(sys.roots);
    BOOST_TEST(list.size() == 5U);
    BOOST_TEST(named(list, "sda").obstacle.empty());
    BOOST_TEST(named(list, "sda").identity.wwn == "naa.5000");
    BOOST_TEST(named(list, "sda").model == "Fast Disk");
    BOOST_TEST(named(list, "sda").dev == (8ULL << 32));
    BOOST_TEST(named(list, "sda").mounts == std::vector<std::string>{"/a b"}, boost::test_tools::per_element());
    BOOST_TEST(named(list, "sda1").obstacle.find("partition") != std::string::npos);
    BOOST_TEST(named(list, "sdb").obstacle.find("read-only") != std::string::npos);
    BOOST_TEST(named(list, "sdc").obstacle.find("zoned") != std::string::npos);
    BOOST_TEST(named(list, "sde").obstacle.find("smaller") != std::string::npos);
}
BOOST_AUTO_TEST_CASE(all_disks_are_those_at_the_bottom) {
    FakeSystem sys;
    for (const char* name : {"vda", "sdb", "sdc", "dm-0", "dm-1", "loop0", "zram0", "md0"})
        sys.disk(name, "8:0", "409600");
    sys.put("sys/class/block/sdb/removable", "1");
    sys.put("sys/class/block/sdc/holders/dm-1/x", "");
    sys.put("sys/class/block/dm-1/slaves/sdc/x", "");
    sys.put("sys/class/block/dm-1/dm/uuid", "mpath-3600");
    sys.put("sys/class/block/dm-0/slaves/vda/x", "");
    sys.put("sys/class/block/dm-0/dm/uuid", "LVM-1");
    sys.put("sys/class/block/vda/holders/dm-0/x", "");
    sys.put("sys/class/block/md0/slaves/vdb/x", "");
    const auto list = list_devices(sys.roots);
    const auto why = [&](const char* name) { return named(list, name).left_out; };
    BOOST_TEST(why("vda") == "");
    BOOST_TEST(why("dm-1") == "");
    BOOST_TEST(why("sdb") == "it is removable");
    BOOST_TEST(why("sdc").find("multipath device dm-1") != std::string::npos);
    BOOST_TEST(why("dm-0").find("lies on vda") != std::string::npos);
    BOOST_TEST(why("md0").find("lies on vdb") != std::string::npos);
    BOOST_TEST(!why("loop0").empty());
    BOOST_TEST(!why("zram0").empty());
}
