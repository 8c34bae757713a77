# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: md raid1 and raid0 assemble, survive a failed member and stop
# modules: md-mod raid1 raid0
# binaries: mdadm
# disk: one,size=64M
# disk: two,size=64M
# disk: three,size=64M
# timeout: 240

one=$(disk one)
two=$(disk two)
three=$(disk three)
modprobe raid1
mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --assume-clean "$one" "$two"
dd if=/dev/urandom of=/dev/md0 bs=64k count=16 oflag=direct
mdadm --manage /dev/md0 --fail "$two"
mdadm --manage /dev/md0 --remove "$two"
mdadm --manage /dev/md0 --add "$three"
retry 60 grep -q '\[UU\]' /proc/mdstat || fail "the array did not recover"
mdadm --stop /dev/md0
expect_equal "mirrors" "$(dd if="$one" bs=1M skip=1 count=8 2>/dev/null | sha256sum)" \
	"$(dd if="$three" bs=1M skip=1 count=8 2>/dev/null | sha256sum)"

modprobe raid0
mdadm --zero-superblock "$one" "$two" "$three"
mdadm --create /dev/md1 --run --level=0 --raid-devices=2 --metadata=1.2 "$one" "$two"
dd if=/dev/zero of=/dev/md1 bs=1M count=16 oflag=direct
mdadm --stop /dev/md1
