# SPDX-License-Identifier: Apache-2.0
from vmtest.chain import check_equal
from vmtest.paths import VmError
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

FIRST = r"""
state=$(disk state)
data=$(disk data)
mkfs.ext4 -q "$state"
mkdir -p /var/lib/blkferry
mount "$state" /var/lib/blkferry
dd if=/dev/urandom of="$data" bs=1M count=64 oflag=direct 2>/dev/null
agent_setup
agent_start
blkferry protect "$data"
agent_wait CONTINUOUS
mark_point before
fio --name=load --filename="$data" --size=16M --rw=randwrite --bs=4k --direct=1 --rate_iops=200 --norandommap=1 \
	--time_based --runtime=6h --output=/dev/null &
for _ in 1 2 3; do retry 60 mark_passed "$(status_of durable_mark)"; done
sync_host cut
fail "the power was not cut"
"""

SECOND = r"""
mkdir -p /var/lib/blkferry
mount "$(disk state)" /var/lib/blkferry
data=$(disk data)
# A boot writes before the module is there, outside of what the load wrote: 16 times 64 KiB.
for i in $(seq 16); do
	dd if=/dev/urandom of="$data" bs=64k seek=$((256 + i * 31)) count=1 oflag=direct conv=notrunc 2>/dev/null
done
agent_setup
agent_start
agent_wait CONTINUOUS
grep -q 'plan=rescan' /tmp/agent.log || fail "the agent did not compare the disk: $(tail -n 5 /tmp/agent.log)"
wire=$(status_of counters.wire_bytes)
report rescan_wire_bytes "$wire"
[ "$wire" -gt $((16 * 65536)) ] || fail "less was sent than was written unseen: $wire bytes"
# beyond it only what was in the ring at the cut
[ "$wire" -lt $((16 * 65536 + 8388608)) ] || fail "far more was sent than differs: $wire bytes"
mark_point final
report hash0 "$(medium_hash "$data")"
"""

DISKS = ("state", "data")
OPTIONS = {"modules": ["ext4"], "binaries": ["mkfs.ext4"]}


def host(vm) -> None:
    vm.expect("cut")
    before = vm.context.server.source()
    vm.power_cut()
    again = vm.spawn("again", chain_guest(
        SECOND, disks=[Disk(name, file=str(vm.disk_path(name))) for name in DISKS], **OPTIONS))
    outcome = again.wait()
    if not outcome.passed:
        raise VmError(f"after the reboot: {outcome.reason or outcome.status}")
    check_equal(vm.context, "final", {0: outcome.reports["hash0"]})
    marks = [point["mark"] for point in vm.context.server.points()]
    if marks != sorted(marks) or not before:
        raise VmError(f"marks went back over the reboot: {marks}")


CASE = chain_case(
    "after a power cut under load and writes before the module a rescan ships what differs, and the point is equal",
    chain_guest(FIRST, disks=[Disk("state", "32M"), Disk("data", "64M")], **OPTIONS), host=host, check=None)
