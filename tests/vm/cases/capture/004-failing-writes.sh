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
	rm -f /tmp/follow.txt
	bft follow 0 "$1" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
	follower=$!
	retry 60 sh -c 'bft get 0 | grep -q "gap_seq=0 "' || fail "no RING: $(bft get 0)"
}

equal() {
	kill -USR1 "$follower"
	wait "$follower" || fail "$1: $(tail -n 2 /tmp/follow.txt)"
	bft get 0
	bft detach 0
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

# blk-mq: for a while every command of a SCSI disk ends with a transport error; nobody reads it meanwhile
modprobe sd_mod
modprobe scsi_debug dev_size_mb=48
retry 30 test -b /dev/sda || fail "no SCSI disk"
debug=/sys/bus/pseudo/drivers/scsi_debug
bft attach /dev/sda 4194304
follow /dev/sda
kill -USR1 "$follower"
wait "$follower" || fail "before the errors: $(tail -n 2 /tmp/follow.txt)"
echo -1 >"$debug/every_nth"
echo 16 >"$debug/opts"
for block in 100 2000 7; do must_fail dd if=/dev/urandom of=/dev/sda bs=8k seek="$block" count=1 oflag=direct; done
echo 0 >"$debug/opts"
echo 0 >"$debug/every_nth"
report failed_scsi "$(count failed)"
[ "$(count failed)" -ge 3 ] || fail "no failed write was seen: $(bft get 0)"
follow /dev/sda
equal "scsi_debug"
rmmod blkferry
