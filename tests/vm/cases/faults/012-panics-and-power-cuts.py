# SPDX-License-Identifier: Apache-2.0
"""A source that dies under load and comes back with the same disks, again and again: by power cut and by panic, in turn."""

from vmtest.chain import check_equal
from vmtest.console import scan
from vmtest.faults import TRIALS, check_order, fault_case, fault_guest
from vmtest.paths import VmError
from vmtest.spec import Disk

LOAD = r"""
mkdir -p /mnt
mount "$(disk files)" /mnt
order "$(disk first)" "$(disk second)" /tmp/stop >/dev/null &
fio --name=load --filename="$(disk first)" --offset=1M --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=8 \
	--rate=2m --norandommap=1 --time_based --runtime=6h --output=/dev/null &
( i=0; while :; do i=$((i + 1)); dd if=/dev/urandom of=/mnt/f$((i % 30)) bs=8k count=2 2>/dev/null; [ $((i % 5)) -ne 0 ] || sync; \
	[ $((i % 7)) -ne 0 ] || mv /mnt/f$((i % 30)) /mnt/g$((i % 9)); done ) &
"""

SETUP = r"""
mkdir -p /var/lib/blkferry
mount "$(disk state)" /var/lib/blkferry
agent_setup 'batch_interval_ms = 50'
agent_start
"""

DIE = r"""
for n in 1 2 3; do mark_point "p$BF_LIFE-$n"; done
[ "$(sync_host die)" = cut ] || echo c >/proc/sysrq-trigger
sleep 100
fail "the machine lives on"
"""

FIRST = r"""
mkfs.ext4 -q "$(disk state)"
mkfs.ext4 -q "$(disk files)"
""" + SETUP + r"""
blkferry protect "$(disk first)" "$(disk second)" "$(disk files)"
agent_wait CONTINUOUS
""" + LOAD + DIE

# The disks are compared before anything but the journal of the file system writes.
NEXT = SETUP + r"""
agent_wait CONTINUOUS
grep -q 'plan=rescan' /tmp/agent.log || fail "the agent did not compare the disks: $(tail -n 5 /tmp/agent.log)"
report rescan_wire_bytes "$(status_of counters.wire_bytes)"
point_equal "life$BF_LIFE" "$(disk first)" "$(disk second)" "$(disk files)"
latency
"""

DISKS = {"state": "24M", "first": "24M", "second": "8M", "files": "24M"}
LIVES = 2 + TRIALS  # the last one ends well
PANIC = ("Kernel panic - not syncing: sysrq triggered crash", r"^Call Trace:$", r"RIP: 0010:", "sysrq")


def guest(script: str, life: int, files: dict | None):
    disks = [Disk(name, size, file=str(files[name]) if files else None) for name, size in DISKS.items()]
    return fault_guest(script, disks=disks, modules=["ext4"], binaries=["mkfs.ext4"], env={"BF_LIFE": str(life)})


def die(vm, how: str) -> None:
    """Ends a life as told; a panic ends QEMU by itself, and leaves nothing else on the console."""
    vm.expect("die")
    vm.reply(how)
    if how == "cut":
        vm.power_cut()
        return
    vm.process.wait(timeout=60)
    vm.status = 0
    text = vm.console.read_text(encoding="utf-8", errors="replace")
    if "Kernel panic" not in text:
        raise VmError(f"guest {vm.name} did not panic")


def host(vm) -> None:
    files = {name: vm.disk_path(name) for name in DISKS}
    die(vm, "cut")
    for life in range(2, LIVES + 1):
        last = life == LIVES
        again = vm.spawn(f"life{life}", guest(NEXT + ("" if last else LOAD + DIE), life, files))
        if not last:
            die(again, "panic" if life % 2 == 0 else "cut")
        outcome = again.wait()
        if last and (bad := scan(again.console.read_text(encoding="utf-8", errors="replace").splitlines())):
            raise VmError(f"after the last boot: {bad[0]}")
        if not outcome.passed:
            raise VmError(f"life {life}: {outcome.reason or outcome.status}")
        point = f"life{life}"
        check_equal(vm.context, point, {slot: outcome.reports[f"_hash.{point}.{slot}"] for slot in range(3)})
    check_order(vm.context, least=3 * (LIVES - 1))
    marks = [point["mark"] for point in vm.context.server.points()]
    if marks != sorted(set(marks)):
        raise VmError(f"marks went back over a boot: {marks}")


CASE = fault_case(
    "a source that loses power and panics under load and boots again from its disks: rescan, equal, every point in order",
    guest(FIRST, 1, None), host=host, check=None, allow=PANIC)
