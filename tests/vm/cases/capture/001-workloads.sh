# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: after mixed, deep, buffered, oversized, discarding and overflowing writes the replica equals the disk
# modules: ext4
# binaries: fio mkfs.ext4 mount umount blkdiscard fstrim
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: data,size=128M,discard
# disk: copy,size=128M
# memory: 1024
# timeout: 600

data=$(disk data)
copy=$(disk copy)
insmod /opt/blkferry/blkferry.ko
bft attach "$data" 16777216

follow() { # follow [DELAY_US]
	rm -f /tmp/follow.txt
	bft follow 0 "$data" "$copy" compare "${1:-0}" >/tmp/follow.txt 2>&1 &
	follower=$!
	retry 30 grep -qs following /tmp/follow.txt
}

equal() { # equal WHAT
	kill -USR1 "$follower"
	wait "$follower" || fail "$1: $(tail -n 2 /tmp/follow.txt)"
	cat /tmp/follow.txt
	bft get 0
}

load() {
	fio --name=load --filename="$data" --size=128M --output=/tmp/fio.txt "$@" || fail "fio: $(tail -n 3 /tmp/fio.txt)"
}

modprobe ext4
follow
load --direct=1 --rw=randwrite --bsrange=512-64k --blockalign=512 --io_size=48M --ioengine=io_uring --iodepth=64 \
	--norandommap=1
equal "mixed sizes, overlaps, during the initial sync"
follow
load --direct=1 --rw=randwrite --bs=4k --io_size=$((48 / BF_SLOW))M --ioengine=io_uring --iodepth=256
equal "io_uring, depth 256"
follow
load --rw=randwrite --bsrange=512-128k --io_size=64M --end_fsync=1
equal "buffered"
follow
load --direct=1 --rw=write --bs=8M --io_size=128M --ioengine=libaio --iodepth=4
equal "8 MiB"
follow
load --direct=1 --rw=randtrimwrite --bs=64k --io_size=32M --ioengine=libaio --iodepth=16
blkdiscard "$data" -o 0 -l 64M
blkdiscard -z "$data" -o 33554432 -l 16M
load --direct=1 --rw=randtrim --bs=16k --io_size=16M --ioengine=libaio --iodepth=32 --norandommap=1
equal "discards and zeroes"
follow $((300 * BF_SLOW * BF_SLOW * BF_SLOW)) # slower than the disk, so that 16 MiB of ring are too little
load --direct=1 --rw=randwrite --bs=16k --io_size=$((96 / BF_SLOW))M --ioengine=libaio --iodepth=64
equal "a slow consumer, overflow and back"
follow
mkfs.ext4 -q "$data"
mount -t ext4 "$data" /mnt
for i in 1 2 3; do
	dd if=/dev/urandom of="/mnt/$i" bs=64k count=200 2>/dev/null
	sync
done
rm /mnt/2
fstrim /mnt
umount /mnt
equal "ext4"

bft get 0 | tr ' ' '\n' >/tmp/counters
for counter in cancelled overflows oversize overlaps unknown inflight_full reused watchdog; do
	report "$counter" "$(sed -n "s/^$counter=//p" /tmp/counters)"
done
expect_equal "unknown completions" "$(sed -n 's/^unknown=//p' /tmp/counters)" 0
expect_equal "lost entries" "$(sed -n 's/^watchdog=//p' /tmp/counters)" 0
grep -q '^overflows=[1-9]' /tmp/counters || fail "the ring never overflowed"
grep -q '^oversize=[1-9]' /tmp/counters || fail "nothing was oversized"
bft detach 0
rmmod blkferry
