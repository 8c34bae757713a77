# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
agent_setup 'ring = "256KiB"' 'bandwidth = "16mbit"'
agent_start
blkferry protect "$(disk data)"
agent_wait CONTINUOUS 200
fio --name=burst --filename="$(disk data)" --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=32 \
	--io_size=48M --norandommap=1 --output=/tmp/fio.log
overflows=$(status_of 'disks[0].counters.overflows')
[ "$overflows" -gt 0 ] || fail "the ring did not overflow"
report overflows "$overflows"
blkferry throttle unlimited
agent_wait CONTINUOUS 200
mark_point final
report hash0 "$(medium_hash "$(disk data)")"
"""

CASE = chain_case(
    "a ring that overflows again and again goes to the dirty map, closes its gap and ends equal",
    chain_guest(SCRIPT, disks=[Disk("data", "64M")]))
