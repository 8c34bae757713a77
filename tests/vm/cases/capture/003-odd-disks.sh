# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: bio-based, 4Kn, loop and device-mapper disks are captured; zoned and read-only disks and partitions are refused
# modules: brd null_blk loop dm-mod dm-flakey
# binaries: fio dmsetup losetup sfdisk partx blockdev
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: native,size=48M,block=4096
# disk: parts,size=48M
# disk: copy,size=64M
# memory: 1024
# timeout: 600

insmod /opt/blkferry/blkferry.ko

refused() { # refused ERROR DEVICE
	must_fail bft attach "$2" >/tmp/answer
	grep -q "^error=$1 text=." /tmp/answer || fail "attach $2: $(cat /tmp/answer)"
}

replicated() { # replicated DEVICE
	bft attach "$1" 4194304 || fail "attach $1"
	rm -f /tmp/follow.txt
	bft follow 0 "$1" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
	follower=$!
	retry 30 grep -qs following /tmp/follow.txt
	fio --name=load --filename="$1" --direct=1 --rw=randwrite --bsrange=4k-64k --blockalign=4k --ioengine=libaio \
		--iodepth=32 --size=32M --io_size=12M --norandommap=1 --output=/tmp/fio.txt ||
		fail "fio on $1: $(tail -n 3 /tmp/fio.txt)"
	dd if=/dev/urandom of="$1" bs=1M count=4 conv=fsync 2>/dev/null
	kill -USR1 "$follower"
	wait "$follower" || fail "$1: $(tail -n 2 /tmp/follow.txt)"
	bft get 0 | grep -q ' unknown=0 ' || fail "$1: unknown completions: $(bft get 0)"
	bft detach 0
}

modprobe brd rd_nr=1 rd_size=49152
modprobe null_blk nr_devices=0
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
modprobe loop max_loop=1
modprobe dm-mod
modprobe dm-flakey
replicated "$(disk native)"
replicated /dev/ram0

# older kernels name the disk by its index, newer ones by its directory
null_disk() { # null_disk NAME
	if [ -b "/dev/$1" ]; then echo "/dev/$1"; else echo "/dev/nullb$(cat "/sys/kernel/config/nullb/$1/index")"; fi
}

for name in nullmem nullzoned; do
	dir=/sys/kernel/config/nullb/$name
	mkdir "$dir"
	echo 48 >"$dir/size"
	echo 1 >"$dir/memory_backed"
	[ "$name" = nullmem ] || echo 1 >"$dir/zoned"
	[ "$name" = nullmem ] || echo 4 >"$dir/zone_size"
	if ! echo 1 >"$dir/power" && [ "$name" = nullzoned ]; then echo "no zoned null_blk here"; fi
done
replicated "$(null_disk nullmem)"
zoned=$(null_disk nullzoned)
if [ -b "$zoned" ] && grep -qv none "/sys/block/${zoned##*/}/queue/zoned"; then refused EOPNOTSUPP "$zoned"; fi

truncate -s 48M /tmp/image
losetup /dev/loop0 /tmp/image
replicated /dev/loop0
losetup -d /dev/loop0

dm_create flat "0 98304 linear /dev/ram0 0"
replicated /dev/mapper/flat
blockdev --setro /dev/mapper/flat
refused EROFS /dev/mapper/flat
dm_remove flat

parts=$(disk parts)
echo ',,L' | sfdisk -q "$parts"
partx -a "$parts" || true
retry 10 test -b "${parts}1"
refused EINVAL "${parts}1"
grep -q "whole disk" /tmp/answer
rmmod blkferry
