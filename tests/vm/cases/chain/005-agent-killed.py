# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
agent_setup
agent_start
blkferry protect "$(disk data)"
agent_wait CONTINUOUS
before=$(status_of counters.resync_bytes)
# Writes that overlap in flight have no known order and are read again from the disk: there must be none.
fio --name=load --filename="$(disk data)" --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=8 \
	--serialize_overlap=1 --rate=1m --time_based --runtime=6h --norandommap=1 --output=/dev/null &
load=$!
for _ in 1 2 3 4 5; do
	reached=$(status_of durable_mark)
	retry 60 mark_passed "$reached"
	agent_kill
	agent_start
	agent_wait CONTINUOUS
	# counters begin anew with each agent: nothing was read again from the disk
	expect_equal "bytes resynced after a restart" "$(status_of counters.resync_bytes)" 0
done
[ "$before" -gt 0 ] || fail "the initial sync was not counted"
kill $load
wait $load || true
mark_point final
report hash0 "$(medium_hash "$(disk data)")"
"""

CASE = chain_case(
    "an agent killed five times under load goes on at the last acknowledged number: no resync, no lost write",
    chain_guest(SCRIPT, disks=[Disk("data", "64M")]))
