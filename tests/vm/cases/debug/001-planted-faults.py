# SPDX-License-Identifier: Apache-2.0
"""The sanitizers report what tests/kmod/planted does wrong, and the scanner finds each report in the console."""

from vmtest.console import scan
from vmtest.paths import VmError
from vmtest.spec import Case, Guest

# Fault of the module, and what has to be found between its marks: pattern of the scanner, words of its line.
# The first report of the lock validator or of KASAN ends the work of the lock validator: its faults come first.
PLANTED = (
    ("none", None, ""),
    ("rcu", "warning", "suspicious RCU usage"),
    ("inversion", "warning", "possible circular locking dependency detected"),
    ("sleep", "bug", "sleeping function called from invalid context"),
    ("object", "warning", "debug_print_object"),
    ("heap", "bug", "KASAN: slab-out-of-bounds in planted_"),
    ("freed", "bug", "KASAN: use-after-free in planted_"),
    ("vmalloc", "bug", "KASAN: vmalloc-out-of-bounds in planted_"),
    ("leak", None, ""),
)

SCRIPT = r"""
for fault in $FAULTS; do
	echo "planted: $fault begins" >/dev/kmsg
	insmod /opt/blkferry/planted.ko fault="$fault"
	rmmod planted
	echo "planted: $fault ends" >/dev/kmsg
done
"""


def between(lines: list[str], fault: str) -> list[str]:
    """The kernel's lines while the fault was planted."""
    marks = [next((number for number, line in enumerate(lines) if f"planted: {fault} {word}" in line), None)
             for word in ("begins", "ends")]
    if None in marks:
        raise VmError(f"the kernel log does not show {fault} from begin to end")
    return lines[marks[0]:marks[1]]


def check(context) -> None:
    log = context.directory / "main/out/dmesg.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for fault, pattern, words in PLANTED:
        found = scan(between(lines, fault))
        if pattern is None and found:
            raise VmError(f"{fault}: nothing was to be reported there, got: {found[0]}")
        if pattern is not None and not any(one.pattern == pattern and words in one.text for one in found):
            raise VmError(f"{fault}: no '{pattern}' line with '{words}', found: {'; '.join(map(str, found)) or 'none'}")
    # The leak is found by the scan at the guest's end, when the module is gone: exactly one.
    leaks = [one for one in scan(lines) if one.pattern == "kmemleak"]
    if len(leaks) != 1:
        raise VmError(f"{len(leaks)} leaks were found, 1 was planted: {'; '.join(map(str, leaks))}")


CASE = Case("every kind of planted fault is reported and seen",
            Guest(script=SCRIPT, files=["ko:tests/kmod/planted/planted.ko"], env={
                "FAULTS": " ".join(fault for fault, _, _ in PLANTED)}, cmdline="kasan_multi_shot"),
            kernels=["debug-kasan"], allow=[r".*"],  # check() reads the reports
            check=check)
