# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the module measures how long its own code takes: counts grow, quantiles are in order, a planted stall shows where it is
# modules: ext4
# binaries: mkfs.ext4 mount umount
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft ko:tests/kmod/stall/stall.ko
# disk: data,size=64M
# timeout: 240

ask() { # ask COMMAND...: bft's answer as one NAME=value a line in /tmp/answer
	bft "$@" >/tmp/raw || fail "bft $*: $(cat /tmp/raw)"
	tr ' ' '\n' </tmp/raw >/tmp/answer
}

field() {
	sed -n "s/^$1=//p" /tmp/answer
}

in_order() { # in_order SET: samples, 0 < p50 <= p99 <= max; tells the values
	[ "$(field "$1_samples")" -gt 0 ] || fail "$1: nothing was measured: $(cat /tmp/raw)"
	[ "$(field "$1_p50_ns")" -gt 0 ] || fail "$1: p50 is 0: $(cat /tmp/raw)"
	[ "$(field "$1_p50_ns")" -le "$(field "$1_p99_ns")" ] || fail "$1: p50 above p99: $(cat /tmp/raw)"
	[ "$(field "$1_p99_ns")" -le "$(field "$1_max_ns")" ] || fail "$1: p99 above max: $(cat /tmp/raw)"
	report "$1" "p50=$(field "$1_p50_ns") p99=$(field "$1_p99_ns") max=$(field "$1_max_ns") ns, $(field "$1_samples") samples"
}

write_blocks() { # write_blocks COUNT [SIZE]
	dd if=/dev/urandom of="$data" bs="${2:-4k}" count="$1" oflag=direct 2>/dev/null
}

# A tenth of a stall is left to the conversion: a tick is measured against the clock over the last second.
stalled() { # stalled FUNCTION MS COUNT SIZE: writes while this function waits at its entry each time; it has to be met
	insmod /opt/blkferry/stall.ko symbol="$1" ms="$2" || fail "no probe on $1"
	write_blocks "$3" "$4"
	hits=$(cat /sys/module/stall/parameters/hits)
	rmmod stall
	[ "$hits" -gt 0 ] || fail "$1 was not met"
}

data=$(disk data)
insmod /opt/blkferry/blkferry.ko
ask info
expect_equal "freezes so far" "$(field frozen_samples)" 0
bft attach "$data" 8388608
ask latency 0
for set in submit submit_bitmap end; do
	expect_equal "$set before the first write" "$(field ${set}_samples) $(field ${set}_max_ns)" "0 0"
done

# BITMAP: one in 64, by the counter
write_blocks 640
ask get 0
expect_equal "writes to the map" "$(field dirty_ops)" 640
ask latency 0
expect_equal "submit" "$(field submit_samples)" 0
expect_equal "sampled in BITMAP" "$(field submit_bitmap_samples)" 10
in_order submit_bitmap
in_order end
ended=$(field end_samples)
stalled bf_capture_bitmap 50 64 4k
ask latency 0
in_order submit_bitmap
[ "$(field submit_bitmap_max_ns)" -ge 45000000 ] || fail "a stall of 50 ms is not seen in BITMAP: $(cat /tmp/raw)"

# RING: every write
bft begin 0
bft clear 0 0 131072
bft end 0
write_blocks 512
ask get 0
expect_equal "state" "$(field state)" 3
expect_equal "writes to the ring" "$(field ops)" 512
ask latency 0
expect_equal "measured in RING" "$(field submit_samples)" 512
[ "$(field end_samples)" -ge $((ended + 8)) ] || fail "ends are not measured: $(cat /tmp/raw)"
in_order submit
stalled bf_copy_many 300 1 8k
ask latency 0
expect_equal "measured in RING" "$(field submit_samples)" 513
in_order submit
[ "$(field submit_max_ns)" -ge 270000000 ] || fail "a stall of 300 ms in the copy is not seen: $(cat /tmp/raw)"
stalled bf_end_keep 100 64 4k
ask latency 0
in_order end
[ "$(field end_max_ns)" -ge 90000000 ] || fail "a stall of 100 ms at the end of writes is not seen: $(cat /tmp/raw)"

# a file system that stood still for a cut
modprobe ext4
mkfs.ext4 -q "$data" 4M
mount -t ext4 "$data" /mnt
ask cut 5000 "$data"
ask info
expect_equal "freezes" "$(field frozen_samples)" 1
in_order frozen
umount /mnt
bft detach 0
rmmod blkferry
