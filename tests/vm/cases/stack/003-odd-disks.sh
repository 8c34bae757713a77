# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: brd, loop, null_blk and scsi_debug give disks
# modules: brd loop null_blk scsi_debug sd_mod
# binaries: losetup
# timeout: 180

check() {
	dd if=/dev/urandom of=/tmp/pattern bs=64k count=4 2>/dev/null
	dd if=/tmp/pattern of="$1" bs=64k count=4 oflag=direct
	dd if="$1" of=/tmp/back bs=64k count=4 iflag=direct
	cmp /tmp/pattern /tmp/back || fail "$1 does not keep data"
}

modprobe brd rd_nr=1 rd_size=16384
check /dev/ram0

modprobe loop
truncate -s 16M /tmp/image
node=$(losetup --find --show --direct-io=off /tmp/image)
check "$node"
losetup --detach "$node"

modprobe null_blk nr_devices=1 memory_backed=1 gb=1
check /dev/nullb0

modprobe sd_mod
modprobe scsi_debug dev_size_mb=16 delay=0
retry 30 test -b /dev/sda || fail "scsi_debug gave no disk"
check /dev/sda
rmmod scsi_debug
