#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Verification of source against replica: it finds exactly what differs, has it shipped again, and goes on after a restart."""

import random
import threading
import time

from harness import Bench, Failure, call, eventually, main

MIB = 1 << 20


def fill(bench):
    for i, path in enumerate(bench.paths):
        with open(path, "wb") as f:
            f.write(bytes((i * 7 + n * 13 + 1) % 256 for n in range(4096)) * (bench.mib * MIB // 4096))


def write_behind(path, offset, data):
    """Changes the source's disk so that capture does not see it."""
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def verify(bench, **members):
    return call(bench.agent_socket, "verify_source", seconds=180, **members)


def last_of(bench):
    return bench.status()["verify"].get("last")


def what_differs_is_named_and_repaired():
    with Bench(disks=2, mib=16) as b:
        fill(b)
        b.start()
        b.settled()
        # A block of 4 KiB on the source, one in the middle of nothing else, one of the other disk's last block.
        write_behind(b.paths[0], 5 * MIB + 8192, b"\xa5" * 512)
        write_behind(b.paths[1], 16 * MIB - 512, b"\x5a" * 512)
        shipped = b.status()["counters"]["resync_shipped_bytes"]
        if not 0 < shipped <= b.status()["counters"]["resync_bytes"]:
            raise Failure(f"counters after the initial sync: {b.status()['counters']}")
        answer = verify(b)
        want = {(str(b.paths[0]), 5 * MIB + 8192, 4096), (str(b.paths[1]), 16 * MIB - 4096, 4096)}
        got = {(r["device"], r["offset"], r["bytes"]) for r in answer["ranges"]}
        if answer["equal"] or got != want or answer["differing_bytes"] != 8192 or answer["compared_bytes"] != 32 * MIB:
            raise Failure(f"verification says {answer}, expected {want}")
        status = b.status()
        if status["counters"]["verify_differing_bytes"] != 8192:
            raise Failure(f"counters: {status['counters']}")
        last = status["verify"]["last"]
        if last["equal"] or last["differing_bytes"] != 8192 or status["verify"]["running"]:
            raise Failure(f"status says {status['verify']}")
        if f"event=differs offset={5 * MIB + 8192} bytes=4096" not in b.agent.text():
            raise Failure("the log does not name the range")
        b.settled()
        # Just these extents travelled again, and as data: two blocks, rounded to those of the dirty map.
        shipped = b.status()["counters"]["resync_shipped_bytes"] - shipped
        if not 8192 <= shipped <= 2 * 64 << 10:
            raise Failure(f"the repair of 8192 bytes shipped {shipped}")
        b.check_equal("after the repair")
        again = verify(b)
        if not again["equal"] or again["ranges"] or not last_of(b)["equal"]:
            raise Failure(f"after the repair: {again}")


def flipped_bytes_in_the_store_are_repaired():
    with Bench(disks=1, mib=16) as b:
        fill(b)
        b.start()
        b.settled()
        b.mark()  # the checkpoint: what is in the files now is not written by redo again
        b.server.stop()
        disk = b.dir / "store" / "sources" / b.source / "disks"
        chunks = sorted(p for p in disk.rglob("*") if p.is_file() and p.stat().st_size >= 4 * MIB)
        if not chunks:
            raise Failure(f"no chunk file in {disk}")
        before = chunks[0].read_bytes()
        with open(chunks[0], "r+b") as f:
            f.seek(MIB + 4096)
            f.write(bytes(x ^ 0xFF for x in before[MIB + 4096:MIB + 4100]))
        b.start_server()
        b.settled()
        answer = verify(b)
        if answer["equal"] or len(answer["ranges"]) != 1 or answer["ranges"][0]["bytes"] != 4096:
            raise Failure(f"four flipped bytes: {answer}")
        b.settled()
        if not verify(b)["equal"]:
            raise Failure("not repaired")
        b.check_equal("after the repair")


def an_interrupted_run_goes_on_where_it_was():
    with Bench(disks=1, mib=48, agent='verify_interval = "2s"\nverify_bandwidth = "32mbit"') as b:
        fill(b)
        b.start()

        def place():
            v = b.status()["verify"]
            return v["progress"]["done_bytes"] if v["running"] else 0
        eventually("a scheduled verification is far on", lambda: place() >= 24 * MIB, 120)
        before = place()
        if not b.status()["verify"]["scheduled"]:
            raise Failure("it was not begun by the schedule")
        b.agent.kill()
        write_behind(b.paths[0], 1 * MIB, b"\xa5" * 512)  # behind it: this run does not see it any more
        write_behind(b.paths[0], 46 * MIB, b"\xa5" * 512)  # before it
        b.start_agent()
        first = eventually("it goes on", place)
        # The place is stored every 5 s, and the bucket gives 4 MB in each of them.
        if first + 24 * MIB < before or first < 4 * MIB:
            raise Failure(f"it was at {before}, goes on at {first}")
        last = eventually("it ends", lambda: last_of(b), 120)
        if last["equal"] or last["differing_bytes"] != 4096 or last["compared_bytes"] != 48 * MIB:
            raise Failure(f"the run that was interrupted found {last}")
        ended = last["ended_ms"]
        second = eventually("the next one ends", lambda: (l := last_of(b)) and l["ended_ms"] != ended and l, 180)
        if second["differing_bytes"] != 4096:
            raise Failure(f"the next run found {second}")


def no_false_report_under_load():
    with Bench(disks=2, mib=24, producer={"seed": 11, "depth": 8, "sizes": "mixed", "contents": "mixed", "discard": 2,
                                          "zeroes": 2, "cancel": 3, "rate": 1200}) as b:
        b.start()
        b.settled()
        b.producer.ask("start")
        for _ in range(3):
            answer = verify(b)
            if answer["differing_bytes"] or answer["ranges"]:
                raise Failure(f"false report under load: {answer}")
        b.producer.ask("stop")
        b.settled()
        answer = verify(b)
        if not answer["equal"]:
            raise Failure(f"idle: {answer}")
        b.check_equal("after verifications under load")


def disk_read_bytes(bench):
    """What the agent read from disks, by the kernel's account; None where it is not told."""
    try:
        with open(f"/proc/{bench.agent.child.pid}/io", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("read_bytes:"))
    except (OSError, StopIteration):
        return None


def the_throttle_holds_on_disk_and_wire():
    rate = 4_000_000  # 32 Mbit/s
    with Bench(disks=2, mib=16, agent='verify_bandwidth = "32mbit"') as b:
        fill(b)
        b.start()
        b.settled()
        samples = []
        wire, read = b.status()["counters"]["wire_bytes"], disk_read_bytes(b)
        began = time.monotonic()
        runner = threading.Thread(target=lambda: samples.append(verify(b)))
        runner.start()
        places = []
        while runner.is_alive():
            v = b.status()["verify"]
            if v["running"]:
                places.append((time.monotonic(), v["progress"]["done_bytes"], disk_read_bytes(b)))
            time.sleep(0.05)
        runner.join()
        took = time.monotonic() - began
        answer = samples[0]
        if not answer["equal"] or answer["compared_bytes"] != 32 * MIB:
            raise Failure(f"verification says {answer}")
        # A second's worth may go at once; a read is a MiB.
        least = (32 * MIB - rate - 2 * MIB) / rate
        if took < least:
            raise Failure(f"32 MiB at {rate} bytes/s were read in {took:.1f} s, {least:.1f} s are the least")
        for column, name in ((1, "compared"), (2, "read from the disk")):
            rows = [(place[0], place[column]) for place in places if place[column] is not None]
            for i, (t, n) in enumerate(rows):
                for later, more in rows[i + 1:]:
                    if later - t >= 2 and more - n > rate * (later - t) + rate + 2 * MIB:
                        raise Failure(f"{name}: {more - n} bytes in {later - t:.2f} s at {rate} bytes/s")
        if read is not None and disk_read_bytes(b) - read < 32 * MIB:
            raise Failure(f"the kernel tells of {disk_read_bytes(b) - read} bytes read: the measurement means nothing")
        wire = b.status()["counters"]["wire_bytes"] - wire
        if wire > 32 * MIB // 100:
            raise Failure(f"comparing 32 MiB of equal disks sent {wire} bytes")


def many_scattered_blocks_are_named_and_just_they_are_shipped():
    with Bench(disks=2, mib=16) as b:
        fill(b)
        b.start()
        b.settled()
        rng = random.Random(4711)
        want = set()
        for i, path in enumerate(b.paths):
            for block in rng.sample(range(16 * MIB // 4096), 45):
                write_behind(path, block * 4096 + rng.randrange(4096 - 16), rng.randbytes(16))
                want.add((i, block))
        shipped = b.status()["counters"]["resync_shipped_bytes"]
        points = call(b.server_socket, "points", source=b.source)["points"]
        answer = verify(b)
        names = {str(path): i for i, path in enumerate(b.paths)}
        got = {(names[r["device"]], block) for r in answer["ranges"]
               for block in range(r["offset"] // 4096, (r["offset"] + r["bytes"]) // 4096)}
        if got != want or answer["differing_bytes"] != len(want) * 4096:
            raise Failure(f"{len(got - want)} blocks named that are equal, {len(want - got)} not named, of {len(want)}")
        b.settled()
        shipped = b.status()["counters"]["resync_shipped_bytes"] - shipped
        # Blocks of the dirty map may be larger than those of the hashes, up to 64 KiB.
        if not len(want) * 4096 <= shipped <= len(want) * 65536:
            raise Failure(f"the repair of {len(want)} blocks shipped {shipped} bytes")
        if not verify(b)["equal"]:
            raise Failure("not repaired")
        b.check_equal("after the repair of scattered blocks")
        for point in points:  # what was wrong when they were made stays as it was made
            call(b.server_socket, "verify_point", source=b.source, point=point["point"])


main([what_differs_is_named_and_repaired, flipped_bytes_in_the_store_are_repaired, an_interrupted_run_goes_on_where_it_was,
      no_false_report_under_load, the_throttle_holds_on_disk_and_wire,
      many_scattered_blocks_are_named_and_just_they_are_shipped])
