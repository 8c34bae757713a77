# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
first=$(disk first)
second=$(disk second)
agent_setup 'ring = "64KiB"' 'batch_interval_ms = 10'
agent_start
blkferry protect "$first" "$second"
agent_wait CONTINUOUS
order "$first" "$second" /tmp/stop >/tmp/rounds &
order=$!
# Bursts of 128 KiB and less, each with a pause in which a gap can close, and cuts the whole time. A burst often meets a
# resync that runs, so it overflows inside RESYNC too.
fio --name=bursts --filename="$first" --offset=1M --size=7M --rw=randwrite --bsrange=4k-32k --direct=1 --ioengine=io_uring \
	--iodepth=8 --norandommap=1 --thinktime=400ms --thinktime_blocks=12 --time_based --runtime=6h --output=/dev/null &
load=$!
set +x
began=$(date +%s)
number=0
stuck=0
overflows=0
# For so long, and then until enough has happened; a slow machine may need more.
while spent=$(($(date +%s) - began)); [ "$spent" -lt $((25 * TRIALS)) ] ||
	{ [ "$overflows" -lt 10 ] || [ "$REFUSED" -lt 1 ]; } && [ "$spent" -lt $((100 * TRIALS)) ]; do
	number=$((number + 1))
	try_mark "p$number"
	if [ $((number % 10)) = 0 ] && ! agent_in CONTINUOUS; then
		stuck=$((stuck + 1))
	fi
	overflows=$(($(count 0 overflows) + $(count 1 overflows)))
done
set -x
kill $load
wait $load || true
touch /tmp/stop
wait $order
report rounds "$(cat /tmp/rounds)"
report made "$MADE"
report refused "$REFUSED"
report not_continuous "$stuck"
overflows=$(($(count 0 overflows) + $(count 1 overflows)))
report overflows "$overflows"
[ "$overflows" -ge 10 ] || fail "the rings flipped $overflows times only"
[ "$REFUSED" -ge 1 ] || fail "no mark met an open gap"
agent_wait CONTINUOUS
point_equal final "$first" "$second"
expect_equal "bad consumer" "$(count 0 bad_consumer)" 0
kernel_clean
"""

CASE = fault_case(
    "rings of 64 KiB that flip between RING, BITMAP and RESYNC while cuts are asked for: each point that is made keeps "
    "the order over both disks, and the end is equal",
    fault_guest(SCRIPT, disks=[Disk("first", "8M"), Disk("second", "8M")]), ordered=2)
