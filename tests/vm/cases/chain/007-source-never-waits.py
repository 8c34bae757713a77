# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
agent_setup 'ring = "1MiB"'
agent_start
blkferry protect "$(disk data)"
agent_wait CONTINUOUS
kill -STOP "$BF_AGENT"
# 40 MiB through a ring of 1 MiB that nobody empties: no error, and no write that took seconds.
fio --name=load --filename="$(disk data)" --rw=randwrite --bs=16k --direct=1 --ioengine=io_uring --iodepth=16 --io_size=40M \
	--norandommap=1 --output-format=terse --terse-version=3 --output=/tmp/fio.terse --max_latency=20s
expect_equal "fio's error" "$(cut -d';' -f5 /tmp/fio.terse)" 0
kill -CONT "$BF_AGENT"
agent_wait CONTINUOUS
mark_point final
report hash0 "$(medium_hash "$(disk data)")"
"""

CASE = chain_case(
    "with the agent stopped and the ring full the source's writes neither fail nor stall, and the gap closes afterwards",
    chain_guest(SCRIPT, disks=[Disk("data", "64M")]))
