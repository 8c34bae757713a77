# SPDX-License-Identifier: Apache-2.0
"""The disk changes below the agent while it is attached and written to: another name, another size, a medium that forgets writes."""

from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
modprobe dm-mod
modprobe dm-flakey
one=$(disk one)
two=$(disk two)
GOOD="0 32768 linear $one 0"
dmsetup --noudevsync --noudevrules create before --uuid BLKFERRY-TEST-1 --table "$GOOD"
dmsetup mknodes before
agent_setup 'batch_interval_ms = 50'
agent_start
blkferry protect /dev/mapper/before "$two"
agent_wait CONTINUOUS
load() { # load DEVICE NAME
	fio --name="$2" --filename="$1" --rw=randwrite --bsrange=4k-16k --direct=1 --ioengine=io_uring --iodepth=4 --rate=150k --size=15M \
		--norandommap=1 --time_based --runtime=6h --output=/dev/null &
}
whole() { grep -Ec 'event=epoch_begin kind=(initial|rescan)' /tmp/agent.log; }
slots() { blkferry status --json | jq -c '[.disks[] | .slot]'; }
load /dev/dm-0 first
first=$!
load "$two" second
second=$!
retry 60 mark_passed 20 || fail "the load is not captured: $(blkferry status)"
mark_point loaded
expect_equal "disks" "$(slots)" "[0,1]"
whole=$(whole)

# ---- another name, under load: to and fro; the agent starts anew under the other name and knows the disk
for round in $(seq "$TRIALS"); do
	for names in "before after" "after before"; do
		# shellcheck disable=SC2086
		dmsetup --noudevsync --noudevrules rename $names
		dmsetup mknodes
		mark_point "renamed-$round-${names% *}"
		agent_kill
		agent_start
		agent_wait CONTINUOUS
		expect_equal "disks after the rename" "$(slots)" "[0,1]"
	done
done
expect_equal "whole syncs of renames" "$(whole)" "$whole"

# ---- a medium that says done and forgets: the replica has what was written, the disk has not; verification names just that and mends it
kill $first $second
wait $first $second || true
agent_wait CONTINUOUS
swap() {
	printf '%s\n' "$1" | dmsetup --noudevsync --noudevrules reload before
	dmsetup --noudevsync --noudevrules suspend --nolockfs before
	dmsetup --noudevsync --noudevrules resume before
}
for round in $(seq "$TRIALS"); do
	swap "0 8192 linear $one 0
8192 8192 flakey $one 8192 0 600 1 drop_writes
16384 16384 linear $one 16384"
	for block in 2 3 77; do # blocks of 4 KiB in the middle, which does not take them, and one elsewhere
		dd if=/dev/urandom of=/dev/mapper/before bs=4k seek=$((1024 + block)) count=1 oflag=direct conv=notrunc 2>/dev/null
	done
	dd if=/dev/urandom of=/dev/mapper/before bs=4k seek=100 count=1 oflag=direct conv=notrunc 2>/dev/null
	mark_point "forgotten-$round"
	swap "$GOOD"
	blkferry verify --source --json | tail -n 1 >/tmp/verify.json
	expect_equal "what was forgotten" "$(jq -c '[.ranges[] | [.offset, .bytes]]' /tmp/verify.json)" \
		"[[$((4194304 + 8192)),8192],[$((4194304 + 77 * 4096)),4096]]"
	agent_wait CONTINUOUS
	blkferry verify --source --json | tail -n 1 >/tmp/verify.json
	expect_equal "after the repair" "$(jq -c '[.equal, .differing_bytes]' /tmp/verify.json)" "[true,0]"
	point_equal "mended-$round" /dev/mapper/before "$two"
done
expect_equal "whole syncs of repairs" "$(whole)" "$whole"

# ---- a larger size, under load: the disk is attached anew by itself, and what is beyond the old end is in the replica
load /dev/dm-0 first
first=$!
load "$two" second
second=$!
sync_host grow
grown() { [ "$(status_of 'disks[1].size_bytes')" = 25165824 ]; }
retry 60 grown || fail "the new size is not seen: $(blkferry status --json)"
swap "0 40960 linear $one 0"
grown_mapper() { [ "$(status_of 'disks[0].size_bytes')" = 20971520 ]; }
retry 60 grown_mapper || fail "the new size of the mapper device is not seen: $(blkferry status --json)"
for device in /dev/mapper/before "$two"; do
	dd if=/dev/urandom of="$device" bs=64k seek=270 count=20 oflag=direct conv=notrunc 2>/dev/null
done
agent_wait CONTINUOUS
mark_point after-growth
# and while no agent runs
agent_kill
swap "0 45056 linear $one 0"
dd if=/dev/urandom of=/dev/mapper/before bs=64k seek=330 count=10 oflag=direct conv=notrunc 2>/dev/null
agent_start
retry 60 agent_in CONTINUOUS || fail "$(blkferry status)"
expect_equal "size after growth without an agent" "$(status_of 'disks[0].size_bytes')" 23068672
kill $first $second
wait $first $second || true
agent_wait CONTINUOUS
expect_equal "disks after the growth" "$(slots)" "[0,1]"
report resized "$(grep -c event=resized /tmp/agent.log)"
point_equal final /dev/mapper/before "$two"
kernel_clean
dm_remove before
"""


def host(vm) -> None:
    vm.expect("grow")
    vm.resize("two", 24 << 20)
    vm.reply()


CASE = fault_case(
    "a disk that is renamed, grows, or forgets writes (drop_writes) while attached: same identity, the whole of it replicated, "
    "just what differs found and repaired",
    fault_guest(SCRIPT, modules=["dm-mod", "dm-flakey"], binaries=["dmsetup"], timeout=480,
                disks=[Disk("one", "24M"), Disk("two", "16M")]), host=host)
