# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
agent_setup
agent_start
blkferry protect "$(disk data)"
agent_wait CONTINUOUS
synced=$(status_of counters.resync_bytes)
# Writes that overlap in flight have no known order and are read again from the disk: there must be none.
fio --name=load --filename="$(disk data)" --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=8 \
	--serialize_overlap=1 --rate=1m --time_based --runtime=6h --norandommap=1 --output=/dev/null &
load=$!
for round in 1 2 3 4; do
	reached=$(status_of durable_mark)
	retry 90 mark_passed "$reached"
	sync_host "kill$round"
	agent_wait CONTINUOUS
done
kill $load
wait $load || true
expect_equal "bytes resynced" "$(status_of counters.resync_bytes)" "$synced"
mark_point final
report hash0 "$(medium_hash "$(disk data)")"
"""


def host(vm) -> None:
    for number in range(1, 5):
        vm.expect(f"kill{number}")
        vm.context.server.kill()
        vm.context.server.start()
        vm.reply("again")


CASE = chain_case(
    "a server killed four times under load resumes from its journal: no resync, no lost write",
    chain_guest(SCRIPT, disks=[Disk("data", "64M")]), host=host)
