# SPDX-License-Identifier: Apache-2.0
"""The source's clock is set forward and back by hours and days under load. Records carry its time and nothing may follow it: the order of
points, lag on both sides, the schedule of verifications. The other side of it, the server's clock, is in tests/faults/test_clock.py.
"""
import os
import random

from vmtest.faults import TRIALS, check_order, check_reported, fault_case, fault_guest
from vmtest.paths import VmError
from vmtest.spec import Disk

SEED = int(os.environ.get("BLKFERRY_FAULT_SEED", "0")) or random.randrange(1 << 32)
HOUR, DAY = 3600, 86400

SCRIPT = r"""
first=$(disk first)
second=$(disk second)
agent_setup 'batch_interval_ms = 50' 'verify_interval = "10s"'
agent_start
blkferry protect "$first" "$second"
agent_wait CONTINUOUS
order "$first" "$second" /tmp/stop 2000 >/tmp/rounds &
order=$!
fio --name=load --filename="$first" --offset=1M --rw=randwrite --bsrange=4k-16k --direct=1 --ioengine=io_uring --iodepth=4 --rate_iops=40 \
	--norandommap=1 --time_based --runtime=6h --output=/dev/null &
load=$!
shift_clock() { date -u -s "@$(($(date +%s) + $1))" >/dev/null; }
lag_between() { # lag_between LEAST MOST WHERE
	lag=$(status_of lag_ms)
	[ "$lag" -ge "$1" ] && [ "$lag" -le "$2" ] || fail "$3: lag is $lag ms, not $1 to $2"
}
number=0
set +x
for jump in $JUMPS; do
	number=$((number + 1))
	shift_clock "$jump"
	for _ in 1 2 3 4 5 6 7 8; do lag_between 0 60000 "clock set by $jump s"; done
	before=$(status_of durable_mark)
	retry 60 mark_passed "$before" || fail "clock set by $jump s: marks do not move on: $(blkferry status)"
	mark_point "p$number"
done
# while writes wait: their age is the time that passes
for jump in -1800 90000; do
	began=$(uptime_s)
	blkferry throttle 64kbit
	waits() { [ "$(status_of lag_ms)" -ge 3000 ]; }
	retry 60 waits || fail "no write waits"
	shift_clock "$jump"
	for _ in 1 2 3 4 5 6 7 8; do lag_between 3000 $((($(uptime_s) - began + 20) * 1000)) "on a slow link, clock set by $jump s"; done
	blkferry throttle unlimited
	number=$((number + 1))
	mark_point "p$number"
done
# set far back: the next verification is an interval away, not days
verified() { status_of 'verify.last.ended_ms // 0'; }
shift_clock -200000
now=$(date +%s)
verified_now() { [ "$(verified)" -gt 0 ] && [ "$(verified)" -lt $(((now + 7200) * 1000)) ] && [ "$(verified)" -ge $((now * 1000)) ]; }
retry 120 verified_now || fail "no verification since the clock was set back: $(blkferry status --json)"
expect_equal "what verification found" "$(status_of verify.last.differing_bytes)" 0
set -x
sync_host look
touch /tmp/stop
wait $order
kill $load
wait $load || true
report rounds "$(cat /tmp/rounds)"
report jumps "$JUMPS"
agent_wait CONTINUOUS
point_equal final "$first" "$second"
kernel_clean
"""

RNG = random.Random(f"{SEED}/clock")
SIZES = [(2, 60), (HOUR // 2, 20 * HOUR), (DAY, 12 * DAY)]
JUMPS = [sign * RNG.randrange(*size) for _ in range(TRIALS) for sign in (1, -1) for size in SIZES]
RNG.shuffle(JUMPS)


def host(vm) -> None:
    vm.expect("look")
    source = vm.context.server.source()  # the two clocks are days apart now
    if source["lag_ms"] > 60_000:
        raise VmError(f"the server takes the source's clock for its own: lag {source['lag_ms']} ms")
    vm.reply()


def check(context) -> None:
    check_reported(context)
    check_order(context, least=len(JUMPS) + 2)
    names = [point["point"] for point in context.server.points()]
    wanted = [f"p{n}" for n in range(1, len(JUMPS) + 3)] + ["final"]
    if [name for name in names if name in wanted] != wanted:
        raise VmError(f"points are missing or out of order: {names}")


CASE = fault_case(
    "the source's clock set by hours and days, forward and back, under load and while writes wait: points in order, lag true, "
    f"verification goes on (BLKFERRY_FAULT_SEED={SEED})",
    fault_guest(SCRIPT, env={"JUMPS": " ".join(map(str, JUMPS))}, timeout=360, disks=[Disk("first", "4M"), Disk("second", "4M")]),
    host=host, check=check)
