# SPDX-License-Identifier: Apache-2.0
"""Debian's packages: those of the host's release, and of another release through a small root of that release."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from . import chroot
from .paths import CACHE, VmError

OPTIONS = ["-q", "-o", "APT::Sandbox::User=root"]


def host_suite() -> str:
    """Debian codename of the host, from os-release."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.split("=", 1)[1].strip('"')
    return "unknown"


def run_command(args: list[str], cwd: Path | None = None) -> str:
    """Run a host command and return its output; a failure is a VmError with the command's own words."""
    try:
        done = subprocess.run(args, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise VmError(f"{args[0]} is not installed on this host: {error}") from error
    if done.returncode != 0:
        raise VmError(f"command failed ({done.returncode}): {' '.join(args)}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


class Apt:
    """apt of the host, or of a root of another release, or of the host's release for another architecture."""

    def __init__(self, root: Path | None = None, arch: str = ""):
        self.root, self.arch = root, arch
        self.options = [*OPTIONS, *(self._foreign_options() if arch else [])]

    def _foreign_options(self) -> list[str]:
        """An index of its own: the host's apt knows nothing of that architecture, and shall not."""
        home = CACHE / f"apt-{self.arch}"
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        (home / "status").touch()
        settings = {"APT::Architecture": self.arch, "APT::Architectures": self.arch, "Dir::State": home / "state",
                    "Dir::State::status": home / "status", "Dir::Cache": home / "cache"}
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [program, *(self.options if program.startswith("apt") else []), *arguments]
        return chroot.command(self.root, *command) if self.root else command

    def _ask(self, *arguments: str) -> str:
        """Output of apt-cache; an unknown package is no error."""
        return subprocess.run(self._command("apt-cache", *arguments), capture_output=True, text=True, check=False).stdout

    def update(self) -> None:
        """Fetch the index anew."""
        run_command(self._command("apt-get", "update"))

    def depends(self, package: str) -> list[str]:
        """Direct dependencies by name; empty if the package is unknown to apt."""
        return re.findall(r"^ *\|?Depends: (\S+)$", self._ask("depends", package), re.MULTILINE)

    def names(self, prefix: str) -> list[str]:
        """Packages whose name begins so."""
        return self._ask("pkgnames", prefix).split()

    def has_candidate(self, package: str) -> bool:
        """True if apt can download the package."""
        found = re.search(r"^  Candidate: (\S+)$", self._ask("policy", package), re.MULTILINE)
        return found is not None and found.group(1) != "(none)"

    def download(self, packages: list[str], directory: Path) -> None:
        """Put the packages' files into an empty directory of the host."""
        if self.arch:
            # What runs while a module is built comes from the host's own architecture.
            tools = [name for name in packages if name.startswith("linux-kbuild-")]
            packages = [name for name in packages if name not in tools]
            Apt().download(tools, directory)
        if self.root is None:
            run_command(self._command("apt-get", "download", *packages), cwd=directory)
            return
        inside = self.root / "srv/debs"
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(parents=True)
        run_command(self._command("sh", "-euc", "cd /srv/debs; exec apt-get \"$@\"", "sh", *self.options, "download",
                                  *packages))
        for deb in inside.glob("*.deb"):
            shutil.move(deb, directory)

    def install(self, packages: list[str]) -> None:
        """Install into the root; never into the host."""
        if self.root is None:
            raise VmError("nothing is installed on the host")
        run_command(self._command("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *self.options, "-y", "--no-install-recommends",
                                  "install", *packages))


def mirror() -> str:
    """The archive that the host's own packages come from."""
    rows = run_command(["apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages"]).splitlines()
    for row in rows:
        codename, _, site = row.partition(" ")
        if codename == host_suite():
            return site
    raise VmError("apt's sources name no archive of this Debian release")


def foreign_root(suite: str) -> Path:
    """Where the root of another release is."""
    return CACHE / "kernels" / f"root-{suite}"


def foreign(suite: str) -> Apt:
    """apt of another release (or its backports), in a root that is made by the first call: minutes, 300 MB and more."""
    root = foreign_root(suite)
    if not (root / ".complete").is_file():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        release = suite.removesuffix("-backports")
        lines = [f"deb {mirror()} {name} main" for name in dict.fromkeys((release, suite))]
        run_command(["mmdebstrap", "--variant=apt", "--mode=root", "--include=make,kmod,sparse", release, str(root), *lines])
        for name in ("resolv.conf", "apt/apt.conf.d/01proxy"):
            if os.path.exists(f"/etc/{name}"):
                shutil.copy(f"/etc/{name}", root / "etc" / name)
        Apt(root).update()
        (root / ".complete").touch()
    return Apt(root)
