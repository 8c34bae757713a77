# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: file systems frozen for a cut are thawed in time although the caller is stopped or killed meanwhile
# modules: ext4 brd dm-mod dm-delay
# binaries: mkfs.ext4 mount umount dmsetup
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: data,size=64M
# disk: copy,size=64M
# memory: 768
# timeout: 240

data=$(disk data)
modprobe ext4
modprobe brd rd_nr=1 rd_size=32768
modprobe dm-mod
modprobe dm-delay
insmod /opt/blkferry/blkferry.ko
bft attach "$data" 4194304
bft follow 0 "$data" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
follower=$!
retry 60 sh -c 'bft get 0 | grep -q "state=3"' || fail "no RING: $(bft get 0)"
mkfs.ext4 -q "$data"
mount -t ext4 "$data" /mnt
mkfs.ext4 -q /dev/ram0
dm_create slow "0 65536 delay /dev/ram0 0 0 /dev/ram0 0 2500"
mkdir /slow
mount -t ext4 /dev/mapper/slow /slow

for signal in STOP KILL; do
	# /mnt is frozen first; then the caller hangs in the freeze of /slow, whose writes take 2.5 s each
	echo "$signal" >/slow/file
	bft cut 500 "$data" /dev/mapper/slow >"/tmp/answer.$signal" 2>&1 &
	caller=$!
	retry 20 grep -q freeze_super "/proc/$caller/stack" || fail "the caller does not hang in the freeze"
	kill "-$signal" "$caller"
	# this write waits for the thaw; no one but the watchdog can do that while the caller is stuck (a killed one may be gone already)
	echo "$signal" >/mnt/alive
	sync /mnt/alive
	[ "$signal" = KILL ] || grep -q freeze_super "/proc/$caller/stack" || fail "the write was let through only after the caller had come back"
	kill -CONT "$caller" 2>/dev/null || true
	wait "$caller" || true
	# and the slow one is not left frozen by whom nobody waits for any more
	echo alive >/slow/alive
done
grep -q error=ETIMEDOUT /tmp/answer.STOP || fail "not a timeout: $(cat /tmp/answer.STOP)"
bft cut 5000 "$data" || fail "no cut afterwards"
# what writers felt of it was measured: /mnt stood still until the watchdog came, at 500 ms
bft info | tr ' ' '\n' >/tmp/info.txt
[ "$(sed -n 's/^frozen_max_ns=//p' /tmp/info.txt)" -ge 500000000 ] || fail "the freeze was not measured: $(cat /tmp/info.txt)"
umount /slow
dm_remove slow
umount /mnt
kill -USR1 "$follower"
wait "$follower" || fail "$(tail -n 2 /tmp/follow.txt)"
bft detach 0
rmmod blkferry
