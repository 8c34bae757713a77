# SPDX-License-Identifier: Apache-2.0
"""Runs one guest under QEMU: command line, control channel, deadline, console. See README.md for the protocol.

    Vm(guest, kernel, directory) -> start() -> [expect() / reply() / qmp] -> wait() -> Outcome;  close() always

One thread uses a Vm; a second one, of its own, reads the control port.
"""

import ctypes
import dataclasses
import os
import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import accel
from .console import Finding, scan
from .image import build_initramfs, fresh_directory, make_disk
from .kernel import Kernel
from .paths import UEFI, UEFI_VARIABLES, VmError
from .qmp import Qmp
from .spec import Disk, Guest

# A loaded host stalls a TCG guest for seconds: the guest's watchdogs get their largest thresholds. Real dead locks
# still end in the hung task detector or the case's deadline.
CMDLINE = ("console=ttyS0 panic=-1 printk.time=1 loglevel=6 net.ifnames=0 no_timer_check "
           "random.trust_cpu=on sysctl.kernel.watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300 "
           "workqueue.watchdog_thresh=300 sysctl.kernel.panic_on_oops=1 tsc=reliable")
EXIT_LINE = re.compile(r"BLKFERRY-EXIT:(\d+)")
SKIP_STATUS = 77
SETUP_STATUS = 125
CONSOLE_BYTES_MAX = 64 << 20


# Of a kernel with sanitizers: time by this factor; memory for shadow, quarantine, lock and object tables.
SLOW_FACTOR = 4
SLOW_MEMORY = 512
# Of a host that has much else to do: every deadline by this factor.
PATIENCE = max(1, int(os.environ.get("BLKFERRY_VM_PATIENCE", "3")))
# A kernel that has not begun our init after this many seconds (of a normal kernel on an idle host) hangs: it needs 3.
BOOT_SECONDS = int(os.environ.get("BLKFERRY_VM_BOOT", "30"))


def scaled(guest: Guest, slow: int) -> Guest:
    """The guest with the time and memory that a kernel with sanitizers needs, and the time that a busy host needs."""
    memory = guest.memory if slow == 1 else guest.memory * 3 // 2 + SLOW_MEMORY
    return dataclasses.replace(guest, timeout=guest.timeout * slow * PATIENCE, memory=memory)


def die_with_parent() -> None:
    """In the child: the kernel kills QEMU when the runner dies, however it dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_port() -> int:
    """A TCP port of the loopback that nobody has, below the range that clients get theirs from.

    In that range a client (even one that dials this very port) could take it while its server is restarted.
    """
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def machine(slow: int) -> str:
    """QEMU's machine type: "pc", or "q35" for kernels with sanitizers.

    The interrupt table (_PRT) of "pc" is a loop of 128 rounds in ACPI's language. With sanitizers Linux' interpreter
    gives it up after 30 s, once for each PCI device; that of "q35" is constant.
    """
    return "pc" if slow == 1 else "q35"


def disk_device(disk: Disk, machine_type: str, number: int) -> list[str]:
    """QEMU's -device arguments of disk `number`. On the root bus of q35 nothing unplugs: there each disk has a port."""
    common = (f"id={disk.name},drive=drive-{disk.name},serial={disk.name},"
              f"logical_block_size={disk.block},physical_block_size={disk.block}")
    if disk.bus == "scsi":
        return ["-device", f"scsi-hd,bus=scsi0.0,{common}"]
    port = []
    if machine_type == "q35":
        port = ["-device", f"pcie-root-port,id=port-{disk.name},chassis={number + 1},slot={number + 1}"]
        common += f",bus=port-{disk.name}"
    if disk.bus == "nvme":
        return [*port, "-device", f"nvme,{common},max_ioqpairs={max(disk.queues, 1)}"]
    unmap = "on" if disk.discard else "off"
    return [*port, "-device",
            f"virtio-blk-pci,{common},discard={unmap},write-zeroes={unmap},num-queues={disk.queues}"]


@dataclasses.dataclass
class Outcome:
    """How a guest ended. status is the script's exit status, None if the guest never said one."""

    status: int | None
    reason: str
    boot_seconds: float | None
    seconds: float
    reports: dict[str, str]
    findings: list[Finding]
    directory: Path
    abandoned: bool = False
    hung_in_boot: bool = False

    @property
    def skipped(self) -> bool:
        return self.status == SKIP_STATUS

    @property
    def passed(self) -> bool:
        return self.status == 0 and not self.reason and not self.findings


class Vm:
    """One guest. `directory` is emptied and keeps console.log, qemu.log, out/ and, until close(), the disks."""

    def __init__(self, guest: Guest, kernel: Kernel, directory: Path, env: dict[str, str] | None = None,
                 acceleration: str = "tcg", lan: tuple[Path, Path] | None = None, name: str = "main",
                 allow: list[str] | tuple[str, ...] = ()):
        self.slow = SLOW_FACTOR if kernel.sanitizers() else 1
        guest = scaled(guest, self.slow)
        self.guest, self.kernel, self.directory, self.name = guest, kernel, fresh_directory(directory), name
        disks = " ".join(disk.name for disk in guest.disks)
        self.env = {"BF_KERNEL": kernel.name, "BF_SLOW": str(self.slow), "BF_PATIENCE": str(PATIENCE),
                    "BF_DISKS": disks, **guest.env, **(env or {})}
        self.acceleration, self.lan, self.allow = acceleration, lan, allow
        self.console = directory / "console.log"
        self.reports: dict[str, str] = {}
        self.syncs: queue.Queue[str | None] = queue.Queue()
        self.reason = ""
        self.abandoned = False
        self.hung_in_boot = False
        self.status: int | None = None
        self.boot_seconds: float | None = None
        self.sockets: list[socket.socket] = []
        self.process: subprocess.Popen | None = None
        self.qmp: Qmp | None = None
        self.peers: dict[str, Vm] = {}
        self.forwarded: dict[int, int] = {}
        self.spawn: Callable[[str, Guest], Vm] | None = None
        self.context = None  # the case's Context, for host parts that need its services
        self.boot_limit = BOOT_SECONDS * self.slow * PATIENCE
        self.boot_timer: threading.Timer | None = None
        self.started = 0.0
        self.ended = 0.0

    # ---- Starting ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Build the image and start QEMU; raises image.Missing if the guest cannot run on this host."""
        initramfs = self.directory / "initramfs.cpio"
        build_initramfs(self.guest, self.kernel, self.env, initramfs)
        command = self._command(initramfs)
        (self.directory / "command").write_text(" ".join(command) + "\n", encoding="utf-8")
        self.console.touch()
        self.started = time.monotonic()
        with open(self.directory / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent)
        self.control = self._connect("ctl")
        self.replies = self._connect("reply")
        self.reader = threading.Thread(target=self._read_control, daemon=True)
        self.reader.start()
        self._connect("qmp", lambda path: setattr(self, "qmp", Qmp(path)))
        self.boot_timer = threading.Timer(self.boot_limit, self._boot_overdue)
        self.boot_timer.daemon = True
        self.boot_timer.start()

    def _boot_overdue(self) -> None:
        """Timer: ends a guest whose kernel hangs before it reached our init; nothing of ours runs in it yet."""
        if self.boot_seconds is None and self.process.poll() is None:
            self.hung_in_boot = True
            self.reason = f"the kernel did not come up within {self.boot_limit} s, killed"
            self.kill()

    def _socket_path(self, name: str) -> Path:
        # Not beside the console: a socket's path holds 107 bytes at most.
        return Path(f"/tmp/bf-vm-{os.getpid()}-{id(self):x}-{name}")

    def _command(self, initramfs: Path) -> list[str]:
        guest = self.guest
        if guest.icount:
            processor = ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max,-erms,-fsrm,-la57", "-smp", "1"]
        else:
            cpu = "host,-arch-capabilities" if self.acceleration == "kvm" else "max,-la57"
            processor = ["-accel", self.acceleration, "-cpu", cpu, "-smp", str(guest.cpus)]
        command = [accel.QEMU, "-machine", machine(self.slow), *processor, "-m", str(guest.memory), "-nodefaults", "-nographic",
                   "-no-reboot", "-no-user-config", "-name", self.name,
                   "-kernel", str(self.kernel.vmlinuz), "-initrd", str(initramfs),
                   "-append", f"{CMDLINE} {guest.cmdline}".strip(),
                   "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
                   "-qmp", f"unix:{self._socket_path('qmp')},server=on,wait=off",
                   "-device", "virtio-serial-pci,max_ports=4"]
        for port in ("ctl", "reply"):
            command += ["-chardev", f"socket,id={port},path={self._socket_path(port)},server=on,wait=off"]
        command += ["-chardev", f"file,id=out,path={self.directory / 'out.tar'}"]
        for number, port in enumerate(("ctl", "reply", "out"), 1):
            command += ["-device", f"virtserialport,chardev={port},name={port},nr={number}"]
        return command + self._firmware_arguments() + self._disk_arguments() + self._network_arguments() + list(guest.qemu)

    def _firmware_arguments(self) -> list[str]:
        if not self.guest.uefi:
            return []
        variables = self.directory.parent / UEFI_VARIABLES
        if not variables.exists():
            shutil.copy(UEFI / "OVMF_VARS_4M.fd", variables)
        return ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={UEFI / 'OVMF_CODE_4M.fd'}",
                "-drive", f"if=pflash,format=raw,unit=1,file={variables}"]

    def _disk_arguments(self) -> list[str]:
        arguments = []
        if any(disk.bus == "scsi" for disk in self.guest.disks):
            arguments += ["-device", "virtio-scsi-pci,id=scsi0"]
        for number, disk in enumerate(self.guest.disks):
            path = make_disk(disk, self.directory)
            arguments += ["-drive", f"if=none,id=drive-{disk.name},file={path},format=raw,cache={disk.cache},"
                          f"discard={'unmap' if disk.discard else 'ignore'},"
                          f"readonly={'on' if disk.readonly else 'off'},"
                          f"snapshot={'on' if disk.snapshot else 'off'},auto-read-only=off,file.locking=off",
                          *disk_device(disk, machine(self.slow), number)]
        return arguments

    def _network_arguments(self) -> list[str]:
        arguments = []
        if self.guest.network:
            self.forwarded = {port: free_port() for port in self.guest.forwards}
            forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.forwarded.items())
            arguments += ["-netdev", f"user,id=net0,ipv6=off,dns=10.0.2.3{forwards}",
                          "-device", "virtio-net-pci,netdev=net0,romfile=,mac=52:54:00:00:00:10"]
        if self.lan is not None:
            here, there = self.lan
            last = (self.guest.lan or "0.0.0.1").rsplit(".", 1)[1]
            arguments += ["-netdev", f"dgram,id=lan0,local.type=unix,local.path={here},"
                          f"remote.type=unix,remote.path={there}",
                          "-device", f"virtio-net-pci,netdev=lan0,romfile=,mac=52:54:00:00:01:{int(last):02x}"]
        return arguments

    def _connect(self, name: str, opener=None):
        """Connect to one of QEMU's sockets as soon as it is there."""
        path = self._socket_path(name)
        deadline = time.monotonic() + 30
        while True:
            try:
                if opener is not None:
                    opener(path)
                    return None
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.connect(str(path))
                self.sockets.append(connection)
                return connection
            except (OSError, VmError):
                if self._dead():
                    text = (self.directory / "qemu.log").read_text(encoding="utf-8", errors="replace").strip()
                    raise VmError(f"QEMU ended at once ({self.process.returncode}): {text}") from None
                if time.monotonic() > deadline:
                    raise VmError(f"QEMU did not open its socket {path}") from None
                time.sleep(0.02)

    def _dead(self) -> bool:
        """True if QEMU ended, or is just about to."""
        try:
            self.process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            return False
        return True

    # ---- Talking with the guest ----------------------------------------------------------------------------------

    def _read_control(self) -> None:
        """Thread: takes the guest's messages apart until QEMU closes the port."""
        buffer = b""
        while True:
            try:
                data = self.control.recv(4096)
            except OSError:
                data = b""
            if not data:
                break
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                self._message(line.decode("utf-8", "replace"))
            if len(buffer) > 65536:
                buffer = b""
        self.syncs.put(None)

    def _message(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "up":
            self.boot_seconds = time.monotonic() - self.started
        elif word == "sync":
            self.syncs.put(rest)
        elif word == "report":
            key, _, value = rest.partition(" ")
            self.reports[key] = value
        elif word in ("skip", "fail"):
            self.reason = self.reason or rest
        elif word == "exit" and rest.isdigit():
            self.status = int(rest)

    def left(self) -> float:
        """Seconds until the guest's deadline."""
        return self.started + self.guest.timeout - time.monotonic()

    def expect(self, name: str) -> None:
        """Wait until the guest calls `sync_host name`; any other name, its end or the deadline is a VmError."""
        try:
            got = self.syncs.get(timeout=max(self.left(), 0.01))
        except queue.Empty:
            raise VmError(f"guest {self.name}: no 'sync {name}' before the deadline") from None
        if got is None:
            raise VmError(f"guest {self.name} ended before 'sync {name}'")
        if got != name:
            raise VmError(f"guest {self.name}: 'sync {got}' came, '{name}' was expected")

    def reply(self, text: str = "") -> None:
        """Answer the guest's sync; it goes on with this line."""
        self.replies.sendall(text.replace("\n", " ").encode() + b"\n")

    def disk_path(self, name: str) -> Path:
        """Backing file of a disk, for a look from the host."""
        return self.directory / f"{name}.img"

    def unplug(self, name: str, timeout: float = 60.0) -> None:
        """Hot-unplug a disk and wait until the guest let it go."""
        self.qmp.command("device_del", id=name)
        self.qmp.wait_event("DEVICE_DELETED", timeout=timeout * self.slow * PATIENCE, device=name)

    def resize(self, name: str, size: int) -> None:
        """Grow (or shrink) a disk to `size` bytes under the running guest."""
        self.qmp.command("block_resize", device=f"drive-{name}", size=size)

    def power_cut(self) -> None:
        """End QEMU at once, as a power failure; the guest's exit status is then not wanted."""
        self.process.kill()
        self.process.wait()
        self.status = 0 if self.status is None else self.status

    # ---- Ending --------------------------------------------------------------------------------------------------

    def wait(self) -> Outcome:
        """Wait for the guest's end, kill it at its deadline, judge the console."""
        try:
            self.process.wait(timeout=max(self.left(), 0.01))
        except subprocess.TimeoutExpired:
            self.reason = self.reason or f"no end within {self.guest.timeout} s, killed"
            self.kill()
        self.ended = time.monotonic()
        self.reader.join(timeout=10)
        return self._outcome()

    def kill(self) -> None:
        """End QEMU if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ended_well(self) -> bool:
        """After wait(): the script ended with success or asks to be skipped."""
        return self.status in (0, SKIP_STATUS) and (self.status == SKIP_STATUS or not self.reason)

    def abandon(self, grace: float = 0.0) -> None:
        """End QEMU if it still runs after `grace` seconds, since the case failed elsewhere: not this guest's fault."""
        try:
            self.process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            self.abandoned = True
            self.kill()

    def _outcome(self) -> Outcome:
        with open(self.console, "rb") as handle:
            text = handle.read(CONSOLE_BYTES_MAX).decode("utf-8", "replace")
        if self.status is None:
            said = EXIT_LINE.findall(text)
            self.status = int(said[-1]) if said else None
        if self.status is None:
            self.reason = self.reason or "the guest ended without an exit status (see console.log)"
        elif self.status == SETUP_STATUS:
            self.reason = self.reason or "the guest could not be set up (see console.log)"
        elif self.status not in (0, SKIP_STATUS):
            self.reason = self.reason or f"exit status {self.status}"
        self._unpack_files()
        return Outcome(self.status, self.reason, self.boot_seconds, self.ended - self.started, self.reports,
                       self._findings(text), self.directory, self.abandoned, self.hung_in_boot)

    def _findings(self, console: str) -> list[Finding]:
        """Bad lines of the console and of the full kernel log (the console lacks informational lines), each once."""
        dmesg = self.directory / "out/dmesg.txt"
        log = dmesg.read_text(encoding="utf-8", errors="replace") if dmesg.is_file() else ""
        found = scan(console.splitlines(), self.allow)
        known = {finding.text for finding in found}
        return found + [finding for finding in scan(log.splitlines(), self.allow) if finding.text not in known]

    def _unpack_files(self) -> None:
        """out.tar -> out/; the guest's files are not trusted to stay inside."""
        archive = self.directory / "out.tar"
        if archive.is_file() and archive.stat().st_size:
            with tarfile.open(archive, ignore_zeros=True) as tar:
                for member in tar:
                    if (member.isfile() or member.isdir()) and not re.search(r"^/|(^|/)\.\.(/|$)", member.name):
                        tar.extract(member, self.directory / "out", set_attrs=False)
        archive.unlink(missing_ok=True)

    def close(self, keep_disks: bool = False) -> None:
        """Release everything; the logs stay."""
        if self.boot_timer is not None:
            self.boot_timer.cancel()
        self.kill()
        for connection in self.sockets:
            connection.close()
        if self.qmp is not None:
            self.qmp.close()
        for name in ("ctl", "reply", "qmp"):
            self._socket_path(name).unlink(missing_ok=True)
        if not keep_disks:
            for path in [*self.directory.glob("*.img"), self.directory / "initramfs.cpio"]:
                path.unlink(missing_ok=True)


def kvm_works(kernel: Kernel, directory: Path) -> bool:
    """Trial for accel.choose(): does a guest get to its script and end under KVM?"""
    def trial(acceleration: str, seconds: int) -> bool:
        vm = Vm(Guest(timeout=seconds), kernel, directory, acceleration=acceleration, name="trial")
        try:
            vm.start()
            return vm.wait().status == 0
        except VmError:
            return False
        finally:
            vm.close()
    return accel.choose(trial) == "kvm"
