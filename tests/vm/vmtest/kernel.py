# SPDX-License-Identifier: Apache-2.0
"""Debian kernels by name: download, unpack outside the system, prepare headers for module builds.

A kernel lives in CACHE/kernels/<name>/<release>/ and CACHE/kernels/<name>/current.json names the newest one, so a
second run needs no network. Nothing is installed on the host. Beside the names of the table, the name of an image
package and the path of an image are understood; kernels with sanitizers are built by debug-kernel/build.
"""

import dataclasses
import fnmatch
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from .apt import Apt, foreign, foreign_root, host_suite, run_command
from .paths import CACHE, VM_DIR, VmError, file_lock

TABLE = VM_DIR / "kernels.table"
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console")
BUILT = "source:"  # in the table: not a package to fetch but a source that debug-kernel/build builds
# Architectures to build for besides the host's, and their compilers' prefix.
CROSS = {"arm64": "aarch64-linux-gnu-"}
# Options of a kernel that make it so slow that deadlines have to grow.
SANITIZERS = ("KASAN", "KCSAN", "PROVE_LOCKING")


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A line of kernels.table."""

    name: str
    suite: str
    image: tuple[str, ...]
    modules: tuple[str, ...]
    uses: str = "run"  # "run": built for and booted; "build": built for only, also for another architecture: "build:arm64"

    @property
    def arch(self) -> str:
        """The architecture if it is not the host's."""
        return self.uses.partition(":")[2]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An unpacked kernel, ready to boot and to build modules for."""

    name: str
    release: str
    root: Path
    packages: tuple[str, ...]
    boot_modules: tuple[str, ...]
    image: Path | None = None  # where it is not under root
    builder: Path | None = None  # root of its own release, with its headers and compiler, if that is not the host's
    arch: str = ""  # if it is not the host's; such a kernel is not booted

    @property
    def vmlinuz(self) -> Path:
        return self.image or self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def config(self) -> Path:
        return self.root / "boot" / f"config-{self.release}"

    @property
    def kdir(self) -> Path:
        """Directory for `make -C KDIR M=...`."""
        headers = self.root / "usr/src" / f"linux-headers-{self.release}"
        return headers if headers.exists() else self.modules_dir / "build"

    @property
    def modules_dir(self) -> Path:
        return self.root / "lib/modules" / self.release

    @property
    def series(self) -> str:
        """"6.1" of 6.1.192-debug-kasan."""
        return ".".join(re.findall(r"\d+", self.release)[:2])

    def sanitizers(self) -> list[str]:
        """Which of SANITIZERS the kernel was configured with; none if its configuration is not there."""
        for path in (self.config, self.kdir / ".config"):
            if path.is_file():
                lines = path.read_text(encoding="utf-8").splitlines()
                return [name for name in SANITIZERS if f"CONFIG_{name}=y" in lines]
        return []


def read_table(path: Path = TABLE) -> dict[str, TableRow]:
    """Parse kernels.table; a malformed line is an error that names file and line."""
    rows: dict[str, TableRow] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        fields = line.split()
        if len(fields) != 5:
            raise VmError(f"{path}:{number}: {len(fields)} columns, 5 wanted: name suite image modules uses")
        name, suite, image, modules, uses = fields
        if uses not in ("run", "build", *(f"build:{arch}" for arch in CROSS)):
            raise VmError(f"{path}:{number}: use {uses} of kernel {name}: can be run, build or build:arm64")
        if name in rows:
            raise VmError(f"{path}:{number}: kernel {name} is defined twice")
        rows[name] = TableRow(name, suite, tuple(image.split("|")), tuple(modules.split(",")), uses)
    return rows


def version_key(package: str) -> list[int]:
    """Sort key: every number of the name, so that 6.12.117 is newer than 6.12.99."""
    return [int(number) for number in re.findall(r"\d+", package)]


def resolve_image(row: TableRow, apt: Apt) -> str | None:
    """Name of the newest installable image package of a table row, or None if apt knows none."""
    for wanted in row.image:
        if "*" in wanted:
            prefix = wanted.split("*", 1)[0]
            names = apt.names(prefix)
            matches = [name for name in names if fnmatch.fnmatchcase(name, wanted) and apt.has_candidate(name)]
            # The pattern of the plain flavour matches the others too.
            matches = [name for name in matches if all(word in wanted or word not in name
                                                       for word in ("cloud", "-rt-", "unsigned", "dbg"))]
            if matches:
                return max(matches, key=version_key)
            continue
        if re.match(r"linux-image-\d+\.\d+\.\d", wanted) and apt.has_candidate(wanted):
            return wanted
        images = [name for name in apt.depends(wanted) if re.match(r"linux-image-\d", name)]
        if images:
            return max(images, key=version_key)
    return None


def package_list(image: str, apt: Apt) -> list[str]:
    """Every package wanted for an image: itself, its headers, the common headers and the build tools; in this order."""
    release = image.removeprefix("linux-image-")
    headers = f"linux-headers-{release}"
    depends = apt.depends(headers)
    common = [name for name in depends if re.fullmatch(r"linux-headers-.*-common(-rt)?", name)]
    kbuild = [name for name in depends if name.startswith("linux-kbuild-")]
    if not common or not kbuild:
        raise VmError(f"package {headers} has no -common or linux-kbuild dependency: run apt-get update")
    # Since 7.0 the image's package only names others: the kernel (linux-binary), its modules, its base.
    parts = [name for name in apt.depends(image) if name.startswith("linux-") and name.endswith(f"-{release}")]
    return [image, headers, common[0], kbuild[0], *parts]


def newest(row: TableRow, apt: Apt) -> tuple[str, list[str]]:
    """Release and packages of the newest kernel of the row."""
    image = resolve_image(row, apt)
    if image is None:
        raise VmError(f"kernel {row.name}: apt knows no package {' or '.join(row.image)}")
    return image.removeprefix("linux-image-"), package_list(image, apt)


def relocate_headers(root: Path, release: str) -> None:
    """Make the unpacked headers usable where they are: their Makefile includes /usr/src/... by absolute path."""
    kdir = root / "usr/src" / f"linux-headers-{release}"
    makefile = kdir / "Makefile"
    text = makefile.read_text(encoding="utf-8")
    makefile.write_text(text.replace(" /usr/src/", f" {root}/usr/src/"), encoding="utf-8")
    modules = root / "lib/modules" / release
    for link, target in (("build", kdir), ("source", None)):
        path = modules / link
        if path.is_symlink():
            path.unlink()
        if target is not None:
            path.symlink_to(os.path.relpath(target, modules))


def unpack(packages: list[str], release: str, target: Path, apt: Apt) -> None:
    """Download `packages` and unpack them to `target`, which appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as temporary:
        debs = Path(temporary) / "debs"
        debs.mkdir()
        apt.download(packages, debs)
        root = Path(temporary) / "root"
        for deb in sorted(debs.glob("*.deb")):
            run_command(["dpkg-deb", "-x", str(deb), str(root)])
        # Since 7.0 the kernel and its configuration are beside its modules.
        for name in ("vmlinuz", "config"):
            beside = root / "usr/lib/modules" / release / name
            if beside.is_file():
                (root / "boot").mkdir(exist_ok=True)
                beside.rename(root / "boot" / f"{name}-{release}")
        if not (root / "boot" / f"vmlinuz-{release}").is_file():
            raise VmError(f"package {packages[0]} holds no boot/vmlinuz-{release}")
        # Since trixie modules live in usr/lib/modules.
        if not (root / "lib").exists() and (root / "usr/lib/modules").is_dir():
            (root / "lib").symlink_to("usr/lib")
        run_command(["depmod", "-b", str(root), release])
        shutil.rmtree(root / "usr/share", ignore_errors=True)
        if target.exists():
            shutil.rmtree(target)
        root.rename(target)
    relocate_headers(target, release)


def image_release(image: Path) -> str:
    """What uname -r will say, from the header of an x86 boot image (Documentation/arch/x86/boot.rst, kernel_version)."""
    with open(image, "rb") as handle:
        head = handle.read(0x10000)
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    words = head[start:start + 256].split(b"\0")[0].decode("ascii", "replace").split()
    if head[0x202:0x206] != b"HdrS" or not words:
        raise VmError(f"{image} is no bootable x86 kernel image (bzImage)")
    return words[0]


def from_image(image: Path) -> Kernel:
    """A kernel of the user's own: its modules are where `modules_install` puts them beside boot/, or beside the image."""
    release = image_release(image)
    for root in (image.parent.parent, image.parent):
        if (root / "lib/modules" / release / "modules.dep").is_file():
            return Kernel(f"image-{release}", release, root, (), BOOT_MODULES, image)
    raise VmError(f"{image}: no lib/modules/{release}/modules.dep in {image.parent.parent} or {image.parent}: "
                  f"run make modules_install INSTALL_MOD_PATH={image.parent} in the kernel's tree")


def find_row(name: str) -> TableRow:
    """The kernel's line of the table, or one made up for an image package."""
    table = read_table()
    if name in table:
        return table[name]
    if re.fullmatch(r"linux-image-[a-z0-9.+-]+", name):
        return TableRow(name, host_suite(), (name,), BOOT_MODULES)
    raise VmError(f"kernel {name} is not in {TABLE} (it knows {', '.join(table)}), "
                  f"nor is it an image package (linux-image-...) or the path of an image")


def fetch(name: str, refresh: bool = False) -> Kernel:
    """Return the kernel `name`, downloading it if the cache lacks it or `refresh` asks for the newest.

    name: of the table, of an image package, or the path of an image (with a "/").
    """
    if "/" in name:
        return from_image(Path(name).resolve())
    row = find_row(name)
    home = CACHE / "kernels" / name
    current = home / "current.json"
    if row.image[0].startswith(BUILT):
        if not current.is_file():
            raise VmError(f"kernel {name} is not built: run make debug-kernel VARIANT={name.removeprefix('debug-')}")
        return load(row, current)
    # It gets its name when all of it is there, so what the cache has needs nobody's lock: a download may take long.
    if current.is_file() and not refresh:
        return load(row, current)
    with file_lock(CACHE / "kernels" / ".lock", "another kernel download"):
        if current.is_file() and not refresh:
            return load(row, current)
        apt = Apt(arch=row.arch) if row.suite == host_suite() else foreign(row.suite)
        try:
            release, packages = newest(row, apt)
            if not (home / release / "boot").is_dir():
                unpack(packages, release, home / release, apt)
        except VmError:
            # The index may be absent or older than the mirror: one update, one more try.
            apt.update()
            release, packages = newest(row, apt)
            unpack(packages, release, home / release, apt)
        if apt.root:
            apt.install([packages[1]])
        text = json.dumps({"release": release, "packages": packages}, indent=1)
        temporary = current.with_suffix(".tmp")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.rename(current)
        return load(row, current)


def load(row: TableRow, current: Path) -> Kernel:
    """Read what fetch() stored; a damaged cache is an error that says how to mend it."""
    try:
        state = json.loads(current.read_text(encoding="utf-8"))
        builder = None if row.suite == host_suite() else foreign_root(row.suite)
        kernel = Kernel(row.name, state["release"], current.parent / state["release"], tuple(state["packages"]),
                        row.modules, builder=builder, arch=row.arch)
    except (ValueError, KeyError, TypeError) as error:
        raise VmError(f"{current} is damaged ({error}): remove {current.parent} and fetch again") from error
    headers = (builder / "usr/src" / kernel.kdir.name if builder else kernel.kdir) / "Makefile"
    for path in (kernel.vmlinuz, kernel.modules_dir / "modules.dep", headers):
        if not path.is_file():
            raise VmError(f"kernel {row.name}: {path} is missing: remove {current.parent} and fetch again")
    return kernel
