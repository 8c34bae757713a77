# SPDX-License-Identifier: Apache-2.0
"""What a guest and a case consist of: plain data, no I/O."""

import dataclasses
import re
import shlex
from collections.abc import Callable
from typing import Any

from .paths import VmError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of "64M" and the like (units K M G T, powers of two)."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not found:
        raise VmError(f"size '{text}' is not a number with an optional K, M, G or T")
    return int(found.group(1)) * UNITS[found.group(2)]


@dataclasses.dataclass(frozen=True)
class Disk:
    """A disk over a sparse file. `name` is its serial number in the guest and its id for QMP.

    bus: virtio, nvme or scsi (virtio-scsi, the guest gets sd_mod). size: bytes or "64M". block: logical and physical
    block size. discard: the guest may discard and write zeroes (virtio; NVMe and SCSI disks always offer it).
    cache: QEMU's cache mode. file: an existing host file instead of a fresh sparse one. snapshot: throw writes away.
    """

    name: str
    size: int | str = "64M"
    block: int = 512
    discard: bool = False
    readonly: bool = False
    cache: str = "writeback"
    file: str | None = None
    snapshot: bool = False
    queues: int = 1
    bus: str = "virtio"

    def __post_init__(self) -> None:
        if self.bus not in ("virtio", "nvme", "scsi"):
            raise VmError(f"disk {self.name}: bus '{self.bus}' is not virtio, nvme or scsi")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,15}", self.name):
            raise VmError(f"disk name '{self.name}' must be 1 to 16 letters, digits, - or _, a letter first")
        object.__setattr__(self, "size", parse_size(str(self.size)))

    @classmethod
    def parse(cls, text: str) -> "Disk":
        """From "name,size=1G,block=4096,discard,readonly,cache=none,file=PATH,snapshot,queues=2"."""
        name, *options = text.split(",")
        values: dict[str, Any] = {}
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        for option in options:
            key, equals, value = option.partition("=")
            if key == "name" or key not in kinds or key in values:
                raise VmError(f"disk '{text}': unknown or repeated option '{key}'")
            if kinds[key] is bool:
                values[key] = True
            elif not equals:
                raise VmError(f"disk '{text}': option '{key}' needs a value")
            else:
                values[key] = int(value) if kinds[key] is int else value
        return cls(name, **values)


@dataclasses.dataclass(frozen=True)
class Guest:
    """One virtual machine.

    script: POSIX shell, run with -eux after guest/lib.sh was read; its exit status is the guest's.
    modules: packed with all they need, the script says modprobe. binaries: host programs with their libraries.
    files: "SOURCE[:GUEST PATH]", default place /opt/blkferry/<name> (in PATH); SOURCE is relative to the repository,
    or "build:PATH" below the build directory, or "kmod:NAME" built from kmod/ for the guest's kernel, or
    "ko:DIRECTORY/NAME.ko" a module for tests, built from a directory with a Kbuild; or
    "cc:DIRECTORY/NAME" compiled statically from the C files of a directory, or
    "headers:PATH" of the kernel's headers.
    memory: MiB. timeout: seconds from the start of QEMU to its end. network: user networking, host is 10.0.2.2.
    forwards: TCP ports of the guest that the host reaches through vm.forwarded[port] on 127.0.0.1 (wants network).
    lan: a second interface on a wire to the case's other guest. icount: count instructions (one CPU, exact, slow).
    uefi: boots by UEFI firmware; its variables stay from one guest of the case to the next.
    env: variables for the script. cmdline: more kernel parameters. qemu: more QEMU arguments.
    """

    script: str = "true\n"
    modules: tuple[str, ...] | list[str] = ()
    binaries: tuple[str, ...] | list[str] = ()
    files: tuple[str, ...] | list[str] = ()
    disks: tuple[Disk, ...] | list[Disk] = ()
    memory: int = 512
    cpus: int = 2
    timeout: int = 120
    network: bool = False
    forwards: tuple[int, ...] | list[int] = ()
    lan: str | None = None
    icount: bool = False
    uefi: bool = False
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    cmdline: str = ""
    qemu: tuple[str, ...] | list[str] = ()

    def __post_init__(self) -> None:
        names = [disk.name for disk in self.disks]
        if len(set(names)) != len(names):
            raise VmError(f"two disks have one name: {', '.join(names)}")
        if self.forwards and not self.network:
            raise VmError("forwards want network=True")


@dataclasses.dataclass
class Case:
    """A test: a guest, perhaps a second one, and perhaps a host part.

    kernels: names of kernels.table it can run on; empty means all. allow: regular expressions of console lines that
    the scanner lets pass, each with a reason as comment beside it. services(context): context manager around the run
    that yields variables for the guests. host(vm): runs on the host while the guests run. check(context): runs after
    the guests ended well, while their disk files and the services are still there. All three fail the case by raising.
    """

    title: str
    guest: Guest
    peers: dict[str, Guest] = dataclasses.field(default_factory=dict)
    kernels: tuple[str, ...] | list[str] = ()
    allow: tuple[str, ...] | list[str] = ()
    services: Callable | None = None
    host: Callable | None = None
    check: Callable | None = None
    name: str = ""

    def guests(self) -> dict[str, Guest]:
        """All guests by name; the first is "main"."""
        return {"main": self.guest, **self.peers}


def shell_environment(values: dict[str, str]) -> str:
    """Assignments that a POSIX shell reads back exactly."""
    for key in values:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise VmError(f"'{key}' cannot be the name of a shell variable")
    return "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in values.items())
