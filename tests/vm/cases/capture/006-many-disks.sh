# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: 64 disks are attached, written, described and detached in mixed order
# modules: brd
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# memory: 768
# timeout: 180

modprobe brd rd_nr=64 rd_size=1024
insmod /opt/blkferry/blkferry.ko
set +x
disk=0
while [ "$disk" -lt 64 ]; do
	bft attach "/dev/ram$disk" 65536 64 >/dev/null || fail "attach $disk"
	disk=$((disk + 1))
done
expect_equal "disks" "$(bft list | grep -c '^disk=')" 64
for disk in $(seq 0 63); do
	dd if=/dev/zero of="/dev/ram$disk" bs=4k count=$((disk + 1)) oflag=direct 2>/dev/null
done
for disk in $(seq 0 63); do
	got=$(bft get "$disk" | tr ' ' '\n' | sed -n 's/^dirty_ops=//p')
	expect_equal "writes of disk $disk" "$got" $((disk + 1))
done
for disk in $(seq 0 3 63) $(seq 1 3 63); do bft detach "$disk" >/dev/null || fail "detach $disk"; done
expect_equal "disks left" "$(bft list | grep -c '^disk=')" 21
# what is left is still found in the table, and freed ids are used again
bft attach /dev/ram0 65536 64 | grep -q '^disk=0 ' || fail "id 0 was not used again"
dd if=/dev/zero of=/dev/ram62 bs=4k count=1 oflag=direct 2>/dev/null
expect_equal "disk 62" "$(bft get 62 | tr ' ' '\n' | sed -n 's/^dirty_ops=//p')" 64
for disk in 0 $(seq 2 3 63); do bft detach "$disk" >/dev/null || fail "detach $disk"; done
set -x
bft list
rmmod blkferry
must_fail grep -i blkferry /proc/vmallocinfo
