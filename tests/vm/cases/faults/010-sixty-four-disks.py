# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest

SCRIPT = r"""
modprobe brd rd_nr=64 rd_size=1024
agent_setup 'ring = "256KiB"' 'batch_interval_ms = 50'
agent_start
set --
for n in $(seq 0 63); do set -- "$@" "/dev/ram$n"; done
blkferry protect "$@" >/dev/null
agent_wait CONTINUOUS
expect_equal "disks" "$(blkferry status --json | jq '.disks | length')" 64
order /dev/ram0 /dev/ram1 /tmp/stop 20000 >/tmp/rounds &
order=$!
set +x
number=0
for round in $(seq $((2 * TRIALS))); do
	for n in $(seq 2 63); do
		dd if=/dev/urandom of="/dev/ram$n" bs=4k seek=$(((n * 7 + round * 31) % 250)) count=3 oflag=direct conv=notrunc 2>/dev/null
		if [ $((n % 16)) = 0 ]; then
			number=$((number + 1))
			mark_point "p$number"
		fi
	done
done
touch /tmp/stop
wait $order
agent_wait CONTINUOUS
point_equal final "$@"
set -x
report rounds "$(cat /tmp/rounds)"
kernel_clean >/dev/null
"""

CASE = fault_case("64 disks protected at once: points under load keep the order over two of them, and all end equal",
                  fault_guest(SCRIPT, modules=["brd"]), ordered=5)
