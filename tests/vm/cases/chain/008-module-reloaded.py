# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
data=$(disk data)
dd if=/dev/urandom of="$data" bs=1M count=64 oflag=direct 2>/dev/null
agent_setup
agent_start
blkferry protect "$data"
agent_wait CONTINUOUS
mark_point before
reached=$(status_of durable_mark)

# The module goes, and whatever it knew; rmmod is refused as long as the disk is attached.
agent_kill
must_fail rmmod blkferry
bft detach 0
rmmod blkferry

# Nobody sees these: 20 times 64 KiB and 10 times 4 KiB, all over the disk.
for i in $(seq 20); do dd if=/dev/urandom of="$data" bs=64k seek=$((i * 47)) count=1 oflag=direct conv=notrunc 2>/dev/null; done
for i in $(seq 10); do dd if=/dev/urandom of="$data" bs=4k seek=$((i * 1501 + 3)) count=1 oflag=direct conv=notrunc 2>/dev/null; done
unseen=$((20 * 65536 + 10 * 4096))

insmod /opt/blkferry/blkferry.ko
agent_start
agent_wait CONTINUOUS
grep -q 'plan=rescan' /tmp/agent.log || fail "the agent did not compare the disk: $(tail -n 5 /tmp/agent.log)"
expect_equal "bytes compared" "$(status_of counters.resync_bytes)" 67108864
# random data does not shrink: what differs, and the hashes that were asked and answered
wire=$(status_of counters.wire_bytes)
report unseen_bytes "$unseen"
report wire_bytes "$wire"
[ "$wire" -gt "$unseen" ] || fail "$unseen bytes differ but only $wire were sent"
[ "$wire" -lt $((unseen + 262144)) ] || fail "$unseen bytes differ but $wire were sent"
[ "$(status_of durable_mark)" -gt "$reached" ] || fail "marks went back below $reached"

# From here on every write is captured again.
dd if=/dev/urandom of="$data" bs=128k seek=100 count=8 oflag=direct conv=notrunc 2>/dev/null
mark_point final
expect_equal "bytes read again afterwards" "$(status_of counters.resync_bytes)" 67108864
report hash0 "$(medium_hash "$data")"
"""

CASE = chain_case(
    "after writes while the module was unloaded a rescan ships the differing bytes only, and the point is equal",
    chain_guest(SCRIPT, files=["cc:tests/kmod/guest/bft"], disks=[Disk("data", "64M")]))
