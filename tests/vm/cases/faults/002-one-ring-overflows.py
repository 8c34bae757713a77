# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import check_reported, fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
first=$(disk first)
second=$(disk second)
loud=$(disk loud)
agent_setup 'ring = "1MiB"' 'batch_interval_ms = 20'
agent_start
blkferry protect "$first" "$second" "$loud"
agent_wait CONTINUOUS
mark_point before

# While the agent does not run one disk overflows; the others have a few writes, which stay in their rings.
kill -STOP "$BF_AGENT"
for n in 1 2 3 4 5 6 7 8; do
	for quiet in "$first" "$second"; do
		dd if=/dev/urandom of="$quiet" bs=4k seek=$((n * 100)) count=1 oflag=direct conv=notrunc 2>/dev/null
	done
	dd if=/dev/urandom of="$loud" bs=64k seek=$((n * 8)) count=8 oflag=direct conv=notrunc 2>/dev/null
done
expect_equal "overflows of the first disk" "$(count 0 overflows)" 0
expect_equal "overflows of the second disk" "$(count 1 overflows)" 0
[ "$(count 2 overflows)" -ge 1 ] || fail "the loud disk did not overflow: $(bft get 2)"
expect_equal "state of the first disk" "$(count 0 state)" 3
expect_equal "state of the second disk" "$(count 1 state)" 3
expect_equal "state of the loud disk" "$(count 2 state)" 1
# A slow link holds the gap open: no point, and the status says why; the last one stays.
kill -CONT "$BF_AGENT"
blkferry throttle 2mbit
in_gap() { [ "$(status_of state)" = BACKLOG ]; }
retry 30 in_gap || fail "the state does not tell of the gap: $(blkferry status)"
must_fail blkferry mark --name never >/tmp/mark.txt 2>&1
grep -Eiq 'gap|sync|backlog' /tmp/mark.txt || fail "the refusal names no cause: $(cat /tmp/mark.txt)"
[ "$(status_of 'disks[2].dirty_bytes')" -gt 0 ] || fail "the status shows nothing dirty: $(blkferry status --json)"
expect_equal "phase of the first disk" "$(status_of 'disks[0].phase')" CONTINUOUS
expect_equal "phase of the loud disk" "$(status_of 'disks[2].phase')" BACKLOG
blkferry throttle unlimited
agent_wait CONTINUOUS
expect_equal "state of the quiet disks all along" "$(count 0 overflows)$(count 1 overflows)" 00
point_equal final "$first" "$second" "$loud"
kernel_clean
"""


def host_check(context) -> None:
    names = [point["point"] for point in context.server.points()]
    assert "before" in names, f"the last consistent point is gone: {names}"
    assert "never" not in names, f"a point was made while a gap was open: {names}"
    check_reported(context)


CASE = fault_case(
    "of three disks one overflows: the others stay in RING, no point is made meanwhile and the status says why",
    fault_guest(SCRIPT, disks=[Disk("first", "8M"), Disk("second", "8M"), Disk("loud", "16M")]), check=host_check)
