# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
data=$(disk data)
agent_setup 'ring = "64KiB"' 'batch_interval_ms = 10'
agent_start
blkferry protect "$data"
agent_wait CONTINUOUS
set +x
# The agent stands still, so the fill is exact: each amount around the ring's 16 blocks of 4 KiB, then cuts until one more
# does not fit, then writes behind it.
refused=0
drawn=0
points=""
for round in $(seq "$TRIALS"); do
	for fill in 13 14 15 16 17; do
		kill -STOP "$BF_AGENT"
		dd if=/dev/urandom of="$data" bs=4k seek=$((fill * 40 + round % 20)) count="$fill" oflag=direct conv=notrunc 2>/dev/null
		for cut in 1 2 3; do
			if bft cut >/tmp/cut.txt; then
				drawn=$((drawn + 1))
			else
				grep -Eq 'error=(ENOSPC|ENODEV)' /tmp/cut.txt || fail "cut at fill $fill: $(cat /tmp/cut.txt)"
				refused=$((refused + 1))
			fi
			dd if=/dev/urandom of="$data" bs=512 seek=$((cut * 77 + fill)) count=1 oflag=direct conv=notrunc 2>/dev/null
		done
		kill -CONT "$BF_AGENT"
		agent_wait CONTINUOUS
		point_equal "fill$fill-$round" "$data"
	done
	# descriptors run out before data does: one-sector writes
	kill -STOP "$BF_AGENT"
	for n in $(seq 0 5 160); do
		dd if=/dev/urandom of="$data" bs=512 seek="$((n * 8))" count=5 oflag=direct conv=notrunc 2>/dev/null
		bft cut >/tmp/cut.txt && drawn=$((drawn + 1)) || refused=$((refused + 1))
	done
	kill -CONT "$BF_AGENT"
	agent_wait CONTINUOUS
	point_equal "descs-$round" "$data"
done
set -x
report drawn "$drawn"
report refused "$refused"
report overflows "$(count 0 overflows)"
[ "$drawn" -ge 5 ] && [ "$refused" -ge 2 ] || fail "the cuts did not meet both sides of a full ring: $drawn drawn, $refused refused"
kernel_clean
"""

CASE = fault_case("cuts drawn exactly when the ring gets full end equal, whether they found room or were refused",
                  fault_guest(SCRIPT, disks=[Disk("data", "4M")]))
