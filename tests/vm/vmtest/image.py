# SPDX-License-Identifier: Apache-2.0
"""Turns a Guest into files: its initramfs and its disks. Says first what is missing on this host."""

import contextlib
import shutil
from pathlib import Path

from .initramfs import BASE_BINARIES, FILES_DIR, Cpio, add_base, add_binary, add_modules, find_binary
from .kernel import Kernel, run_command
from .kmod import build_module, has_source
from .modules import ModuleTree
from .paths import BUILD, REPO, RESULTS, UEFI, VmError, file_lock
from .spec import Disk, Guest, shell_environment

RUN_SCRIPT = b"""set -eu
# shellcheck source=/dev/null
. /case/lib.sh
set -x
. /case/script
"""


class Missing(VmError):
    """The case cannot run here: something it requires is absent. The runner lists it as skipped."""


def split_file(spec: str) -> tuple[str, str]:
    """("SOURCE", "GUEST PATH") of a files entry."""
    prefix = ""
    for known in ("build:", "kmod:", "ko:", "cc:", "headers:"):
        if spec.startswith(known):
            prefix, spec = known, spec.removeprefix(known)
    source, _, target = spec.partition(":")
    return prefix + source, target or f"{FILES_DIR}/{Path(source).name}"


def compile_tool(source: str) -> Path:
    """Compile DIRECTORY/*.c to a static program NAME (source is "DIRECTORY/NAME"), if it is older than they are."""
    directory, name = REPO / Path(source).parent, Path(source).name
    inputs = sorted(directory.glob("*.[ch]"))
    if not any(path.suffix == ".c" for path in inputs):
        raise Missing(f"{directory} holds no C source")
    target = RESULTS / "tools" / name
    newest = max(path.stat().st_mtime for path in [*inputs, *(REPO / "kmod/uapi").glob("*.h")])
    with file_lock(RESULTS / ".tools.lock", "another build of a test tool"):
        if not target.is_file() or target.stat().st_mtime < newest:
            target.parent.mkdir(parents=True, exist_ok=True)
            run_command(["gcc", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-pthread",
                         f"-I{REPO / 'kmod/uapi'}", "-o", str(target),
                         *(str(path) for path in inputs if path.suffix == ".c")])
    return target


def strip_module(module: Path) -> Path:
    """A copy without debug sections: a tenth of the size, loads faster. Addresses resolve with the original."""
    stripped = module.with_suffix(".stripped")
    with file_lock(module.parent.with_suffix(".strip.lock"), "another guest's image"):
        if not stripped.is_file() or stripped.stat().st_mtime < module.stat().st_mtime:
            run_command(["strip", "--strip-debug", "-o", str(stripped), str(module)])
    return stripped


def locate(source: str, kernel: Kernel) -> Path:
    """Host path of a files entry's source. kmod: and cc: build it; a failing build is an error, not a skip."""
    if source.startswith("kmod:"):
        if not has_source():
            raise Missing("kmod/ has no module source")
        path = build_module(kernel) / source.removeprefix("kmod:")
        return strip_module(path) if path.suffix == ".ko" and path.is_file() else path
    if source.startswith("ko:"):
        directory, _, name = source.removeprefix("ko:").rpartition("/")
        return strip_module(build_module(kernel, directory) / name)
    if source.startswith("cc:"):
        return compile_tool(source.removeprefix("cc:"))
    if source.startswith("headers:"):
        path = kernel.kdir / source.removeprefix("headers:")
        if not path.is_file():
            raise Missing(f"{path} does not exist")
        return path
    path = BUILD / source.removeprefix("build:") if source.startswith("build:") else REPO / source
    if not path.is_file():
        raise Missing(f"file {source} does not exist ({path})")
    return path


def build_files(guest: Guest, kernel: Kernel) -> None:
    """Build what the guest's files need, ahead of the machine lock; failures are left for build_initramfs to tell."""
    for spec in guest.files:
        with contextlib.suppress(VmError):
            locate(split_file(spec)[0], kernel)


def check_requirements(guest: Guest, kernel: Kernel, tree: ModuleTree) -> None:
    """Raises Missing with the whole list of what this host or kernel lacks."""
    lacks = [f"module {name} (not in kernel {kernel.release})" for name in guest.modules if not tree.has(name)]
    lacks += [f"program {name} (not on this host)" for name in guest.binaries if find_binary(name) is None]
    if guest.uefi and not (UEFI / "OVMF_CODE_4M.fd").is_file():
        lacks.append("firmware OVMF (not on this host)")
    if lacks:
        raise Missing("needs " + ", ".join(lacks))


def build_initramfs(guest: Guest, kernel: Kernel, environment: dict[str, str], target: Path) -> None:
    """Write the guest's initramfs to `target`."""
    tree = ModuleTree(kernel.modules_dir)
    check_requirements(guest, kernel, tree)
    cpio = Cpio()
    add_base(cpio)
    for name in [*BASE_BINARIES, *guest.binaries]:
        binary = find_binary(name)
        if binary is None:
            raise VmError(f"program {name} is not on this host: see packaging/deps.txt")
        add_binary(cpio, binary)
    preload = list(kernel.boot_modules)
    if guest.network or guest.lan:
        preload.append("virtio_net")
    if any(disk.bus == "scsi" for disk in guest.disks):
        preload += ["virtio_scsi", "sd_mod"]
    if any(disk.bus == "nvme" for disk in guest.disks):
        preload.append("nvme")
    add_modules(cpio, tree, list(guest.modules), preload)
    for spec in guest.files:
        source, path = split_file(spec)
        add_binary(cpio, locate(source, kernel), path)
    cpio.data("case/env", shell_environment(environment).encode())
    cpio.data("case/script", guest.script.encode())
    cpio.data("case/run-script", RUN_SCRIPT)
    cpio.write(target)


def make_disk(disk: Disk, directory: Path) -> Path:
    """The disk's backing file: fresh and sparse, or the one it names."""
    if disk.file is not None:
        path = Path(disk.file) if Path(disk.file).is_absolute() else REPO / disk.file
        if not path.exists():
            raise Missing(f"disk {disk.name}: {path} does not exist")
        return path
    path = directory / f"{disk.name}.img"
    if path.exists():
        path.unlink()
    with open(path, "wb") as image:
        image.truncate(int(disk.size))
    return path


def fresh_directory(path: Path) -> Path:
    """An empty directory, whatever was there before."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path
