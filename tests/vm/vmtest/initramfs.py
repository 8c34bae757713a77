# SPDX-License-Identifier: Apache-2.0
"""Builds a guest's root file system as an uncompressed initramfs (cpio, newc).

The guest has the host's layout (merged /usr), so a host binary and its libraries keep their absolute paths. /bin/sh
is the host's dash: busybox's own shell would run its applets in place of the real losetup, mount or blkdiscard.
"""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from .modules import ModuleTree
from .paths import VM_DIR, VmError

# Found on the host in this order; the harness does not trust the caller's PATH to hold the sbin directories.
HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# busybox dd silently drops O_DIRECT when the kernel refuses it, its date knows no nanoseconds.
BASE_BINARIES = ["dash", "flock", "dd", "date", "truncate"]
APPLET_DIR = "usr/lib/busybox"
FILES_DIR = "opt/blkferry"


class Cpio:
    """Collects entries in memory and writes them as one newc archive; parents are made when needed."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, bytes | Path, int]] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory; adding one twice is fine."""
        path = path.strip("/")
        if not path or path in self.entries:
            return
        self._parents(path)
        self.entries[path] = (stat.S_IFDIR | mode, b"", 0)

    def data(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file with this content."""
        self._parents(path)
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, content, 0)

    def file(self, path: str, source: Path) -> None:
        """Add a copy of a host file; it is read when the archive is written."""
        self._parents(path)
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, source, 0)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(path)
        self.entries[path.strip("/")] = (stat.S_IFLNK | 0o777, target.encode(), 0)

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._parents(path)
        self.entries[path.strip("/")] = (stat.S_IFCHR | 0o600, b"", major << 8 | minor)

    def _parents(self, path: str) -> None:
        parent = os.path.dirname(path.strip("/"))
        if parent:
            self.directory(parent)

    def write(self, target: Path) -> None:
        """Write the archive; entries keep the order in which they were added, so parents come first."""
        with open(target, "wb") as out:
            for inode, (path, (mode, content, device)) in enumerate(self.entries.items(), 1):
                body = content.read_bytes() if isinstance(content, Path) else content
                self._entry(out, inode, path, mode, body, device)
            self._entry(out, 0, "TRAILER!!!", 0, b"", 0)

    @staticmethod
    def _entry(out, inode: int, path: str, mode: int, body: bytes, device: int) -> None:
        name = path.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(body), 0, 0, device >> 8, device & 0xFF, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        out.write(header + name + b"\0" * (-(len(header) + len(name)) % 4))
        out.write(body + b"\0" * (-len(body) % 4))


def find_binary(name: str) -> Path | None:
    """Absolute path of a host binary, or None."""
    found = shutil.which(name, path=HOST_PATH)
    return Path(found) if found else None


def libraries(binary: Path) -> list[Path]:
    """Shared libraries of a binary and its loader, by ldd; empty for scripts and static binaries."""
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    if "not found" in done.stdout:
        missing = re.findall(r"(\S+) => not found", done.stdout)
        raise VmError(f"{binary}: shared libraries not found on this host: {', '.join(missing)}")
    return [Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)]


def guest_name(path: Path) -> str:
    """Path inside the guest: /lib, /bin and /sbin are links into /usr there."""
    text = str(path).strip("/")
    return "usr/" + text if re.match(r"(bin|sbin|lib|lib32|lib64)/", text) else text


def add_base(cpio: Cpio) -> None:
    """Directories, busybox, init and the shell library."""
    for path in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "run", "tmp", "mnt", "etc",
                 "root", "case", FILES_DIR):
        cpio.directory(path)
    for path in ("bin", "sbin", "lib", "lib64"):
        cpio.link(path, f"usr/{path}")
    cpio.device("dev/console", 5, 1)
    cpio.device("dev/null", 1, 3)
    busybox = find_binary("busybox")
    if busybox is None or libraries(busybox):
        raise VmError("no static busybox on this host: install busybox-static")
    cpio.file(f"{APPLET_DIR}/busybox", busybox)
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet not in ("busybox", "sh", "ash"):
            cpio.link(f"{APPLET_DIR}/{applet}", "busybox")
    cpio.link("usr/sbin/modprobe", f"/{APPLET_DIR}/busybox")
    cpio.link("usr/bin/sh", "dash")
    cpio.file("init", VM_DIR / "guest/init")
    cpio.file("case/lib.sh", VM_DIR / "guest/lib.sh")
    cpio.data("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    cpio.data("etc/group", b"root:x:0:\ndisk:x:6:\n")
    cpio.data("etc/hosts", b"127.0.0.1 localhost\n10.0.2.2 host\n")
    cpio.link("etc/mtab", "/proc/self/mounts")


def add_binary(cpio: Cpio, source: Path, path: str | None = None) -> None:
    """Add a host binary (under its own path unless told) and its library closure."""
    cpio.file(path or guest_name(source), source)
    for library in libraries(source):
        cpio.file(guest_name(library), library)


def add_modules(cpio: Cpio, tree: ModuleTree, names: list[str], preload: list[str]) -> None:
    """Add modules with their dependencies; `preload` ones are listed in load order for init."""
    chosen = tree.closure([*preload, *names])
    base = f"usr/lib/modules/{tree.directory.name}"
    for name in chosen:
        cpio.data(f"{base}/{tree.guest_path(name)}", tree.content(name))
    for name, text in tree.index_files(chosen).items():
        cpio.data(f"{base}/{name}", text.encode())
    order = "".join(f"/lib/modules/{tree.directory.name}/{tree.guest_path(name)}\n" for name in tree.closure(preload))
    cpio.data("case/preload", order.encode())
