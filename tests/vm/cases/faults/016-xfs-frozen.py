# SPDX-License-Identifier: Apache-2.0
"""`mark --fs` on XFS. A frozen XFS has an empty log but for a record that makes the next mount look for unlinked inodes, so the points are
judged by a second guest: without replay the tree and the newest file are there, and after replay xfs_repair finds nothing.
"""
from vmtest.faults import TRIALS, check_reported, fault_case, fault_guest
from vmtest.paths import VmError
from vmtest.spec import Disk, Guest

POINTS = 3 * TRIALS

SCRIPT = r"""
modprobe xfs
data=$(disk data)
mkfs.xfs -q --unsupported "$data"
agent_setup
agent_start
blkferry protect "$data"
agent_wait CONTINUOUS
mkdir -p /mnt
mount -t xfs "$data" /mnt
( i=0; while [ ! -e /tmp/stop ]; do i=$((i + 1)); dd if=/dev/urandom of=/mnt/f$((i % 60)) bs=16k count=$((1 + i % 4)) 2>/dev/null; \
	[ $((i % 7)) -ne 0 ] || sync; [ $((i % 11)) -ne 0 ] || rm -f /mnt/f$((i % 50)); done; echo "$i" >/tmp/written ) &
writer=$!
for n in $(seq "$POINTS"); do
	# not synced: only the freeze brings it to the disk
	echo "stamp $n" >/mnt/stamp
	dd if=/dev/urandom of=/mnt/fresh bs=100k count=1 2>/dev/null
	report "_fresh.$n" "$(sha256sum </mnt/fresh | cut -d' ' -f1)"
	mark_point "fs$n" --fs
done
touch /tmp/stop
wait $writer
report rounds "$(cat /tmp/written)"
report frozen "$(blkferry status --json | jq -c '.frozen | {samples, max_ns}')"
umount /mnt
point_equal final "$data"
sync_host judged
kernel_clean
"""

JUDGE = r"""
modprobe xfs
mkdir -p /mnt
for n in $(seq "$POINTS"); do
	image=$(disk "fs$n")
	# what the freeze left, as it is: everything written before it is in its place, the log is not needed
	mount -t xfs -o ro,norecovery "$image" /mnt
	expect_equal "stamp without replay in fs$n" "$(cat /mnt/stamp)" "stamp $n"
	report "_seen.$n" "$(sha256sum </mnt/fresh | cut -d' ' -f1)"
	umount /mnt
	mount -t xfs "$image" /mnt
	expect_equal "stamp in fs$n" "$(cat /mnt/stamp)" "stamp $n"
	umount /mnt
	xfs_repair -n "$image" >/tmp/repair.txt 2>&1 || fail "fs$n: xfs_repair finds damage: $(tail -n 5 /tmp/repair.txt)"
done
"""


def host(vm) -> None:
    vm.expect("judged")
    disks = [Disk(f"fs{n}", file=str(vm.context.server.export(f"fs{n}", 0))) for n in range(1, POINTS + 1)]
    judge = vm.spawn("judge", Guest(script=JUDGE, disks=disks, modules=["xfs"], binaries=["xfs_repair", "mount", "umount"], memory=768,
                                    env={"POINTS": str(POINTS)}, timeout=200 + 60 * TRIALS))
    outcome = judge.wait()
    if not outcome.passed:
        raise VmError(f"judging the points: {outcome.reason or outcome.status}")
    for n in range(1, POINTS + 1):
        if outcome.reports[f"_seen.{n}"] != vm.reports[f"_fresh.{n}"]:
            raise VmError(f"point fs{n}: the file written just before the freeze is not in it")
    vm.reply()


CASE = fault_case(
    "each mark --fs under load is an XFS that holds everything written before, and is clean after its replay",
    fault_guest(SCRIPT, modules=["xfs"], binaries=["mkfs.xfs", "mount", "umount"], env={"POINTS": str(POINTS)},
                disks=[Disk("data", "64M")], timeout=420 + 120 * TRIALS), host=host, check=check_reported)
