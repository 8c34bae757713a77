# SPDX-License-Identifier: Apache-2.0
"""Builds the module for a guest's kernel in a private copy of kmod/, so that kernels do not share object files."""

import os
import shutil
import subprocess
from pathlib import Path

from .kernel import Kernel
from .paths import REPO, RESULTS, VmError, file_lock

SOURCE_SUFFIXES = {".c", ".h", ".S", ".sh", ".py", ".mk"}
SOURCE_NAMES = {"Makefile", "Kbuild", "Kconfig"}


def sources(top: Path) -> list[Path]:
    """Files of the module's source, relative to `top`; build products are left out."""
    found = []
    for path in sorted(top.rglob("*")):
        wanted = path.suffix in SOURCE_SUFFIXES or path.name in SOURCE_NAMES
        if path.is_file() and wanted and not path.name.endswith(".mod.c") and not path.name.startswith("."):
            found.append(path.relative_to(top))
    return found


def mirror(top: Path, target: Path) -> None:
    """Copy changed sources, keep times, so that make rebuilds only what changed; drop sources that are gone."""
    wanted = sources(top)
    for relative in wanted:
        source, copy = top / relative, target / relative
        if copy.is_file() and copy.stat().st_mtime_ns == source.stat().st_mtime_ns:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
    record = target / ".mirrored"
    before = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    for relative in set(before) - set(map(str, wanted)):
        (target / relative).unlink(missing_ok=True)
    record.write_text("\n".join(map(str, wanted)) + "\n", encoding="utf-8")


def build_module(kernel: Kernel) -> Path:
    """Directory with blkferry.ko built for `kernel`; a failed build is a VmError that names the log."""
    top = REPO / "kmod"
    if not (top / "Kbuild").is_file() and not (top / "Makefile").is_file():
        raise VmError("kmod/ has no Makefile or Kbuild yet")
    target = RESULTS / kernel.name / "kmod"
    target.mkdir(parents=True, exist_ok=True)
    with file_lock(target / ".lock", "another build of the module"):
        mirror(top, target)
        log = target / "build.log"
        command = ["make", "-C", str(kernel.kdir), f"M={target}", f"-j{os.cpu_count()}", "modules"]
        with open(log, "wb") as out:
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise VmError(f"the module does not build for kernel {kernel.name} ({kernel.release}): see {log}")
    return target
