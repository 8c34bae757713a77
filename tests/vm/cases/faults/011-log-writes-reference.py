# SPDX-License-Identifier: Apache-2.0
"""dm-log-writes lies beneath the protected disk and logs what it is told, without us.

A quiesced point q… must equal the log replayed up to the mark of that name. A point under load l… must equal SOME prefix
of the log: the writer is one thread that waits for each write, so the log has the writes in the order of their submission.
The prefix must lie between the marks written before and after the point was asked for.
"""
from vmtest.faults import check_reported, fault_case, fault_guest
from vmtest.logwrites import Replay, entries
from vmtest.paths import VmError
from vmtest.spec import Disk

SIZE = 4 << 20

SCRIPT = r"""
modprobe dm-mod
modprobe dm-log-writes
data=$(disk data)
log=$(disk log)
dm_create logged "0 8192 log-writes $data $log"
dm_create top "0 8192 linear /dev/mapper/logged 0"
note() { dmsetup --noudevsync --noudevrules message logged 0 mark "$1"; }
agent_setup 'batch_interval_ms = 20' 'ring = "1MiB"'
agent_start
blkferry protect /dev/mapper/top
agent_wait CONTINUOUS
set +x
for n in $(seq $((8 * TRIALS))); do
	# quiesced: a random amount of parallel writes, a flush so that all of it is in the log, the mark, the point
	fio --name=burst --filename=/dev/mapper/top --rw=randwrite --bsrange=512-64k --direct=1 --ioengine=io_uring --iodepth=16 \
		--io_size=$((65536 * (1 + n * 5 % 9))) --norandommap=1 --serialize_overlap=1 --randrepeat=0 --end_fsync=1 --output=/dev/null
	note "q$n"
	mark_point "q$n"
done
fio --name=serial --filename=/dev/mapper/top --rw=randwrite --bsrange=512-16k --direct=1 --ioengine=psync --norandommap=1 \
	--randrepeat=0 --fsync=4 --rate_iops=150 --time_based --runtime=6h --output=/dev/null &
load=$!
for n in $(seq $((8 * TRIALS))); do
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


def check(context) -> None:
    check_reported(context)
    log = list(entries(context.directory / "main/log.img"))
    marks = {entry.mark: number for number, entry in enumerate(log, 1) if entry.mark}
    quiesced = loaded = 0
    for name in (point["point"] for point in context.server.points()):
        if name[0] not in "ql":
            continue
        image = context.server.export(name, 0)
        content = image.read_bytes()
        image.unlink()
        if name[0] == "q":
            disk = Replay(SIZE)
            for entry in log[:marks[name]]:
                disk.apply(entry)
            if bytes(disk.disk) != content:
                raise VmError(f"point {name} is not the log replayed up to its mark")
            quiesced += 1
            continue
        found = Replay(SIZE).find(log, content)
        # what was not flushed when a mark was written is logged after it: up to 4 writes, with the flush itself
        within = [number for number in found if marks[f"before-{name}"] - 1 <= number <= marks[f"after-{name}"] + 6]
        if not within:
            raise VmError(f"point {name} equals no prefix of the log between its marks {marks[f'before-{name}']} and "
                          f"{marks[f'after-{name}']}; it equals prefixes {found[:4]}")
        loaded += 1
    if quiesced < 8 or loaded < 8:
        raise VmError(f"only {quiesced} quiesced points and {loaded} under load were compared")
    print(f"     {quiesced} quiesced points and {loaded} under load equal the log of dm-log-writes ({len(log)} entries)")


CASE = fault_case(
    "the log of dm-log-writes beneath the protected disk, replayed, gives each quiesced point, and some prefix of it each point under load",
    fault_guest(SCRIPT, modules=["dm-mod", "dm-log-writes"], binaries=["dmsetup"],
                disks=[Disk("data", SIZE), Disk("log", "256M")]), check=check)
