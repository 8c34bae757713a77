# SPDX-License-Identifier: Apache-2.0
"""A Debian root made by mmdebstrap, cached; commands in it; a guest that boots it."""
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

from rows import Failure, need, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/vm"))
from vmtest import accel, chroot  # noqa: E402
from vmtest.paths import BUILD, CACHE, file_lock, machine_lock  # noqa: E402

SUITE = "bookworm"
# What the packages need, so that installing them takes nothing from a network, and what the checks need.
INCLUDE = ("systemd-sysv,udev,kmod,iproute2,initramfs-tools,dkms,linux-image-cloud-amd64,linux-headers-cloud-amd64,libblkid1,"
           "libfmt9,libisal2,liblz4-1,libnl-3-200,libnl-genl-3-200,libspdlog1.10-fmt9,libssl3,libstdc++6,libsqlite3-0,"
           "libtomlplusplus3,liburing2,libxxhash0,libzstd1,openssl,jq")
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

    def boot(self, folder, disk_mib=256, timeout_s=3600):
        """Boots a copy of this root; /root/test (made executable by its unit) prints rows. Returns them as text.

        The guest has 2 CPUs, 1.5 GiB, no network, a second disk /dev/vdb. It ends when the script has ended.
        """
        folder = pathlib.Path(folder)
        image, rows, console = folder / "root.img", folder / "rows", folder / "console.log"
        for old in (image, rows, console):
            old.unlink(missing_ok=True)
        unit = self.path / "etc/systemd/system/blkferry-test.service"
        unit.write_text("[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nStandardOutput=tty\nTTYPath=/dev/ttyS1\n"
                        "StandardError=inherit\nTimeoutStartSec=infinity\nExecStart=/bin/bash /root/test\n"
                        "ExecStopPost=/bin/systemctl poweroff --no-block\n")
        wants = self.path / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / unit.name).unlink(missing_ok=True)
        (wants / unit.name).symlink_to(f"/etc/systemd/system/{unit.name}")
        (self.path / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        (self.path / "etc/fstab").write_text("")
        (self.path / "etc/hostname").write_text("guest\n")
        with contextlib.suppress(FileExistsError):
            (self.path / "etc/systemd/system/systemd-networkd-wait-online.service").symlink_to("/dev/null")
        run(["truncate", "-s", "4G", image])
        run(["mke2fs", "-q", "-t", "ext4", "-d", self.path, image])
        run(["truncate", "-s", f"{disk_mib}M", folder / "disk.img"])
        release = self.kernel()
        machine = ["-accel", "kvm", "-cpu", "host"] if accel.choose(lambda *_: False) == "kvm" else [
            "-accel", "tcg", "-cpu", "max,-la57"]
        drives = []
        for name in ("root", "disk"):
            drives += ["-drive", f"file={folder / name}.img,if=none,format=raw,id={name},cache=unsafe,discard=unmap",
                       "-device", f"virtio-blk-pci,drive={name},serial={name}"]
        command = [accel.QEMU, "-machine", "pc", *machine, "-smp", "2", "-m", "1536", "-nodefaults", "-nographic", "-no-reboot",
                   "-kernel", self.path / f"boot/vmlinuz-{release}", "-initrd", self.path / f"boot/initrd.img-{release}",
                   "-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=no panic=-1 net.ifnames=0",
                   "-serial", f"file:{console}", "-serial", f"file:{rows}", "-device", "virtio-rng-pci", *drives]
        with machine_lock():
            try:
                run(command, timeout_s=timeout_s)
            except subprocess.TimeoutExpired:
                raise Failure(f"the guest did not end within {timeout_s} s; see {console} and {rows}") from None
        image.unlink()
        return rows.read_text(errors="replace").replace("\r", "")
