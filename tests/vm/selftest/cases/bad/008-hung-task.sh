# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a task hangs in the kernel although the script succeeds
# modules: dm-mod
# binaries: dmsetup
# disk: data,size=16M
# timeout: 120

modprobe dm-mod
dm_create stuck "0 2048 linear $(disk data) 0"
echo 3 >/proc/sys/kernel/hung_task_timeout_secs
dmsetup suspend --nolockfs stuck
# A wait for direct I/O is spared by the kernel, a wait for writeback is not.
dd if=/dev/zero of=/dev/mapper/stuck bs=4k count=1 conv=fsync &
retry 60 sh -c 'dmesg | grep -q "blocked for more than"' || fail "no hung task was reported"
dmsetup --noudevsync resume stuck
wait
