# SPDX-License-Identifier: Apache-2.0
"""Chooses how QEMU runs guests. /dev/kvm may exist and still hang a guest, so KVM has to prove itself once."""

import functools
import json
import os
import platform
import re
import subprocess
from pathlib import Path

from .paths import CACHE, VmError

QEMU = "qemu-system-x86_64"
TRIAL_SECONDS = 30


def machine_key() -> str:
    """Changes whenever an old verdict about KVM may be wrong: host kernel, processor, QEMU."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return " / ".join([platform.release(), cpu.group(1) if cpu else "?", version])


def qemu_version() -> tuple[int, int]:
    """Major and minor version of the installed QEMU."""
    text = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    if not found:
        raise VmError(f"{QEMU} --version prints no version: {text[:80]!r}")
    return int(found[1]), int(found[2])


# What a guest says when it ran stale code (runs_stale_code).
STALE_CODE = "Oops: int3"
# What the runner says of a guest whose kernel hung before our init.
HUNG_IN_BOOT = "the kernel hung in its boot"


@functools.cache
def runs_stale_code() -> bool:
    """Whether this QEMU, when it emulates several CPUs, can execute code that another CPU has patched meanwhile.

    Before 8.1 it translated a page's code without holding that page ("accel/tcg: Always lock pages before translation"), so
    a breakpoint that stands at a static key or call for a moment can stay in the translation. The guest then dies with
    STALE_CODE: one second of switching tracepoints on and off under I/O is enough, without any module of ours. All CPUs on
    one thread (thread=single) would avoid it, but then every interrupt between CPUs waits for the other one's turn, up to
    100 ms: an initial sync under load did not end in 200 s.
    """
    return qemu_version() < (8, 1)


def choose(trial) -> str:
    """"kvm" or "tcg". BLKFERRY_VM_ACCEL decides if set; else trial(accel, seconds) -> bool, once per machine_key()."""
    forced = os.environ.get("BLKFERRY_VM_ACCEL")
    if forced:
        if forced not in ("kvm", "tcg"):
            raise VmError(f"BLKFERRY_VM_ACCEL is '{forced}', it can be kvm or tcg")
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    memory = CACHE / "accel.json"
    key = machine_key()
    try:
        state = json.loads(memory.read_text(encoding="utf-8"))
        if state["machine"] == key and state["accel"] in ("kvm", "tcg"):
            return state["accel"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    accel = "kvm" if trial("kvm", TRIAL_SECONDS) else "tcg"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps({"machine": key, "accel": accel}) + "\n", encoding="utf-8")
    return accel
