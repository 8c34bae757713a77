#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which functions a captured pwrite spends its instructions in: single-steps one guest in QEMU, counts per symbol.

    bench/lib/trace.py [--kernel 6.1] [--mode base|other|bitmap|ring] [--against base] [--lines FUNCTION]
"""

import argparse
import bisect
import collections
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/vm"))
from vmtest.kernel import fetch  # noqa: E402
from vmtest.paths import machine_lock  # noqa: E402
from vmtest.spec import Guest  # noqa: E402
from vmtest.vm import Vm  # noqa: E402

SCRIPT = r"""
set +x
modprobe brd rd_nr=2 rd_size=65536
for device in /dev/ram0 /dev/ram1; do
	dd if=/dev/zero of=$device bs=1M count=64 oflag=direct 2>/dev/null
done
case $MODE in
base) ;;
other)
	insmod /opt/blkferry/blkferry.ko
	bft attach /dev/ram1 >/dev/null ;;
bitmap|ring)
	insmod /opt/blkferry/blkferry.ko
	bft attach /dev/ram0 >/dev/null ;;
esac
if [ "$MODE" = ring ]; then
	bft begin 0 >/dev/null
	bft clear 0 0 131072 >/dev/null
	bft end 0 >/dev/null
fi
cat /proc/kallsyms >/tmp/kallsyms
bf_send_file /tmp/kallsyms
cost write /dev/ram0 4096 2000
sync_host start
cost write /dev/ram0 4096 24
sync_host stop
"""
ENTRY = "__x64_sys_pwrite64"
LINE = re.compile(r"Trace 0: 0x\w+ \[\w+/(\w+)/")


def trace(kernel: str, mode: str, module: str) -> tuple[list[list[int]], list[tuple[int, str]]]:
    """Program counters of each write, and the guest's symbols by address."""
    output = ROOT / f"build/bench/trace-{kernel}-{mode}"
    output.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    guest = Guest(script=SCRIPT, modules=["brd"], icount=True, memory=1280, timeout=580, env={"MODE": mode},
                  files=[module, "cc:tests/kmod/guest/bft", "cc:bench/guest/cost/cost"],
                  qemu=["-singlestep", "-d", "nochain", "-D", str(log)])
    with machine_lock():
        vm = Vm(guest, fetch(kernel), output)
        try:
            vm.start()
            vm.expect("start")
            vm.qmp.command("human-monitor-command", command_line="log exec,nochain")
            vm.reply("go")
            vm.expect("stop")
            vm.qmp.command("human-monitor-command", command_line="log nochain")
            vm.reply("go")
            outcome = vm.wait()
        finally:
            vm.close()
    if not outcome.passed:
        raise SystemExit(f"trace: the guest failed: {outcome.reason} {outcome.findings}")
    symbols = []
    for line in (output / "out/kallsyms").read_text().splitlines():
        address, kind, name = line.split("\t")[0].split()[:3]
        if kind in "tTwW":
            symbols.append((int(address, 16), name))
    symbols.sort()
    entry = next(address for address, name in symbols if name == ENTRY)
    writes: list[list[int]] = []
    with open(log, encoding="ascii", errors="replace") as lines:
        for line in lines:
            found = LINE.match(line)
            if not found:
                continue
            address = int(found.group(1), 16)
            if address == entry:
                writes.append([])
            if writes and address >> 63:
                writes[-1].append(address)
    log.unlink()
    return writes[8:-1], symbols


def profile(kernel: str, mode: str, module: str) -> tuple[dict[str, int], list[int], list[tuple[int, str]]]:
    """Instructions per function in the median write."""
    writes, symbols = trace(kernel, mode, module)
    middle = statistics.median_low(len(write) for write in writes)
    write = next(write for write in writes if len(write) == middle)
    starts = [address for address, _ in symbols]
    counts: dict[str, int] = collections.Counter()
    for address in write:
        counts[symbols[bisect.bisect_right(starts, address) - 1][1]] += 1
    return counts, write, symbols


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="6.1")
    parser.add_argument("--mode", default="ring", choices=["base", "other", "bitmap", "ring"])
    parser.add_argument("--against", default="base")
    parser.add_argument("--module", default="kmod:blkferry.ko", help="built module file")
    parser.add_argument("--lines", metavar="FUNCTION", help="also print the executed offsets of one function")
    options = parser.parse_args()
    before, _, _ = profile(options.kernel, options.against, options.module)
    after, write, symbols = profile(options.kernel, options.mode, options.module)
    print(f"{options.kernel}: {options.mode} {sum(after.values())}, {options.against} {sum(before.values())} instructions")
    difference = {name: after[name] - before.get(name, 0) for name in after.keys() | before.keys()}
    for name, value in sorted(difference.items(), key=lambda item: -item[1]):
        if value:
            print(f"{value:7} {name} ({after[name]})")
    if options.lines:
        start = next(address for address, name in symbols if name == options.lines)
        end = min(address for address, _ in symbols if address > start)
        print(" ".join(f"{address - start:x}" for address in write if start <= address < end))


if __name__ == "__main__":
    main()
