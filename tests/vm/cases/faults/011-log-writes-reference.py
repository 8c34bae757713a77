# SPDX-License-Identifier: Apache-2.0
"""dm-log-writes lies beneath the protected disk and logs what it is told, without us.

A quiesced point q… must equal the log replayed up to the mark of that name. A point under load l… must equal SOME prefix
of the log: the writer is one thread that waits for each write, so the log has the writes in the order of their submission.
The prefix must lie between the marks written before and after the point was asked for.

FAULT_MARKS (default 8) is how many points of each kind a run makes; FAULT_TRIALS multiplies them.
"""
import os

from vmtest.faults import TRIALS, check_reported, fault_case, fault_guest
from vmtest.logwrites import Replay, entries
from vmtest.paths import VmError
from vmtest.spec import Disk

SIZE = 2 << 20
MARKS = max(1, int(os.environ.get("FAULT_MARKS", "8"))) * TRIALS

SCRIPT = r"""
modprobe dm-mod
modprobe dm-log-writes
data=$(disk data)
log=$(disk log)
dm_create logged "0 4096 log-writes $data $log"
dm_create top "0 4096 linear /dev/mapper/logged 0"
note() { dmsetup --noudevsync --noudevrules message logged 0 mark "$1"; }
agent_setup 'batch_interval_ms = 20' 'ring = "1MiB"'
agent_start
blkferry protect /dev/mapper/top
agent_wait CONTINUOUS
set +x
piece() { # piece N LANE: a random write into a lane of its own; lanes are written at the same time
	dd if=/dev/urandom of=/dev/mapper/top bs=$((512 << ($1 * 7 + $2) % 8)) seek=$((($2 * 1024 + $1 * 37 % 512) >> (($1 * 7 + $2) % 8))) \
		count=$((1 + ($1 + $2) % 3)) oflag=direct conv=notrunc 2>/dev/null
}
for n in $(seq "$MARKS"); do
	# quiesced: parallel writes (every 32nd time many), a flush so that all of it is in the log, the mark, the point
	if [ $((n % 32)) = 1 ]; then
		fio --name=burst --filename=/dev/mapper/top --rw=randwrite --bsrange=512-64k --direct=1 --ioengine=io_uring --iodepth=16 \
			--io_size=$((65536 * (1 + n * 5 % 9))) --norandommap=1 --serialize_overlap=1 --randrepeat=0 --output=/dev/null
	fi
	piece "$n" 0 &
	one=$!
	piece "$n" 1 &
	two=$!
	piece "$n" 2
	wait $one $two
	sync /dev/mapper/top
	note "q$n"
	mark_point "q$n"
done
fio --name=serial --filename=/dev/mapper/top --rw=randwrite --bsrange=512-16k --direct=1 --ioengine=psync --norandommap=1 \
	--randrepeat=0 --fsync=4 --rate_iops=150 --time_based --runtime=6h --output=/dev/null &
load=$!
for n in $(seq "$MARKS"); do
	note "before-l$n"
	mark_point "l$n"
	note "after-l$n"
done
kill $load
wait $load || true
dd if=/dev/urandom of=/dev/mapper/top bs=4k count=1 oflag=direct conv=notrunc,fsync 2>/dev/null
note end
set -x
agent_wait CONTINUOUS
point_equal final /dev/mapper/top
kernel_clean
dm_remove top
dm_remove logged
"""


def image_of(context, name: str) -> bytes:
    """A point's disk."""
    image = context.server.export(name, 0)
    content = image.read_bytes()
    image.unlink()
    return content


def compare_loaded(context, name: str, disk: bytearray, window: list) -> None:
    """The point equals the disk, or the disk after some of the entries of the window."""
    replay = Replay(SIZE)
    replay.disk[:] = disk
    if not replay.find(window, image_of(context, name)):
        raise VmError(f"point {name} equals no prefix of the log between its marks ({len(window)} entries)")


def check(context) -> None:
    check_reported(context)
    log = list(entries(context.directory / "main/log.img"))
    marks = {entry.mark: number for number, entry in enumerate(log, 1) if entry.mark}
    quiesced = loaded = 0
    disk = Replay(SIZE)
    for number, entry in enumerate(log, 1):
        disk.apply(entry)
        if number < len(log) and log[number].mark.startswith("before-l"):
            name = log[number].mark.removeprefix("before-")
            # what was not flushed when a mark was written is logged after it: up to 4 writes, with the flush itself
            compare_loaded(context, name, disk.disk, log[number:marks[f"after-{name}"] + 6])
            loaded += 1
        if entry.mark.startswith("q"):
            if bytes(disk.disk) != image_of(context, entry.mark):
                raise VmError(f"point {entry.mark} is not the log replayed up to its mark")
            quiesced += 1
    if quiesced != MARKS or loaded != MARKS:
        raise VmError(f"only {quiesced} quiesced points and {loaded} under load were compared, {MARKS} of each are wanted")
    print(f"     {quiesced} quiesced points and {loaded} under load equal the log of dm-log-writes ({len(log)} entries)")


CASE = fault_case(
    "the log of dm-log-writes beneath the protected disk, replayed, gives each quiesced point, and some prefix of it each point under load",
    fault_guest(SCRIPT, modules=["dm-mod", "dm-log-writes"], binaries=["dmsetup"], env={"MARKS": str(MARKS)}, timeout=200 + 6 * (MARKS - 8),
                disks=[Disk("data", SIZE), Disk("log", f"{256 + MARKS}M")]), check=check)
