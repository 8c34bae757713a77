# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: NVMe, SCSI and multi-queue virtio disks are found by name and keep data
# disk: flash,size=32M,bus=nvme,queues=2
# disk: native,size=32M,bus=nvme,block=4096
# disk: spin,size=32M,bus=scsi,discard
# disk: wide,size=32M,queues=2
# binaries: blockdev
# timeout: 120

for name in flash native spin wide; do
	node=$(disk "$name") || fail "no disk $name"
	case $name:$node in
	flash:/dev/nvme* | native:/dev/nvme* | spin:/dev/sd* | wide:/dev/vd*) ;;
	*) fail "$name is $node" ;;
	esac
	expect_equal "size of $name" "$(blockdev --getsize64 "$node")" 33554432
	dd if=/dev/urandom of=/tmp/pattern bs=64k count=4
	dd if=/tmp/pattern of="$node" bs=64k count=4 oflag=direct
	dd if="$node" of=/tmp/back bs=64k count=4 iflag=direct
	cmp /tmp/pattern /tmp/back || fail "$name does not keep data"
done
expect_equal "block size" "$(blockdev --getss "$(disk native)")" 4096
expect_equal "queues" "$(find /sys/block/vd*/mq -mindepth 1 -maxdepth 1 | wc -l)" 2
if node=$(disk absent); then fail "a disk that does not exist was found: $node"; fi
