# SPDX-License-Identifier: Apache-2.0
"""The Debian packages of the demo: built if they are older than what is in them, and unpacked, not installed."""
import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

from vmtest.paths import BUILD, REPO, VmError

PACKAGES = ("blkferry", "blkferry-agent", "blkferry-server", "blkferry-dkms")
BUILT = ("blkferry", "blkferry-agent", "blkferry-opener", "blkferry-server", "blkferry-nbdkit-plugin")
# What build-deb packs besides the programs.
PACKED = ("packaging", "kmod", "dkms", "docs", "README.md")


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """The packages' content."""

    version: str
    programs: tuple[Path, ...]
    module: Path  # the source that DKMS builds


def build() -> list[Path]:
    """The programs, then the Debian packages if they are older than anything in them; gives the packages."""
    subprocess.run(["make", "--no-print-directory", f"B={BUILD}", "deps", BUILD / "build.ninja"], cwd=REPO, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["nice", "ninja", "-C", BUILD, *BUILT], check=True, stdout=subprocess.DEVNULL)
    inputs = [path for name in BUILT for path in (BUILD / name, BUILD / f"{name}.so") if path.is_file()]
    inputs += [path for name in PACKED for path in [REPO / name, *(REPO / name).rglob("*")]]
    newest = max(path.stat().st_mtime for path in inputs)
    for fresh in (False, True):
        if fresh:
            log = BUILD / "deb.log"
            with open(log, "wb") as output:
                environment = {**os.environ, "DEB_BUILD_OPTIONS": "noautodbgsym"}
                if subprocess.run([REPO / "packaging/build-deb", BUILD], stdout=output, stderr=output, env=environment, check=False).returncode:
                    raise VmError(f"the packages do not build, see {log}")
        found = [sorted((BUILD / "deb").glob(f"{name}_*.deb")) for name in PACKAGES]
        if all(len(files) == 1 and (fresh or files[0].stat().st_mtime >= newest) for files in found):
            return [files[0] for files in found]
    raise VmError(f"{BUILD / 'deb'} does not hold the four packages")


def unpack(packages: list[Path], directory: Path) -> Unpacked:
    """Unpacks the packages, unless what is there came out of the same ones."""
    stamp, said = directory / "packages", "".join(f"{path} {path.stat().st_mtime_ns}\n" for path in packages)
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != said:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for path in packages:
            subprocess.run(["dpkg-deb", "-x", path, directory], check=True)
        # The packages' times are the changelog's; what the module is built from is new.
        (source,) = (directory / "usr/src").iterdir()
        for path in source.rglob("*"):
            os.utime(path)
        source.rename(directory / "usr/src/blkferry")
        stamp.write_text(said, encoding="utf-8")
    version = subprocess.run(["dpkg-deb", "-f", packages[0], "Version"], capture_output=True, text=True, check=True).stdout.strip()
    return Unpacked(version, (directory / "usr/bin", directory / "usr/sbin"), directory / "usr/src/blkferry")
