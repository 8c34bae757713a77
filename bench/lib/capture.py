# SPDX-License-Identifier: Apache-2.0
"""The instruction table: what capture adds to a pwrite, in guests whose time stamp counter counts instructions."""

import shutil
import subprocess
import sys
from pathlib import Path

from .table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/vm"))
from vmtest.image import Missing  # noqa: E402
from vmtest.kernel import fetch  # noqa: E402
from vmtest.paths import BUILD, VmError, machine_lock  # noqa: E402
from vmtest.spec import Guest  # noqa: E402
from vmtest.vm import Vm  # noqa: E402

CPU = "max,-erms,-fsrm,-la57"
ROUNDS = 2
REPEAT_PERCENT = 0.05
MEMORY = 2560  # MiB: a ring may take 1/16

# row of capture.sh: (name, row it is added to, goal)
ROWS = {
    "detached_4k": ("capture_detached", "base_4k", 0),
    "after_detach_4k": ("capture_after_detach", "base_4k", 0),
    "other_4k": ("capture_other_disk", "base_4k", 100),
    "bitmap_4k": ("capture_bitmap_4k", "base_4k", 300),
    "ring_4k": ("capture_ring_4k", "base_4k", 1000),
    "ring_4k_steady": ("capture_ring_4k_steady", "base_4k", None),
    "ring_64k": ("capture_ring_64k", "base_64k", 10500),
    "dm_linear_4k": ("capture_dm_linear", "base_4k", None),
}
NOTES = {
    "ring_4k_steady": "as ring_4k, and each write gives consumed descriptors back",
    "dm_linear_4k": "an empty dm-linear hop, for comparison",
}


def build_unit(kernel) -> Path:
    """The module that measures the kernel's memcpy, built for one kernel."""
    directory = BUILD / f"bench/unit-{kernel.name}"
    shutil.copytree(ROOT / "bench/guest/unit", directory, dirs_exist_ok=True)
    made = subprocess.run(["make", "-s", "-C", str(kernel.kdir), f"M={directory}", "modules"], capture_output=True,
                          text=True, check=False)
    if made.returncode:
        raise VmError(f"bench/guest/unit does not build for {kernel.name}: {made.stdout}{made.stderr}")
    return directory / "bf_unit.ko"


def measure(name: str, rounds: int) -> tuple[dict[str, int], float]:
    """Median instructions per row, and the largest difference of two rounds in percent."""
    kernel = fetch(name)
    guest = Guest(script=(ROOT / "bench/guest/capture.sh").read_text(encoding="utf-8"), modules=["brd", "dm-mod"],
                  binaries=["dmsetup"], icount=True, memory=MEMORY, timeout=280, env={"ROUNDS": str(rounds)},
                  files=["kmod:blkferry.ko", "cc:tests/kmod/guest/bft", "cc:bench/guest/cost/cost",
                         str(build_unit(kernel))])
    with machine_lock():
        vm = Vm(guest, kernel, BUILD / f"bench/vm-{name}")
        try:
            vm.start()
            command = (vm.directory / "command").read_text(encoding="utf-8")
            if f"-icount shift=0,sleep=off -cpu {CPU} -smp 1" not in command:
                raise VmError(f"the guest does not count instructions as the method wants: {command}")
            outcome = vm.wait()
        finally:
            vm.close()
    if not outcome.passed:
        raise VmError(f"kernel {name}: {outcome.reason or outcome.findings} (see {outcome.directory}/console.log)")
    rows: dict[str, int] = {}
    spread = 0.0
    for key, text in outcome.reports.items():
        row, _, number = key.partition(".")
        value = int(text.split()[0])
        if row == "memcpy":
            rows["memcpy_64k"] = int(text.split()[1])
        rows.setdefault(row, value)
        if number:
            spread = max(spread, 100.0 * abs(value - rows[row]) / rows[row])
    return rows, spread


def run(table: Table, kernels: list[str], rounds: int = ROUNDS) -> None:
    """Adds the rows of each kernel; two boots of each prove that the figures repeat."""
    for name in kernels:
        try:
            rows, within = measure(name, rounds)
            again, _ = measure(name, 1)
        except (VmError, Missing) as error:
            table.skip(f"capture on {name}", str(error))
            continue
        table.add(f"capture_base_4k_{name}", rows["base_4k"], "instructions", note="brd alone, random O_DIRECT pwrite")
        table.add(f"capture_base_64k_{name}", rows["base_64k"], "instructions")
        table.add(f"capture_memcpy_4k_{name}", rows["memcpy"], "instructions", note="the kernel's memcpy, same boot")
        for row, (figure, base, goal) in ROWS.items():
            table.add(f"{figure}_{name}", rows[row] - rows[base], "instructions", goal, note=NOTES.get(row, ""))
        for size, note in (("4k", ""), ("64k", "up to 75 instructions more a write in some boots, with brd alone too")):
            kept = [row for row in rows if ("64k" in row) == (size == "64k")]
            between = max(100.0 * abs(again[row] - rows[row]) / rows[row] for row in kept)
            table.add(f"capture_repeats_{size}_{name}", between, "percent", REPEAT_PERCENT,
                      note=f"largest difference of two boots{'; ' if note else ''}{note}")
        table.add(f"capture_repeats_rounds_{name}", within, "percent", note="largest difference of two rounds in one boot")
