# SPDX-License-Identifier: Apache-2.0
"""Debian machines under QEMU, on one Ethernet, that run shell commands for the test.

A machine has no boot loader: QEMU gets kernel and initramfs, which are taken out of its root disk. The commands come over a
virtio serial port, to a service that runs each of them as root. One CPU each: with several, an old QEMU runs stale code
(vmtest/accel.py), and two machines have the host's cores busy anyway.
"""
import base64
import contextlib
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

import debian  # noqa: F401  (where vmtest is)
from rows import Failure, need, run
from vmtest import accel, console

PORT = "blkferry.test"
PRELUDE = (pathlib.Path(__file__).parent / "machine.sh").read_text(encoding="utf-8")
SERVICE = f"""[Unit]
After=multi-user.target
[Service]
Environment=HOME=/root DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
WorkingDirectory=/root
ExecStart=/bin/bash /usr/local/sbin/test-shell
KillMode=process
"""
# Commands arrive as base64, one a line; the answer is the status and the output as base64.
SHELL = f"""exec 3<>/dev/virtio-ports/{PORT}
touch /run/test-trace
echo ready >&3
while read -r -u 3 script; do
    mv -f /run/test-trace /run/traced
    base64 -d <<<"$script" >/run/test-script
    /bin/bash -euo pipefail /run/test-script </dev/null >/run/test-said 2>&1 3>&- 4>/run/test-trace
    printf '%s %s\\n' $? "$(base64 -w 0 /run/test-said)" >&3
done
"""


def image_of(root, image, size, name, address, hosts, disks=""):
    """Makes the root disk of a machine out of a copy of an unpacked root: its name, its address and the test's service."""
    def put(path, text):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)

    def enable(unit):
        link = root / "etc/systemd/system/multi-user.target.wants" / unit
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"/lib/systemd/system/{unit}" if "systemd" in unit else f"/etc/systemd/system/{unit}")

    put("etc/hostname", f"{name}\n")
    put("etc/hosts", f"127.0.0.1 localhost\n{hosts}")
    put("etc/fstab", disks)
    put("etc/systemd/network/10-test.network", f"[Match]\nName=eth0\n[Network]\nAddress={address}/24\n")
    put("etc/systemd/system/blkferry-test.service", SERVICE)
    put("usr/local/sbin/test-shell", SHELL)
    # What a reader answers apt with.
    put("etc/apt/apt.conf.d/90yes", 'APT::Get::Assume-Yes "true";\n')
    enable("blkferry-test.service")
    enable("systemd-networkd.service")
    image.unlink(missing_ok=True)
    run(["truncate", "-s", size, image])
    run(["mke2fs", "-q", "-t", "ext4", "-d", root, image])


class Machine:
    """One machine. `folder` keeps its console; disks are paths of raw images, the first is the root."""

    def __init__(self, name, folder, disks, link):
        self.name, self.folder, self.disks, self.link = name, pathlib.Path(folder), disks, pathlib.Path(link)
        self.console = self.folder / f"{name}.console"
        self.console.unlink(missing_ok=True)
        self.process = self.channel = self.answers = None
        # A socket's path holds 107 bytes, so it is not below the build folder.
        self.run_folder = pathlib.Path(tempfile.mkdtemp(prefix="bf-machine-", dir="/tmp"))

    def _boot_files(self, release):
        files = []
        for kind in ("vmlinuz", "initrd.img"):
            file = self.run_folder / kind
            run(["debugfs", "-R", f"dump /boot/{kind}-{release} {file}", self.disks[0]])
            need(file.exists() and file.stat().st_size > 0, f"{self.name}: no /boot/{kind}-{release} on its root disk")
            files.append(file)
        return files

    def start(self, release, listens, timeout_s=60):
        """Starts to boot that kernel of its root disk. `listens`: which end of the cable it has; that one is started first."""
        kernel, initrd = self._boot_files(release)
        machine = ["-accel", "kvm", "-cpu", "host"] if accel.choose(lambda *_: False) == "kvm" else [
            "-accel", "tcg", "-cpu", "max,-la57"]
        path = self.run_folder / "commands"
        path.unlink(missing_ok=True)
        drives = []
        for number, disk in enumerate(self.disks):
            drives += ["-drive", f"file={disk},if=none,format=raw,id=d{number},cache=unsafe,discard=unmap",
                       "-device", f"virtio-blk-pci,drive=d{number},serial={disk.stem}"]
        command = [accel.QEMU, "-machine", "pc", *machine, "-smp", "1", "-m", "1024", "-nodefaults", "-nographic", "-no-reboot",
                   "-kernel", kernel, "-initrd", initrd, "-append",
                   "root=/dev/vda rw console=ttyS0 printk.time=1 systemd.show_status=no panic=-1 net.ifnames=0 "
                   "tsc=reliable mitigations=off",
                   "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                   "-device", "virtio-rng-pci", "-device", "virtio-serial-pci", "-chardev",
                   f"socket,id=commands,path={path},server=on,wait=off", "-device", f"virtserialport,chardev=commands,name={PORT}",
                   "-netdev", f"stream,id=net,server={'on' if listens else 'off'},addr.type=unix,addr.path={self.link}",
                   "-device", f"virtio-net-pci,netdev=net,mac=52:54:00:00:00:{1 if listens else 2:02x}", *drives]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + timeout_s
        self.channel = socket.socket(socket.AF_UNIX)
        while True:
            need(self.process.poll() is None, f"{self.name}: QEMU ended with status {self.process.poll()}")
            need(time.monotonic() < deadline, f"{self.name}: QEMU does not listen")
            with contextlib.suppress(OSError):
                self.channel.connect(str(path))
                break
            time.sleep(0.05)
        self.answers = self.channel.makefile("r", encoding="ascii")

    def wait_ready(self, timeout_s=600):
        """Waits until its service takes commands."""
        need(self._answer(timeout_s) == "ready", f"{self.name}: no greeting")

    def _answer(self, timeout_s):
        self.channel.settimeout(timeout_s)
        try:
            line = self.answers.readline().strip()
        except TimeoutError:
            self.close()  # what it still says would be taken for the next answer
            raise Failure(f"{self.name}: no answer within {timeout_s} s; see {self.console}") from None
        need(line, f"{self.name} is gone; see {self.console}")
        return line

    def _ask(self, script, timeout_s):
        need(self.process, f"{self.name} does not run any more; see {self.console}")
        self.channel.sendall(base64.b64encode(script.encode()) + b"\n")
        status, _, said = self._answer(timeout_s).partition(" ")
        return int(status), base64.b64decode(said).decode(errors="replace").strip()

    def call(self, script, timeout_s=900):
        """Runs a bash script as root, after machine.sh; returns its output. A status other than 0 is a Failure."""
        status, said = self._ask(f"{PRELUDE}BASH_XTRACEFD=4; set -x\n{script}", timeout_s)
        if status != 0:
            trace = self._ask("tail -n 4 /run/traced", 60)[1].splitlines()
            journal = self._ask("journalctl -q -u blkferry-agent -u blkferry-server -n 25 --no-pager", 60)[1]
            raise Failure("\n".join([f"{self.name}: status {status}: {trace[-1] if trace else ''}", *trace, *said.splitlines()[-40:], journal]))
        return said

    def power_off(self, timeout_s=300):
        """Shuts it down as a user does and waits for its end."""
        need(self.process, f"{self.name} does not run")
        self.channel.sendall(base64.b64encode(b"systemctl poweroff --no-block") + b"\n")
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not shut down within {timeout_s} s; see {self.console}") from None
        finally:
            self.close()

    def close(self):
        """Ends it as pulling the plug does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.channel.close()

    def leave(self):
        """Removes what it needed while it ran."""
        self.close()
        shutil.rmtree(self.run_folder, ignore_errors=True)

    def findings(self):
        """What its kernel said that a healthy one never says."""
        return [f"{self.name}: {finding}" for finding in console.scan(self.console.read_text(errors="replace").splitlines())]

    def kernels(self):
        """The installed ones."""
        said = run(["debugfs", "-R", "ls -p /boot", self.disks[0]])
        return re.findall(r"/vmlinuz-([^/]+)/", said)
