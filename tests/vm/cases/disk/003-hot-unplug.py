# SPDX-License-Identifier: Apache-2.0
"""A disk is pulled and another one is resized under the running guest."""

from vmtest.spec import Case, Disk, Guest

SCRIPT = r"""
gone=$(disk gone)
grows=$(disk grows)
dd if=/dev/zero of="$gone" bs=64k count=16 oflag=direct
sync_host unplug
retry 30 test ! -e "/sys/block/${gone##*/}" || fail "the disk is still there"
[ ! -e "$gone" ] || fail "the node is still there"
expect_equal "size before" "$(cat "/sys/block/${grows##*/}/size")" 32768
sync_host resize
retry 30 grep -qx 65536 "/sys/block/${grows##*/}/size" || fail "the new size did not arrive"
dd if=/dev/zero of="$grows" bs=512 seek=65535 count=1 oflag=direct || fail "the new end is not writable"
"""


def host(vm):
    vm.expect("unplug")
    vm.unplug("gone")
    vm.reply()
    vm.expect("resize")
    vm.resize("grows", 32 << 20)
    vm.reply()


CASE = Case("hot-unplug and resize of a virtio disk",
            Guest(script=SCRIPT, disks=[Disk("gone", "16M"), Disk("grows", "16M")], timeout=180), host=host)
