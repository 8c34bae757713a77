# SPDX-License-Identifier: Apache-2.0
"""Turns a Guest into files: its initramfs and its disks. Says first what is missing on this host."""

import shutil
from pathlib import Path

from .initramfs import BASE_BINARIES, FILES_DIR, Cpio, add_base, add_binary, add_modules, find_binary
from .kernel import Kernel
from .kmod import build_module, has_source
from .modules import ModuleTree
from .paths import BUILD, REPO, VmError
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
    for known in ("build:", "kmod:"):
        if spec.startswith(known):
            prefix, spec = known, spec.removeprefix(known)
    source, _, target = spec.partition(":")
    return prefix + source, target or f"{FILES_DIR}/{Path(source).name}"


def locate(source: str, kernel: Kernel) -> Path:
    """Host path of a files entry's source. kmod: builds the module; a failing build is an error, not a skip."""
    if source.startswith("kmod:"):
        if not has_source():
            raise Missing("kmod/ has no module source")
        path = build_module(kernel) / source.removeprefix("kmod:")
    elif source.startswith("build:"):
        path = BUILD / source.removeprefix("build:")
    else:
        path = REPO / source
    if not path.is_file():
        raise Missing(f"file {source} does not exist ({path})")
    return path


def check_requirements(guest: Guest, kernel: Kernel, tree: ModuleTree) -> None:
    """Raises Missing with the whole list of what this host or kernel lacks."""
    lacks = [f"module {name} (not in kernel {kernel.release})" for name in guest.modules if not tree.has(name)]
    lacks += [f"program {name} (not on this host)" for name in guest.binaries if find_binary(name) is None]
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
