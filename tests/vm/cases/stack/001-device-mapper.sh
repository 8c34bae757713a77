# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: dm-linear, delay, flakey, error, log-writes, snapshot and thin devices work without udev
# modules: dm-mod dm-delay dm-flakey dm-log-writes dm-snapshot dm-thin-pool
# binaries: dmsetup blockdev
# disk: one,size=64M
# disk: two,size=64M
# timeout: 240

modprobe dm-mod
one=$(disk one)
two=$(disk two)
half=65536

dm_create joined "0 $half linear $one 0
$half $half linear $two 0"
expect_equal "size" "$(blockdev --getsz /dev/mapper/joined)" 131072
# The write that crosses the seam lands half on each disk.
printf 'AAAABBBB' | dd of=/dev/mapper/joined bs=1 seek=$((half * 512 - 4)) conv=notrunc 2>/dev/null
sync
expect_equal "end of one" "$(dd if="$one" bs=1 skip=$((half * 512 - 4)) count=4 2>/dev/null)" AAAA
expect_equal "start of two" "$(dd if="$two" bs=1 count=4 2>/dev/null)" BBBB
dm_remove joined

modprobe dm-delay
dm_create slow "0 $half delay $one 0 200"
start=$(date +%s%N)
dd if=/dev/zero of=/dev/mapper/slow bs=4k count=1 oflag=direct
[ $(($(date +%s%N) - start)) -ge 200000000 ] || fail "the delayed write was not delayed"
dm_remove slow

modprobe dm-flakey
dm_create flaky "0 $half flakey $one 0 0 60 1 error_writes"
must_fail dd if=/dev/zero of=/dev/mapper/flaky bs=4k count=1 oflag=direct
dm_remove flaky

dm_create broken "0 $half error"
must_fail dd if=/dev/mapper/broken of=/dev/null bs=4k count=1 iflag=direct
dm_remove broken

modprobe dm-log-writes
dm_create logged "0 $half log-writes $one $two"
dd if=/dev/zero of=/dev/mapper/logged bs=4k count=4 oflag=direct
dm_remove logged

modprobe dm-snapshot
dd if=/dev/zero of="$two" bs=4k count=4 oflag=direct
dm_create origin "0 $half snapshot-origin $one"
dm_create snap "0 $half snapshot $one $two P 8"
dm_remove snap
dm_remove origin

modprobe dm-thin-pool
dd if=/dev/zero of="$one" bs=4k count=1 oflag=direct
dm_create pool "0 $half thin-pool $one $two 128 0"
dmsetup message pool 0 "create_thin 0"
dm_create thin "0 262144 thin /dev/mapper/pool 0"
dd if=/dev/zero of=/dev/mapper/thin bs=64k count=8 oflag=direct
dm_remove thin
dm_remove pool
