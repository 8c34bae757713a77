# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
modprobe dm-mod
modprobe dm-delay
first=$(disk first)
second=$(disk second)
# the first is protected above the delay, the second is protected itself and lies beneath a device that is suspended
dm_create slow "0 16384 delay $first 0 0 $first 0 40"
dm_create above "0 16384 linear $second 0"
agent_setup 'batch_interval_ms = 20'
agent_start
blkferry protect /dev/mapper/slow "$second"
agent_wait CONTINUOUS
order /dev/mapper/slow /dev/mapper/above /tmp/stop >/tmp/rounds &
order=$!
fio --output=/dev/null --time_based --runtime=6h --direct=1 --ioengine=io_uring --norandommap=1 --rw=randwrite --offset=1M --rate_iops=40 \
	--name=slow --filename=/dev/mapper/slow --bsrange=4k-64k --iodepth=32 \
	--name=above --filename=/dev/mapper/above --bsrange=4k-64k --iodepth=32 &
load=$!
number=0
for round in $(seq $((4 * TRIALS))); do
	for device in slow above; do
		# suspended for half a second, with writes queued behind it; a point waits for what is in flight, not for ever
		dmsetup --noudevsync --noudevrules suspend --nolockfs "$device"
		number=$((number + 1))
		mark_point "p$number" &
		mark=$!
		sleep 0.5
		dmsetup --noudevsync --noudevrules resume "$device"
		wait $mark
		number=$((number + 1))
		mark_point "p$number"
	done
done
touch /tmp/stop
wait $order
kill $load
wait $load || true
report rounds "$(cat /tmp/rounds)"
report points "$number"
agent_wait CONTINUOUS
point_equal final /dev/mapper/slow "$second"
for id in 0 1; do
	expect_equal "ended by the watchdog" "$(count $id watchdog)" 0
done
kernel_clean
"""

CASE = fault_case(
    "slow completions (dm-delay) and dm devices suspended under load, as the disk and above it: points stay in order, the end is equal",
    fault_guest(SCRIPT, modules=["dm-mod", "dm-delay"], binaries=["dmsetup"],
                disks=[Disk("first", "8M"), Disk("second", "8M")]), ordered=8)
