# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the module loads and unloads 30 times under I/O and leaves nothing behind
# files: kmod:blkferry.ko
# disk: data,size=64M
# timeout: 360

target=$(disk data)
module=/opt/blkferry/blkferry.ko
(while [ ! -e /run/stop ]; do dd if=/dev/zero of="$target" bs=4k count=256 oflag=direct; done) 2>/dev/null &
writer=$!

set +x
cycle=0
while [ "$cycle" -lt 30 ]; do
	insmod "$module" || fail "cycle $cycle: the module does not load"
	grep -q '^blkferry .* Live' /proc/modules || fail "cycle $cycle: loaded but not live"
	must_fail insmod "$module" 2>/dev/null
	rmmod blkferry || fail "cycle $cycle: the module does not unload"
	cycle=$((cycle + 1))
done
set -x

[ ! -e /sys/module/blkferry ] || fail "the module is still there"
must_fail grep -i blkferry /proc/devices
must_fail grep -i blkferry /proc/slabinfo
must_fail grep -i blkferry /proc/vmallocinfo
must_fail ls /dev/blkferry
touch /run/stop
wait "$writer"
