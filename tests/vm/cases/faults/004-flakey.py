# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
modprobe dm-mod
modprobe dm-flakey
data=$(disk data)
dd if=/dev/urandom of="$data" bs=1M count=16 oflag=direct 2>/dev/null
GOOD="0 32768 linear $data 0"
# from 6 MiB on, 2 MiB refuse writes and can be read; 1 MiB at 12 MiB refuses both
WRITES="0 12288 linear $data 0
12288 4096 flakey $data 12288 0 600 1 error_writes
16384 16384 linear $data 16384"
BOTH="0 24576 linear $data 0
24576 2048 error
26624 6144 linear $data 26624"
swap() { # swap TABLE: under load, in-flight writes end first
	printf '%s\n' "$1" | dmsetup --noudevsync --noudevrules reload target
	dmsetup --noudevsync --noudevrules suspend --nolockfs target
	dmsetup --noudevsync --noudevrules resume target
}
errno_of() { # what the application sees: the word of strerror
	dd if=/dev/urandom of="$1" bs=4k seek="$2" count=1 oflag=direct conv=notrunc 2>&1 >/dev/null | sed -n 's/.*: //p' | head -n 1
}
dm_create target "$GOOD"
# without us: which error an application gets
swap "$WRITES"
alone_writes=$(errno_of /dev/mapper/target 1600)
swap "$BOTH"
alone_both=$(errno_of /dev/mapper/target 3100)
swap "$GOOD"
[ -n "$alone_writes" ] && [ -n "$alone_both" ] || fail "the fault was not seen without the module"

agent_setup
agent_start
blkferry protect /dev/mapper/target
agent_wait CONTINUOUS
fio --name=load --filename=/dev/mapper/target --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=16 \
	--rate=2m --norandommap=1 --time_based --runtime=6h --continue_on_error=all --output=/tmp/fio.txt &
load=$!
for round in $(seq $((2 * TRIALS))); do
	swap "$WRITES"
	expect_equal "error of a failing write" "$(errno_of /dev/mapper/target 1600)" "$alone_writes"
	sleep 1
	swap "$BOTH"
	expect_equal "error on a dead range" "$(errno_of /dev/mapper/target 3100)" "$alone_both"
	sleep 1
	swap "$GOOD"
	failed=$(count 0 failed)
	mark_point "p$round"
done
kill $load
wait $load || true
report failed "$failed"
[ "$failed" -gt 10 ] || fail "hardly a write failed: $(bft get 0)"
agent_wait CONTINUOUS
point_equal final /dev/mapper/target
expect_equal "ended by the watchdog" "$(count 0 watchdog)" 0
expect_equal "unknown completions" "$(count 0 unknown)" 0
kernel_clean
"""

CASE = fault_case(
    "dm-flakey and dm-error tables swapped under load: the application sees the same errno, failed writes are read again",
    fault_guest(SCRIPT, modules=["dm-mod", "dm-flakey"], binaries=["dmsetup"], disks=[Disk("data", "16M")]))
