#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Without the module: real agent, real server, real loop devices of the kernel that runs the tests, tracked by eBPF programs.

Needs root, free loop devices and a kernel that takes the programs; else it is skipped.
"""

import mmap
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import (SKIP, Bench, Failure, Process, Refused, call, eventually, first_difference, main, program, sha256_of)

FILESYSTEMS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          **options).stdout


class LoopBench(Bench):
    """A source whose disks are loop devices over files."""

    def __init__(self, disks=1, mib=64, agent="", server="", tracker="ebpf", interval="1s"):
        super().__init__(disks=disks, mib=mib, agent=f'cycle_interval = "{interval}"\n{agent}', server=server, producer=False)
        self.devices, self.mounts = [], []
        if tracker:
            self.agent.command += ["--tracker", tracker]
        for path in self.paths:
            with open(path, "wb") as f:
                f.truncate(mib << 20)

    def __enter__(self):
        super().__enter__()
        try:
            for path in self.paths:
                self.devices.append(run("losetup", "--find", "--show", path).strip())
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.agent.kill()  # it holds the devices open, and may hold a file system frozen
        self.release()
        super().__exit__(kind, value, trace)

    def release(self):
        for where in reversed(self.mounts):
            subprocess.run(["umount", where], check=False)
        for device in self.devices:
            subprocess.run(["losetup", "-d", device], check=False)
        self.mounts, self.devices = [], []

    def start(self, protect=True):
        self.start_server()
        self.start_agent()
        if protect:
            call(self.agent_socket, "protect", devices=self.devices)
        return self

    def mount(self, disk, kind):
        run(*FILESYSTEMS[kind], self.devices[disk])
        where = self.dir / f"mnt{disk}"
        where.mkdir(exist_ok=True)
        run("mount", self.devices[disk], where)
        self.mounts.append(str(where))
        return where

    def write(self, disk, seed, count=200, what="direct"):
        """Random writes; returns when they are on the disk."""
        size = self.mib << 20
        engine = {"direct": "--direct=1 --ioengine=libaio --iodepth=16", "buffered": "--ioengine=psync --end_fsync=1"}[what]
        run("fio", "--name=w", f"--filename={self.devices[disk]}", f"--size={size}", "--rw=randwrite", "--bsrange=4k-64k",
            f"--number_ios={count}", "--randrepeat=0", f"--randseed={seed}", *engine.split())

    def image(self, disk):
        """What the device holds now."""
        os.sync()
        return sha256_of(self.paths[disk])

    def check_equal(self, what, point=None):
        """Writers must be stopped: the exported point is the device, bit for bit."""
        want = [self.image(i) for i in range(len(self.devices))]
        point = point or self.mark()
        slots = self.slots()
        for i, device in enumerate(self.devices):
            out = self.export(point["point"], slots[device])
            if sha256_of(out) != want[i]:
                raise Failure(f"{what}: {device} differs from point {point['point']}: {first_difference(self.paths[i], out)}")
            out.unlink()
        return point

    def in_step(self, seconds=120):
        def condition():
            s = self.status()
            self.note(s)
            return s if s["state"] in ("CONTINUOUS", "BACKLOG") else None
        return eventually("replication runs", condition, seconds)


def initial_sync_and_rounds():
    with LoopBench(disks=2) as b:
        b.write(0, 1)
        b.write(1, 2)
        b.start()
        b.settled()
        s = b.status()
        if s["capture"]["kind"] != "ebpf" or s["capture"]["any_mark"] or not s["capture"]["limits"]:
            raise Failure(f"status says about capture: {s['capture']}")
        if s["disks"][0]["memory_bytes"] < (b.mib << 20) // 4096 // 8 * 2:
            raise Failure(f"memory of the maps is {s['disks'][0]['memory_bytes']}")
        text = run(program("blkferry"), "status", "--socket", b.agent_socket)
        if "eBPF" not in text or "no recovery to any mark" not in text:
            raise Failure(f"blkferry status does not say what it cannot do: {text}")
        b.check_equal("after the initial sync")
        for i, what in enumerate(("direct", "buffered", "direct")):
            b.write(i % 2, 10 + i, what=what)
            b.check_equal(f"after {what} writes, round {i}")
        # Rounds come by themselves too, without anybody asking for a mark.
        epochs = b.status()["counters"]["epochs"]
        b.write(0, 50, count=5)
        eventually("a round by itself", lambda: b.status()["counters"]["epochs"] > epochs, 30)
        b.settled()
        run("blkdiscard", "-o", 8 << 20, "-l", 16 << 20, b.devices[0])
        run("blkdiscard", "-z", "-o", 1 << 20, "-l", 4 << 20, b.devices[1])
        b.check_equal("after discard and write zeroes")
        try:
            call(b.agent_socket, "verify_source", devices=[])
            raise Failure("a verification was begun that cannot be right")
        except Refused as e:
            if e.code != "unsupported":
                raise


def frozen_file_systems():
    """Writers never rest: only a frozen moment can be a mark, and it is a clean file system."""
    for kind in FILESYSTEMS:
        with LoopBench(disks=2, mib=320) as b:
            where = [b.mount(i, kind) for i in range(2)]
            b.start()
            b.in_step()
            stop = threading.Event()

            def writer(n):
                rng = random.Random(n)
                while not stop.is_set():
                    f = where[n % 2] / f"f{n}-{rng.randrange(20)}"
                    f.write_bytes(rng.randbytes(rng.randrange(1, 60000)))
                    if rng.random() < 0.3:
                        with open(f, "rb") as x:
                            os.fsync(x.fileno())
                    time.sleep(0.005)

            threads = [threading.Thread(target=writer, args=(n,)) for n in range(4)]
            for t in threads:
                t.start()
            try:
                points = [b.mark(fs=True) for _ in range(2)]
            finally:
                stop.set()
                for t in threads:
                    t.join()
            for point in points:
                if not point["fs"]:
                    raise Failure(f"the mark does not count as taken with file systems frozen: {point}")
                for device, slot in b.slots().items():
                    out = b.export(point["point"], slot)
                    if kind == "xfs":  # its freeze leaves a log to replay, on purpose
                        copy = b.dir / "copy"
                        copy.mkdir(exist_ok=True)
                        run("mount", "-o", "loop,nouuid", out, copy)
                        run("umount", copy)
                    # Nothing is left to replay: -n changes nothing and reports every flaw.
                    check = {"ext4": ["e2fsck", "-f", "-n"], "xfs": ["xfs_repair", "-n", "-f"]}[kind]
                    done = subprocess.run([*check, str(out)], capture_output=True, text=True, check=False)
                    if done.returncode != 0 or "recover" in done.stdout.lower():
                        raise Failure(f"{kind} of {device} in point {point['point']}: {done.stdout}{done.stderr}")
                    out.unlink()
            for w in where:  # thawed
                (w / "after").write_text("x")
            for w in b.mounts:
                run("umount", w)
            b.mounts = []
            b.check_equal(f"after {kind} was unmounted")


class Counter(threading.Thread):
    """Writes 0, 1, 2 ... one after the other, each into a block that follows from it, with pauses: the disk at any instant between two
    writes says by itself whether it is one."""

    BLOCK = 4096

    def __init__(self, device, mib):
        super().__init__()
        self.device, self.blocks, self.ended, self.n = device, (mib << 20) // self.BLOCK, threading.Event(), 0

    def place(self, n):
        return (n * 2654435761 >> 7) % self.blocks

    def run(self):
        rng = random.Random(5)
        fd = os.open(self.device, os.O_WRONLY | os.O_DIRECT)
        with mmap.mmap(-1, self.BLOCK) as buffer:
            while not self.ended.is_set():
                for _ in range(rng.randrange(1, 30)):
                    self.n += 1
                    buffer[:] = self.n.to_bytes(8, "little") * (self.BLOCK // 8)
                    os.pwrite(fd, buffer, self.place(self.n) * self.BLOCK)
                time.sleep(rng.random() * 0.15)
        os.close(fd)

    def check(self, image, what):
        words = [0] * self.blocks
        with open(image, "rb") as f:
            for b in range(self.blocks):
                block = f.read(self.BLOCK)
                words[b] = int.from_bytes(block[:8], "little")
                if block != block[:8] * (self.BLOCK // 8):
                    raise Failure(f"{what}: block {b} holds parts of two writes")
        newest = max(words)
        want = [0] * self.blocks
        for n in range(1, newest + 1):
            want[self.place(n)] = n
        wrong = [b for b in range(self.blocks) if want[b] != words[b]]
        if wrong:
            b = wrong[0]
            raise Failure(f"{what}: it is no instant: write {newest} is there, block {b} holds {words[b]}, not {want[b]} "
                          f"({len(wrong)} blocks)")
        return newest


def marks_of_a_written_disk_are_instants():
    with LoopBench(mib=16) as b:
        b.start()
        b.settled()
        writer = Counter(b.devices[0], b.mib)
        writer.start()
        good, seen = 0, set()
        end = time.monotonic() + 120
        try:
            while good < 12 and time.monotonic() < end:
                try:
                    point = b.mark()
                except Refused as e:
                    if "mark --fs" not in str(e) and "gap is open" not in str(e):
                        raise
                    continue
                out = b.export(point["point"], 0)
                seen.add(writer.check(out, f"point {point['point']}"))
                out.unlink()
                good += 1
        finally:
            writer.ended.set()
            writer.join()
        if good < 3 or len(seen) < 2:
            raise Failure(f"{good} marks were taken between {writer.n} writes, of {len(seen)} different moments")
        b.check_equal("after the writer ended")


def writes_race_with_rounds():
    with LoopBench(disks=2, mib=48, agent='batch_interval_ms = 20') as b:
        b.start()
        b.in_step()
        for turn in range(4):
            writers = [threading.Thread(target=b.write, args=(i, 100 * turn + i, 400, "direct")) for i in range(2)]
            for w in writers:
                w.start()
            while any(w.is_alive() for w in writers):
                try:
                    b.mark()
                except Refused:
                    pass  # written all the time
            for w in writers:
                w.join()
            b.check_equal(f"turn {turn}")


def killed_and_started_again():
    with LoopBench(disks=2) as b:
        b.write(0, 1)
        b.start()
        b.settled()
        b.check_equal("before")
        for turn, when in enumerate(("idle", "busy")):
            if when == "busy":
                writer = threading.Thread(target=b.write, args=(1, 77, 2000, "direct"))
                writer.start()
                eventually("rounds are under way", lambda: b.status()["disks"][1]["dirty_bytes"] > 0)
            b.agent.kill()
            if when == "busy":
                writer.join()
            b.write(0, 200 + turn)  # nobody looks
            b.write(1, 300 + turn, what="buffered")
            b.start_agent()
            eventually("all blocks are compared", lambda: b.agent.text().count("kind=rescan") >= 2 * (turn + 1), 60)
            b.settled()
            b.check_equal(f"after a kill, {when}")
            shipped = b.status()["counters"]["resync_shipped_bytes"]
            if when == "idle" and shipped > (b.mib << 20) // 2:
                raise Failure(f"the comparison shipped {shipped} bytes of two disks of {b.mib} MiB")
        b.server.kill()
        b.write(0, 400)
        b.start_server()
        b.settled()
        b.check_equal("after the server was killed")
        if b.agent.text().count("kind=rescan") != 4:
            raise Failure("the server's death made the agent compare everything")


def a_dying_agent_leaves_nothing_frozen():
    with LoopBench(mib=320, agent='bandwidth = "2mbit"') as b:
        where = b.mount(0, "ext4")
        b.start()
        b.in_step(300)
        frozen = threading.Event()

        def ask():
            try:
                b.mark(fs=True)
            except (Refused, OSError):
                pass

        asking = threading.Thread(target=ask)
        asking.start()
        # While they are frozen there is a child of the agent.
        children = Path(f"/proc/{b.agent.child.pid}/task/{b.agent.child.pid}/children")
        eventually("file systems are frozen", lambda: children.read_text().strip() or not asking.is_alive(), 60, interval=0.002)
        b.agent.kill()
        asking.join()
        began = time.monotonic()
        (where / "after").write_text("thawed")
        run("sync", "-f", where)
        if time.monotonic() - began > 5:
            raise Failure("the file system stood frozen after the agent's death")
        frozen.set()


def auto_falls_back_and_says_so():
    if Path("/sys/module/blkferry").exists():
        print("     (the module is loaded here)")
        return
    with LoopBench(tracker=None) as b:
        b.start()
        b.settled()
        c = b.status()["capture"]
        if c["kind"] != "ebpf" or "modprobe blkferry" not in c["reason"]:
            raise Failure(f"status says about capture: {c}")
        if "event=capture kind=ebpf" not in b.agent.text() or "warning" not in b.agent.text():
            raise Failure(f"the log is not loud about it: {b.agent.text()}")
    with LoopBench(tracker=None, agent='capture = "module"') as b:
        b.start_server()
        b.agent.start()
        if b.agent.child.wait(60) != 1 or "modprobe blkferry" not in b.agent.text():
            raise Failure(f"capture = \"module\" without it: {b.agent.text()}")


def a_kernel_that_refuses_gives_a_clear_error():
    """As a user without any capability: the kernel refuses the programs."""
    with LoopBench() as b:
        b.start_server()
        os.chmod(b.dir, 0o755)
        for f in b.dir.rglob("*"):
            os.chown(f, 65534, 65534)
        os.chown(b.dir, 65534, 65534)
        log = b.dir / "refused.log"
        with open(log, "wb") as out:
            status = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
                                     *b.agent.command], stderr=out, stdout=out, timeout=60, check=False).returncode
        said = log.read_text()
        if status != 1 or "eBPF tracking cannot begin" not in said or "CAP_BPF" not in said:
            raise Failure(f"status {status}, said: {said}")


def refused_devices():
    with LoopBench(mib=8) as b:
        b.start(protect=False)
        run("losetup", "-d", b.devices[0])
        b.devices = [run("losetup", "--find", "--show", "--read-only", b.paths[0]).strip()]
        try:
            call(b.agent_socket, "protect", devices=b.devices)
            raise Failure("a read-only disk was protected")
        except Refused as e:
            if "read-only" not in str(e):
                raise


def unavailable():
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return "needs root and loop devices"
    check = subprocess.run([program("blkferry-ebpf-check"), "--load-only"], capture_output=True, text=True, check=False)
    return check.stdout.strip() if check.returncode != 0 else ""


if __name__ == "__main__":
    if why := unavailable():
        print(f"SKIP: {why}")
        sys.exit(SKIP)
    main([initial_sync_and_rounds, frozen_file_systems, marks_of_a_written_disk_are_instants, writes_race_with_rounds,
          killed_and_started_again, a_dying_agent_leaves_nothing_frozen, auto_falls_back_and_says_so,
          a_kernel_that_refuses_gives_a_clear_error, refused_devices])
