# SPDX-License-Identifier: Apache-2.0
"""What the fault cases share: a bench behind a faulty link, oracles, and the table of what was tried.

Oracles, by the names of the reliability contract:
    O1  writers stopped: each disk of a new recovery point equals the source, bit for bit
    O2  the ordered writer (n to disk A, then n to disk B): in every recovery point B <= A <= B + 1, and A never goes back
    C1  the durable mark that the agent was told never goes back
"""

import json
import os
import random
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

from harness import BUILD, Bench, Failure, Refused, call, eventually, free_port  # noqa: E402
from link import Link  # noqa: E402

SEED = int(os.environ.get("BLKFERRY_FAULT_SEED", "0")) or random.randrange(1 << 32)
#: Trials of a case are multiplied by this: 1 is the slice of `make test`.
SCALE = float(os.environ.get("BLKFERRY_FAULT_SCALE", "1"))

#: Writes per second of a load, times this: less on a machine that is busy with other things, where the agent would only see gaps.
LOAD = float(os.environ.get("BLKFERRY_FAULT_LOAD", "1"))

ORDERED = {"pattern": "ordered", "rate": max(20, int(1000 * LOAD))}


def mixed(seed):
    return {"seed": seed % 1000, "depth": 4, "sizes": "mixed", "contents": "mixed", "discard": 2, "zeroes": 2, "cancel": 3,
            "fail": 1, "rate": max(20, int(600 * LOAD))}


def trials(slice_count):
    return max(1, int(slice_count * SCALE))


class FaultBench(Bench):
    """A bench whose agent reaches the server through a link, with the oracles."""

    def __init__(self, workload, disks=2, mib=16, agent="", server="", linked=True):
        super().__init__(disks=disks, mib=mib, producer=workload, agent="batch_interval_ms = 20\n" + agent, server=server)
        self.ordered = workload.get("pattern") == "ordered"
        self.link = Link(free_port(), self.port) if linked else None
        if self.link:
            self.write_agent(port=self.link.listen_port)
        self.newest_mark = 0
        self.points_checked = 0
        self.whole = 0

    def write_server(self):
        super().write_server()
        if "point_interval_s" in self.server_extra:
            path = self.dir / "server.toml"
            path.write_text(path.read_text().replace("point_interval_s = 0\n", "", 1))

    def __enter__(self):
        if self.link:
            self.link.__enter__()
        return super().__enter__()

    def __exit__(self, *what):
        super().__exit__(*what)
        if self.link:
            self.link.__exit__(*what)

    def run(self):
        """Up to CONTINUOUS under load."""
        self.start()
        self.producer.ask("start")
        self.wait_state("CONTINUOUS", seconds=180)
        self.whole = self.whole_syncs()
        return self

    def whole_syncs(self):
        text = self.agent.text()
        return text.count("event=epoch_begin kind=initial") + text.count("event=epoch_begin kind=rescan")

    def durable_mark(self):
        """C1: what was acknowledged stays."""
        mark = self.status()["durable_mark"]
        if mark and mark < self.newest_mark:
            raise Failure(f"the durable mark went back from {self.newest_mark} to {mark}")
        self.newest_mark = max(self.newest_mark, mark)
        return mark

    def moves_on(self, seconds=90):
        """A session lives and marks become durable again. After a restart the agent knows no mark until WELCOME."""
        eventually("a session", lambda: self.status()["connected"], seconds)
        before = self.durable_mark()
        eventually("the durable mark moves on", lambda: self.durable_mark() > before, seconds)

    def end_equal(self, what, seconds=300):
        """O1: stops the writers, waits until nothing is left to ship and compares every disk with a new point."""
        self.producer.ask("stop")
        self.settled(seconds=seconds)
        self.check_equal(what)

    def rest_equal(self, what, seconds=300):
        """end_equal(), and the writers go on."""
        self.end_equal(what, seconds)
        self.producer.ask("start")

    def points_good(self):
        """Every recovery point verifies: manifest, and all content by its digests."""
        for point in self.points():
            if not call(self.server_socket, "verify_point", source=self.source, point=point["point"], seconds=300)["equal"]:
                raise Failure(f"point {point['point']} is damaged")

    def end(self, what, whole_allowed=False):
        """Stops the writers and checks everything."""
        self.wait_state("CONTINUOUS", seconds=300)
        self.end_equal(what)
        if self.ordered:
            self.check_order()
        if not whole_allowed and self.whole_syncs() != self.whole:
            raise Failure(f"{what}: a whole disk was synced again")

    def points(self):
        return call(self.server_socket, "points", source=self.source)["points"]

    def check_order(self):
        """O2 in every recovery point that the server has."""
        slots = self.slots()
        before = 0
        for point in sorted(self.points(), key=lambda p: p["mark"]):
            a, b = (self.number(point["point"], slots[str(path)]) for path in self.paths[:2])
            if not b <= a <= b + 1 or a < before:
                raise Failure(f"point {point['point']}: disk A holds {a}, disk B {b}, the point before had {before}")
            before = a
            self.points_checked += 1

    def number(self, point, slot):
        image = self.export(point, slot)
        record = image.read_bytes()[:4096]
        image.unlink()
        numbers = set(struct.unpack("<512Q", record))
        if len(numbers) != 1:
            raise Failure(f"point {point}: a torn record: {sorted(numbers)[:4]}")
        return numbers.pop()

    def server_says(self, text, seconds=60):
        """The server's log tells it."""
        eventually(f"the server logs {text!r}", lambda: text in self.server.text(), seconds)

    def source_status(self):
        for s in call(self.server_socket, "status")["sources"]:
            if s["source"] == self.source:
                return s
        raise Failure("the server does not know the source")


class Table:
    """What was tried, for docs/RELIABILITY.md: one row a fault, kept in build/faults.json over runs of several cases."""

    def __init__(self, path=BUILD / "faults.json"):
        self.path = Path(path)
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else {}

    def add(self, fault, checked, count, seconds, losses):
        self.rows[fault] = {"trials": count, "checked": checked, "seconds": round(seconds, 1), "losses": losses, "seed": SEED}
        self.path.write_text(json.dumps(self.rows, indent=1, sort_keys=True) + "\n")


CASES = []


def case(fault, checked):
    """Registers a case: a function that takes a random generator and returns how many trials it made."""
    def register(function):
        CASES.append((function.__name__, fault, checked, function))
        return function
    return register


def main():
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
    if "--list" in sys.argv:
        for name, fault, checked, _ in CASES:
            print(f"{name:36} {fault} [{checked}]")
        return
    unknown = set(wanted) - {name for name, *_ in CASES}
    if unknown:
        sys.exit(f"no such case: {' '.join(sorted(unknown))}; --list shows all")
    table = Table()
    failed = 0
    for name, fault, checked, function in CASES:
        if wanted and name not in wanted:
            continue
        began = time.monotonic()
        try:
            count = function(random.Random(f"{SEED}/{name}"))
            seconds = time.monotonic() - began
            table.add(fault, checked, count, seconds, 0)
            print(f"ok   {name}: {count} trials ({seconds:.1f} s)", flush=True)
        except (Failure, Refused, OSError) as e:
            failed += 1
            seconds = time.monotonic() - began
            table.add(fault, checked, 0, seconds, 1)
            print(f"FAIL {name} ({seconds:.1f} s): {e}\n     again: BLKFERRY_FAULT_SEED={SEED} BLKFERRY_FAULT_SCALE={SCALE:g} "
                  f"{sys.argv[0]} {name}", flush=True)
    sys.exit(1 if failed else 0)
