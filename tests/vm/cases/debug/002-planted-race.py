# SPDX-License-Identifier: Apache-2.0
"""KCSAN reports a race planted by tests/kmod/planted and keeps silent about the same accesses when they are marked."""

from vmtest.console import scan
from vmtest.paths import VmError
from vmtest.spec import Case, Guest

SCRIPT = r"""
reported() { dmesg | grep -q 'KCSAN: data-race in planted_'; }
insmod /opt/blkferry/planted.ko fault=marked
sleep 20
rmmod planted
must_fail reported
insmod /opt/blkferry/planted.ko fault=race
retry 60 reported || fail "KCSAN did not report the planted race"
rmmod planted
"""


def check(context) -> None:
    log = context.directory / "main/out/dmesg.txt"
    found = scan(log.read_text(encoding="utf-8", errors="replace").splitlines())
    if not any(one.pattern == "bug" and "KCSAN: data-race in planted_race" in one.text for one in found):
        raise VmError(f"the scanner does not see the race: {'; '.join(map(str, found)) or 'nothing found'}")


CASE = Case("a planted data race is reported, a marked one is not",
            Guest(script=SCRIPT, files=["ko:tests/kmod/planted/planted.ko"], timeout=180),
            kernels=["debug-kcsan"], allow=[r".*"],  # check() reads the reports
            check=check)
