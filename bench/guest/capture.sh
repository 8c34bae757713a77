# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# The instruction table, in a guest under -icount. Run by bench/run; sends one "report ROW median mean" per row.
# rd0 is measured, rd1 is another protected disk. Both are filled first: brd allocates its pages at the first write.
# ROUNDS: how often the whole table is measured in this boot.

set +x
: "${ROUNDS:=2}"
size_kib=65536

measure() { # measure ROW DEVICE BYTES COUNT [DISK]
	row=$1
	shift
	report "$row" "$(cost write "$@")"
}

protect() { # protect DEVICE [DATA-BYTES]: prints the disk id
	bft attach "$@" >/tmp/answer || fail "attach: $(cat /tmp/answer)"
	sed -n 's/^disk=\([0-9]*\) .*/\1/p' /tmp/answer
}

to_ring() { # to_ring ID: an empty resync; state RING
	bft begin "$1" >/tmp/answer || fail "begin: $(cat /tmp/answer)"
	bft clear "$1" 0 $((size_kib * 2)) >/tmp/answer || fail "clear: $(cat /tmp/answer)"
	bft end "$1" >/tmp/answer || fail "end: $(cat /tmp/answer)"
	bft get "$1" | grep -q ' state=3 ' || fail "not in RING"
}

state_is() { # state_is ID STATE
	bft get "$1" | grep -q " state=$2 " || fail "the disk is not in state $2 after the row: $(bft get "$1")"
}

modprobe brd rd_nr=2 rd_size=$size_kib
modprobe dm-mod
for device in /dev/ram0 /dev/ram1; do
	dd if=/dev/urandom of="$device" bs=1M count=$((size_kib / 1024)) oflag=direct 2>/dev/null
done

dmesg -n 1
insmod /opt/blkferry/bf_unit.ko 2>/dev/null || true
unit=$(dmesg | sed -n 's/.*bf_unit: memcpy 4096 \([0-9]*\) 65536 \([0-9]*\).*/\1 \2/p')
[ -n "$unit" ] || fail "the unit was not measured: $(dmesg | tail -n 3)"
report memcpy "$unit"

round=1
while [ "$round" -le "$ROUNDS" ]; do
	measure "base_4k.$round" /dev/ram0 4096 8000
	measure "base_64k.$round" /dev/ram0 65536 800
	dm_create hop "0 $((size_kib * 2)) linear /dev/ram0 0"
	measure "dm_linear_4k.$round" /dev/mapper/hop 4096 8000
	dm_remove hop

	insmod /opt/blkferry/blkferry.ko
	measure "detached_4k.$round" /dev/ram0 4096 8000

	other=$(protect /dev/ram1)
	measure "other_4k.$round" /dev/ram0 4096 8000
	bft detach "$other"

	id=$(protect /dev/ram0 134217728)
	measure "bitmap_4k.$round" /dev/ram0 4096 8000
	state_is "$id" 1
	measure "bitmap_64k.$round" /dev/ram0 65536 800
	bft detach "$id"

	id=$(protect /dev/ram0 134217728)
	to_ring "$id"
	measure "ring_4k.$round" /dev/ram0 4096 8000
	state_is "$id" 3
	measure "ring_4k_steady.$round" /dev/ram0 4096 60000 "$id"
	state_is "$id" 3
	bft detach "$id"

	id=$(protect /dev/ram0 134217728)
	to_ring "$id"
	measure "ring_64k.$round" /dev/ram0 65536 800
	state_is "$id" 3
	bft detach "$id"
	measure "after_detach_4k.$round" /dev/ram0 4096 8000
	rmmod blkferry
	round=$((round + 1))
done
