# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

# dm-delay keeps writes in flight for 40 ms while the resync reads, so reads race writes that were submitted before them.
SCRIPT = r"""
modprobe dm-mod
modprobe dm-delay
sectors=$(blockdev --getsz "$(disk slow)")
dm_create slow "0 $sectors delay $(disk slow) 0 0 $(disk slow) 0 40"
dd if=/dev/urandom of="$(disk data)" bs=1M count=72 oflag=direct 2>/dev/null
agent_setup 'ring = "16MiB"'
agent_start
fio --output=/tmp/fio.log --time_based --runtime=6h --randrepeat=1 --randseed=3 --norandommap=1 \
	--name=data --filename="$(disk data)" --rw=randwrite --bsrange=4k-128k --direct=1 --ioengine=io_uring --iodepth=16 --rate=2m \
	--name=slow --filename=/dev/mapper/slow --rw=randwrite --bsrange=512-64k --direct=1 --ioengine=io_uring --iodepth=32 --rate=1m &
writer=$!
blkferry protect "$(disk data)" /dev/mapper/slow
agent_wait CONTINUOUS 200
kill $writer
wait $writer || true
mark_point final
report hash0 "$(medium_hash "$(disk data)")"
report hash1 "$(medium_hash /dev/mapper/slow)"
"""

CASE = chain_case(
    "an initial sync while the whole disk is being rewritten, and one through dm-delay, end equal",
    chain_guest(SCRIPT, modules=["dm-mod", "dm-delay"], binaries=["dmsetup", "blockdev"],
                disks=[Disk("data", "72M"), Disk("slow", "32M")]))
