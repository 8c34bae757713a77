# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: ext4 and xfs are made, mounted, filled, trimmed and checked
# modules: ext4 xfs
# binaries: mkfs.ext4 e2fsck mkfs.xfs xfs_repair fstrim mount umount
# disk: ext,size=128M,discard
# disk: xfs,size=512M,discard
# timeout: 360

fill() {
	dd if=/dev/urandom of="$1/random" bs=64k count=64 2>/dev/null
	sha256sum "$1/random" | cut -d' ' -f1
	sync
}

modprobe ext4
mkfs.ext4 -q "$(disk ext)"
mount -t ext4 "$(disk ext)" /mnt
before=$(fill /mnt)
fstrim /mnt
umount /mnt
e2fsck -fn "$(disk ext)" || fail "e2fsck finds damage"
mount -t ext4 "$(disk ext)" /mnt
expect_equal "ext4 content" "$(sha256sum /mnt/random | cut -d' ' -f1)" "$before"
umount /mnt

modprobe xfs
mkfs.xfs -q "$(disk xfs)"
mount -t xfs "$(disk xfs)" /mnt
before=$(fill /mnt)
umount /mnt
xfs_repair -n "$(disk xfs)" || fail "xfs_repair finds damage"
mount -t xfs "$(disk xfs)" /mnt
expect_equal "xfs content" "$(sha256sum /mnt/random | cut -d' ' -f1)" "$before"
umount /mnt
