# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: writes that fail are re-read, below a blk-mq disk and on a bio-based one, and the application sees its errors
# modules: brd dm-mod dm-flakey scsi_debug sd_mod
# binaries: fio dmsetup
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: copy,size=64M
# memory: 768
# timeout: 240

insmod /opt/blkferry/blkferry.ko
modprobe brd rd_nr=1 rd_size=49152
modprobe dm-mod
modprobe dm-flakey

count() { # count NAME
	bft get 0 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

follow() {
	bft follow 0 "$1" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
	follower=$!
	retry 60 sh -c 'bft get 0 | grep -q "state=3"' || fail "no RING: $(bft get 0)"
}

equal() {
	kill -USR1 "$follower"
	wait "$follower" || fail "$1: $(tail -n 2 /tmp/follow.txt)"
	bft get 0
	bft detach 0
}

write() { # write DEVICE; many of them fail
	fio --name=load --filename="$1" --direct=1 --rw=randwrite --bs=8k --ioengine=libaio --iodepth=16 --size=32M \
		--io_size=16M --continue_on_error=write --output=/tmp/fio.txt || true
}

# bio-based: the second half of the device refuses writes
dm_create flaky "0 49152 linear /dev/ram0 0
49152 49152 flakey /dev/ram0 49152 0 600 1 error_writes"
bft attach /dev/mapper/flaky 4194304
follow /dev/mapper/flaky
fio --name=load --filename=/dev/mapper/flaky --direct=1 --rw=randwrite --bs=8k --ioengine=libaio --iodepth=16 --size=48M \
	--io_size=16M --continue_on_error=write --output=/tmp/fio.txt || true
grep -q 'err=' /tmp/fio.txt || fail "the application saw no error"
[ "$(count failed)" -gt 10 ] || fail "no failed write was seen: $(bft get 0)"
equal "dm-flakey"
dm_remove flaky

# blk-mq: medium errors in a range of a SCSI disk
modprobe sd_mod
modprobe scsi_debug dev_size_mb=48 opts=2 medium_error_start=4096 medium_error_count=2048 max_luns=1 num_tgts=1
retry 30 test -b /dev/sda || fail "no SCSI disk"
scsi=/dev/sda
echo 0 >/sys/bus/pseudo/drivers/scsi_debug/opts
bft attach "$scsi" 4194304
follow "$scsi"
echo 2 >/sys/bus/pseudo/drivers/scsi_debug/opts
write "$scsi"
echo 0 >/sys/bus/pseudo/drivers/scsi_debug/opts
report failed_scsi "$(count failed)"
equal "scsi_debug"
rmmod blkferry
