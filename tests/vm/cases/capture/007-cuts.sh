# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: cuts are drawn with and without frozen file systems; a freeze that takes too long is thawed by itself
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
must_fail bft cut >/tmp/answer
grep -q error=ENODEV /tmp/answer
bft attach "$data" 4194304
must_fail bft cut >/tmp/answer
grep -q error=ENODEV /tmp/answer
bft follow 0 "$data" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
follower=$!
retry 60 sh -c 'bft get 0 | grep -q "state=3"' || fail "no RING: $(bft get 0)"

mkfs.ext4 -q "$data"
mount -t ext4 "$data" /mnt
(i=0; while [ ! -e /run/stop ]; do i=$((i + 1)); echo "$i" >"/mnt/file$((i % 50))"; done) &
writer=$!
last=0
set +x
for round in $(seq 1 20); do
	if [ $((round % 2)) = 0 ]; then
		bft cut >/tmp/answer || fail "cut $round: $(cat /tmp/answer)"
	else
		bft cut 5000 "$data" >/tmp/answer || fail "frozen cut $round: $(cat /tmp/answer)"
	fi
	seq=$(sed -n 's/^seq=//p' /tmp/answer)
	[ "$seq" -gt "$last" ] || fail "cut $round: number $seq after $last"
	last=$seq
done
set -x

# the second file system needs seconds to be frozen: its writes are delayed
mkfs.ext4 -q /dev/ram0
dm_create slow "0 65536 delay /dev/ram0 0 0 /dev/ram0 0 2000"
mkdir /slow
mount -t ext4 /dev/mapper/slow /slow
echo dirty >/slow/file
must_fail bft cut 100 "$data" /dev/mapper/slow >/tmp/answer
grep -q error=ETIMEDOUT /tmp/answer || fail "not a timeout: $(cat /tmp/answer)"
# nothing is frozen any more
echo alive >/mnt/alive
sync /mnt/alive
echo alive >/slow/alive
umount /slow
dm_remove slow
touch /run/stop
wait "$writer"
umount /mnt
kill -USR1 "$follower"
wait "$follower" || fail "$(tail -n 2 /tmp/follow.txt)"
bft detach 0
rmmod blkferry
