# SPDX-License-Identifier: Apache-2.0
"""A machine loses power under load and boots again from the same disk."""

from vmtest.spec import Case, Disk, Guest

FIRST = r"""
modprobe ext4
mkfs.ext4 -q "$(disk data)"
mount -t ext4 "$(disk data)" /mnt
echo durable >/mnt/before
sync
(while true; do dd if=/dev/urandom of=/mnt/noise bs=64k count=16 conv=fsync; done) >/dev/null 2>&1 &
retry 30 test -s /mnt/noise
sync_host cut
fail "the power was not cut"
"""

SECOND = r"""
modprobe ext4
mount -t ext4 "$(disk data)" /mnt
expect_equal "what was synced before the cut" "$(cat /mnt/before)" durable
umount /mnt
e2fsck -fn "$(disk data)" || fail "e2fsck finds damage after journal replay"
"""


def host(vm):
    vm.expect("cut")
    vm.power_cut()
    vm.spawn("again", Guest(script=SECOND, modules=["ext4"], binaries=["e2fsck", "mount", "umount"], timeout=180,
                            disks=[Disk("data", file=str(vm.disk_path("data")))]))


def check(context):
    image = context.directory / "main/data.img"
    assert b"durable" in image.read_bytes(), "the disk's file does not hold what the guest synced"


CASE = Case("power cut under load, second boot from the same disk",
            Guest(script=FIRST, modules=["ext4"], binaries=["mkfs.ext4", "mount"], timeout=180,
                  disks=[Disk("data", "64M")]), host=host, check=check)
