# SPDX-License-Identifier: Apache-2.0
"""A Debian root made by mmdebstrap, cached; commands in it; a kernel's packages."""
import hashlib
import os
import pathlib
import re
import shutil
import sys

from rows import need, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/vm"))
from vmtest import chroot  # noqa: E402
from vmtest.apt import Apt  # noqa: E402
from vmtest.kernel import find_row, newest  # noqa: E402
from vmtest.paths import BUILD, CACHE, VmError, file_lock  # noqa: E402

SUITE = "bookworm"
# What the packages need, so that installing them takes nothing from a network, and what the checks need.
INCLUDE = ("systemd-sysv,udev,kmod,iproute2,initramfs-tools,dkms,linux-image-cloud-amd64,linux-headers-cloud-amd64,libblkid1,"
           "libfmt9,libisal2,liblz4-1,libnl-3-200,libnl-genl-3-200,libspdlog1.10-fmt9,libssl3,libstdc++6,libsqlite3-0,"
           "libtomlplusplus3,liburing2,libxxhash0,libzstd1,openssl,jq,e2fsprogs")
# What a kernel and its headers need beyond that.
KERNEL_NEEDS = ["linux-base", "pahole", "libdw1"]
CLEAN_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8",
                     "HOME": "/root"}


def root_tar():
    """The cached root as a tar archive; the first call takes minutes and Debian's mirror."""
    key = hashlib.sha256(f"{SUITE} {INCLUDE}".encode()).hexdigest()[:12]
    tar = CACHE / f"debian-{SUITE}-{key}.tar"
    with file_lock(CACHE / "debian.lock", "another test to make the Debian root"):
        if not tar.exists():
            sources = [p for p in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list") if os.path.exists(p)]
            new = tar.with_suffix(".new")
            run(["mmdebstrap", "--variant=apt", "--format=tar", "--aptopt=Acquire::Retries \"3\"", f"--include={INCLUDE}", SUITE,
                 new, *sources[:1]], timeout_s=3600)
            new.rename(tar)
    return tar


def kernel_packages(name):
    """Release of the newest kernel of that line of kernels.table, and its packages with its headers, cached."""
    def fetched():
        release, packages = newest(find_row(name), Apt())
        packages += KERNEL_NEEDS
        folder = CACHE / f"debian-{SUITE}-{release}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
        if not folder.exists():
            new = CACHE / f"debian-{SUITE}-kernel.new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            Apt().download(packages, new)
            new.rename(folder)
        return release, sorted(folder.glob("*.deb"))

    with file_lock(CACHE / "debian-kernel.lock", "another test to fetch a kernel"):
        try:
            return fetched()
        except VmError:
            # The index may be absent or older than the mirror.
            Apt().update()
            return fetched()


class Root:
    """A root of its own in a folder, unpacked from the cached one. In it no service starts and nothing comes from a network."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "root"
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        run(["tar", "-xpf", root_tar(), "--numeric-owner", "-C", self.path])
        policy = self.path / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        for source in (self.path / "etc/apt/sources.list", *(self.path / "etc/apt/sources.list.d").iterdir()):
            source.unlink(missing_ok=True)
        (self.path / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/packages ./\n")

    def publish(self, packages):
        """Makes these packages the local repository."""
        folder = self.path / "srv/packages"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for package in packages:
            shutil.copy(package, folder)
        (folder / "Packages").write_text(run(["apt-ftparchive", "packages", "."], cwd=folder))

    def call(self, script, timeout_s=1200, check=True):
        """Runs a shell script in the root, with /proc, /sys and /dev in a mount namespace of its own."""
        return run(chroot.command(self.path, "/bin/sh", "-euc", script), timeout_s=timeout_s, check=check,
                   env=CLEAN_ENVIRONMENT)

    def listing(self):
        """Every file of the root that packages may have put or left there; not what apt, dpkg and the logs keep."""
        keeps = re.compile(r"^(proc|sys|dev|run|tmp|srv|var/(log|cache|lib/(dpkg|apt|systemd/deb-systemd-helper-(en|masked)\S*)|tmp))(/|$)")
        found = set()
        for folder, folders, files in os.walk(self.path):
            for name in folders + files:
                path = os.path.relpath(os.path.join(folder, name), self.path)
                if not keeps.match(path):
                    found.add(path)
        return found

    def kernel(self):
        releases = [p.name for p in (self.path / "lib/modules").iterdir() if (p / "kernel").exists()]
        need(len(releases) == 1, f"kernels in the root: {releases}")
        return releases[0]
