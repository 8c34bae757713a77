# SPDX-License-Identifier: Apache-2.0
"""Builds the module for a guest's kernel in a private copy of kmod/, so that kernels do not share object files."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from . import chroot
from .kernel import CROSS, Kernel
from .paths import REPO, RESULTS, VmError, file_lock

SOURCE_SUFFIXES = {".c", ".h", ".S", ".sh", ".py", ".mk"}
SOURCE_NAMES = {"Makefile", "Kbuild", "Kconfig"}
# Made by a build for one kernel: copied to another kernel's tree they would be wrong there.
GENERATED = {"compat_config.h"}


def sources(top: Path) -> list[Path]:
    """Files of the module's source, relative to `top`; build products are left out."""
    found = []
    for path in sorted(top.rglob("*")):
        wanted = path.suffix in SOURCE_SUFFIXES or path.name in SOURCE_NAMES
        built = path.name.endswith(".mod.c") or path.name.startswith(".") or path.name in GENERATED
        if path.is_file() and wanted and not built:
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


def make(kernel: Kernel, target: Path, *arguments: str, source: Path = REPO / "kmod") -> tuple[int, str]:
    """Mirror the source to `target` and run make there; the output also goes to target/build.log."""
    target.mkdir(parents=True, exist_ok=True)
    mirror(source, target)
    headers = f"/usr/src/{kernel.kdir.name}" if kernel.builder else str(kernel.kdir)
    command = ["make", "-C", headers, f"M={target}", f"-j{os.cpu_count()}", *arguments, "modules"]
    if kernel.arch:
        compiler = f"{CROSS[kernel.arch]}gcc"
        if shutil.which(compiler) is None:
            raise VmError(f"kernel {kernel.name} needs the compiler {compiler}: apt-get install gcc-{CROSS[kernel.arch].rstrip('-')}")
        command += [f"ARCH={kernel.arch}", f"CROSS_COMPILE={CROSS[kernel.arch]}"]
    if kernel.builder:
        command = chroot.command(kernel.builder, *command, binds=(target,))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          check=False)
    (target / "build.log").write_text(done.stdout, encoding="utf-8")
    return done.returncode, done.stdout


def has_source() -> bool:
    """True if kmod/ can be built at all."""
    return (REPO / "kmod/Kbuild").is_file() or (REPO / "kmod/Makefile").is_file()


def build_module(kernel: Kernel, directory: str = "kmod", source: Path | None = None) -> Path:
    """Directory with the modules of a directory of the repository, built for `kernel`; by default with blkferry.ko.

    `source`: the same from a place elsewhere; the directory is then only its name. A failed build is a VmError with the first errors.
    """
    name = directory.replace("/", "-")
    target = RESULTS / kernel.name / name
    with file_lock(RESULTS / kernel.name / f".{name}.lock", "another build of the module"):
        status, output = make(kernel, target, source=source or REPO / directory)
    if status != 0:
        errors = [line.replace(f"{target}/", f"{directory}/") for line in output.splitlines() if " error: " in line]
        raise VmError(f"{directory} does not build for kernel {kernel.name} ({kernel.release}): "
                      f"{' | '.join(errors[:2]) or output.splitlines()[-1]} (log: {target / 'build.log'})")
    return target


def check_module(kernel: Kernel) -> tuple[bool, str]:
    """Build from nothing with W=1 and sparse. True if no compiler or sparse warning names a file of the module."""
    target = RESULTS / kernel.name / "kmod-check"
    with file_lock(RESULTS / kernel.name / ".kmod-check.lock", "another check of the module"):
        if target.exists():
            shutil.rmtree(target)
        status, output = make(kernel, target, "W=1", "C=2")
    bad = [line for line in output.splitlines() if re.search(r"\b(warning|error):", line) and str(target) in line]
    bad += [line for line in output.splitlines() if re.search(r"^(WARNING|ERROR): modpost:|\*\*\* ", line)]
    return status == 0 and not bad, "\n".join(bad or ([] if status == 0 else output.splitlines()[-20:]))
