#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The server's disk: full, damaged, files lost. Damage is told, never applied, and the replica comes back by itself."""

import os
import subprocess
import time
from pathlib import Path

from faultlib import ORDERED, Failure, FaultBench, Refused, call, case, eventually, main, mixed, trials


class Volume:
    """A small file system of its own for the store, on a loop device."""

    def __init__(self, folder, mib):
        self.image, self.mount = Path(folder) / "volume.img", Path(folder) / "store"
        with open(self.image, "wb") as f:
            f.truncate(mib << 20)
        self.mount.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(self.image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount)], check=True)

    def fill(self, leave_bytes):
        """Leaves about that many bytes free."""
        for _ in range(50):
            stat = os.statvfs(self.mount)
            size = stat.f_bavail * stat.f_frsize - leave_bytes
            done = subprocess.run(["fallocate", "-l", str(size), str(self.mount / "ballast")], check=False,
                                  stderr=subprocess.DEVNULL) if size > 0 else None
            if done is None or done.returncode == 0:
                return
            self.free()  # the server took some of it meanwhile
        raise Failure("the volume cannot be filled")

    def free(self):
        (self.mount / "ballast").unlink(missing_ok=True)

    def close(self):
        for _ in range(100):
            if subprocess.run(["umount", str(self.mount)], check=False, stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", str(self.mount)], check=False)


def says_full(bench):
    """A write that failed ("no space left"), or one that was not tried ("too little free space")."""
    return "space" in bench.status()["cause"].lower()


@case("server disk full and freed again", "O1 C1; held with its cause, no point damaged")
def disk_full(rng):
    count = trials(2)
    b = FaultBench(mixed(rng.randrange(1000)), linked=False)
    volume = Volume(b.dir, 400)
    try:
        with b:
            b.run()
            for _ in range(count):
                volume.fill(rng.randrange(0, 4 << 20))
                eventually("the source says that the server's disk is full", lambda: says_full(b), 90)
                time.sleep(rng.uniform(0.1, 1))
                volume.free()
                b.moves_on(120)
            b.end("after a full disk of the server", whole_allowed=False)
            b.points_good()
    finally:
        volume.close()
    return count


#: Below the reserve of the volume (a tenth of it), and enough for what is on its way: the server holds the source, nothing fails.
HELD_FREE = 24 << 20
#: Longer than anything may wait for a peer that is silent, and than the time for which the agent's socket used to try.
HELD_S = 26


@case("server disk full for longer than a peer may be silent", "O1 C1; the same connection all along, no session is begun anew")
def held_long(rng):
    count = trials(1)
    b = FaultBench(mixed(rng.randrange(1000)), linked=False)  # fills what lies between: the window is shut
    volume = Volume(b.dir, 400)
    try:
        with b:
            b.run()
            sessions = b.status()["counters"]["sessions"]
            for _ in range(count):
                volume.fill(HELD_FREE)
                eventually("the source says that the server's disk is full", lambda: says_full(b), 90)
                until = time.monotonic() + HELD_S * rng.uniform(1, 1.3)
                while time.monotonic() < until:
                    status = b.status()
                    if not status["connected"] or status["counters"]["sessions"] != sessions:
                        raise Failure(f"the connection was given up while the server held the source: {status['cause']}")
                    time.sleep(0.5)
                if not says_full(b):
                    raise Failure(f"the cause was forgotten: {b.status()['cause']!r}")
                volume.free()
                b.moves_on(120)
                if b.status()["counters"]["sessions"] != sessions:
                    raise Failure("a new session was begun when the disk was freed")
            b.end("after a disk that was full for long")
    finally:
        volume.close()
    return count


@case("half-open connection while the server holds the source", "O1 O2 C1; noticed within 30 s")
def held_and_silent(rng):
    count = trials(1)
    b = FaultBench(ORDERED, server="point_interval_s = 1")
    volume = Volume(b.dir, 400)
    try:
        with b:
            b.run()
            for _ in range(count):
                volume.fill(HELD_FREE)
                eventually("the source says that the server's disk is full", lambda: says_full(b), 90)
                # The window is shut and stays shut, and now nobody is behind it any more.
                b.link.stall()
                began = time.monotonic()
                eventually("the agent notices the dead peer", lambda: not b.status()["connected"], 60)
                if time.monotonic() - began > 30:
                    raise Failure(f"a dead peer was noticed after {time.monotonic() - began:.0f} s only")
                b.link.flow()
                b.link.cut()
                volume.free()
                b.moves_on(120)
            b.end("after a silent link and a full disk")
    finally:
        volume.close()
    return count


def segments(bench):
    return sorted((bench.dir / "store" / "sources" / bench.source / "journal").glob("*.seg"))


def turn_bit(path, at, bit=0):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ (1 << bit)]))


def damage_journal(rng, count, damage):
    """Server killed under load, its journal damaged: nothing of it may be applied; replica and source end equal."""
    with FaultBench(mixed(rng.randrange(1000)), linked=False) as b:
        b.run()
        for i in range(count):
            eventually("a recovery point", lambda: b.mark(name=f"before-{i}"), 120)
            time.sleep(rng.uniform(0.1, 0.6))
            b.server.kill()
            damage(b)
            b.start_server()
            b.newest_mark = 0  # what was behind the damage is gone: the mark may go back, and the replica says so
            b.wait_state("CONTINUOUS", seconds=240)
        b.end_equal("after damage to the journal")
        b.points_good()
    return count


def used_bytes(segment):
    """Bytes of a segment up to its last byte that is not zero."""
    data = segment.read_bytes().rstrip(b"\0")
    return len(data)


@case("a bit of the journal turned over", "O1; named in the log, never applied")
def journal_bit(rng):
    def damage(b):
        segment = segments(b)[-1]
        turn_bit(segment, rng.randrange(4096, max(4097, used_bytes(segment))), rng.randrange(8))
    return damage_journal(rng, trials(3), damage)


@case("a segment header damaged", "O1; named in the log, never applied")
def journal_header(rng):
    def damage(b):
        turn_bit(rng.choice(segments(b)), rng.randrange(0, 68))
    return damage_journal(rng, trials(1), damage)


@case("a journal segment cut short", "O1; named in the log, never applied")
def journal_truncated(rng):
    def damage(b):
        segment = segments(b)[-1]
        os.truncate(segment, rng.randrange(4096, max(4097, used_bytes(segment))))
    return damage_journal(rng, trials(2), damage)


@case("a journal segment lost", "O1; named in the log, never applied")
def journal_lost(rng):
    def damage(b):
        rng.choice(segments(b)).unlink()
    return damage_journal(rng, trials(1), damage)


@case("catalogue lost or overwritten", "points are all there again; O1")
def catalogue(rng):
    count = trials(2)
    with FaultBench(ORDERED, linked=False) as b:
        b.run()
        for i in range(count):
            b.mark(name=f"kept-{i}")
            before = sorted(p["point"] for p in b.points())
            b.server.kill()
            for path in (b.dir / "store").glob("catalogue.sqlite*"):
                path.unlink() if i % 2 == 0 else path.write_bytes(rng.randbytes(5000))
            b.start_server()
            b.moves_on()
            if sorted(p["point"] for p in b.points() if p["point"] in before) != before:
                raise Failure(f"points lost with the catalogue: {before} before, {b.points()} after")
        b.end("after a lost catalogue")
    return count


def verify_point(bench, point):
    return call(bench.server_socket, "verify_point", source=bench.source, point=point, seconds=300)


@case("bit rot in a chunk file", "verification of points and source names it; the source repairs what is current")
def chunk_rot(rng):
    count = trials(2)
    with FaultBench(mixed(rng.randrange(1000)), linked=False) as b:
        b.run()
        b.producer.ask("stop")
        b.settled()
        for i in range(count):
            b.mark(name=f"rot-{i}")
            for point in b.points():
                verify_point(b, point["point"])  # the first time it notes the digests
            b.server.stop()
            chunk = rng.choice([p for p in (b.dir / "store/sources" / b.source / "disks").rglob("*")
                                if p.is_file() and p.stat().st_size > 0])
            turn_bit(chunk, rng.randrange(chunk.stat().st_size), rng.randrange(8))
            b.start_server()
            eventually("a session", lambda: b.status()["connected"], 60)
            bad = [p["point"] for p in b.points() if not verify_point(b, p["point"])["equal"]]
            source = call(b.agent_socket, "verify_source", seconds=180)
            if not bad and source["equal"]:
                raise Failure(f"a turned bit in {chunk.name} was seen by nobody")
            b.settled(seconds=180)
            b.check_equal("after bit rot and verification")
            for point in bad:
                call(b.server_socket, "point_delete", source=b.source, point=point)
    return count


@case("bit rot in a manifest", "verify tells it or it is written anew; other points and replication go on")
def manifest_rot(rng):
    count = trials(2)
    with FaultBench(ORDERED, linked=False) as b:
        b.run()
        for i in range(count):
            point = b.mark(name=f"manifest-{i}")["point"]
            b.server.kill() if i % 2 else b.server.stop()
            path = b.dir / "store/sources" / b.source / "points" / f"{point}.json"
            good = path.read_bytes()
            turn_bit(path, rng.randrange(len(good)), rng.randrange(8))
            b.start_server()
            b.moves_on()
            if path.read_bytes() != good:  # not restored from the checkpoint
                try:
                    said = verify_point(b, point)
                except Refused:
                    pass  # refused by its name: as good
                else:
                    if said["manifest"] != "bad" and said["equal"]:
                        raise Failure(f"a damaged manifest passed: {said}")
                path.write_bytes(good)
                b.server.stop()
                b.start_server()
                b.moves_on()
            if not verify_point(b, point)["equal"]:
                raise Failure(f"point {point} is not good with its manifest restored")
        b.end("after damaged manifests")
    return count


if __name__ == "__main__":
    main()
