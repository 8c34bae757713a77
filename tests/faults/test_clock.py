#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clocks that are set forward and back by hours and days, on either machine or on both, while the daemons run and while they do not.

The processes run under libfaketime, whose offset is read from a file again and again; only CLOCK_REALTIME is moved, as by settimeofday.
Order is by number and never by time, so nothing may be lost, deleted or called older or newer than it is.
"""

import os
import sys
import time
from pathlib import Path

from faultlib import ORDERED, Failure, FaultBench, call, case, eventually, main, trials

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
HOUR, DAY = 3600, 86400
POINTS_KEPT = 40
#: No write is older than this while the link is good: much on a busy machine, nothing beside an hour.
LAG_MS = 60_000


class Clock:
    """CLOCK_REALTIME of a machine: how many seconds it is off."""

    def __init__(self, folder, name):
        self.file = folder / f"clock-{name}"
        self.off = 0
        self.set(0)

    def set(self, off):
        self.off = off
        fresh = self.file.with_suffix(".new")  # replaced as a whole: it is read at any moment
        fresh.write_text(f"{off:+d}\n")
        fresh.replace(self.file)

    def environment(self):
        return {**os.environ, "LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}


class ClockBench(FaultBench):
    """A source and a server, each with a clock of its own."""

    def __init__(self):
        super().__init__(ORDERED, linked=False, server=f"point_interval_s = 1\npoints_keep = {POINTS_KEPT}",
                         agent='verify_interval = "6s"')
        self.source_clock, self.server_clock = Clock(self.dir, "source"), Clock(self.dir, "server")
        self.server.environment = self.server_clock.environment()
        self.agent.environment = self.producer.environment = self.source_clock.environment()
        self.kept = []

    def jump(self, rng, most=20 * DAY):
        """Both clocks stand somewhere else afterwards, at least one of them. Never far back: certificates begin an hour ago."""
        clocks = rng.choice([[self.source_clock], [self.server_clock], [self.source_clock, self.server_clock]])
        for clock in clocks:
            clock.set(rng.choice([rng.randrange(-HOUR + 100, -600), rng.randrange(600, 3 * HOUR), rng.randrange(DAY, most)]))
        return f"source {self.source_clock.off:+d} s, server {self.server_clock.off:+d} s"

    def sane(self, where):
        """Marks move on, lag is what it is by any clock that nobody sets, and no point went."""
        self.moves_on()
        # A server that was started anew has only the clocks to go by until the agent's first heartbeat.
        eventually("the agent told its lag", lambda: self.source_status()["lag_ms"] <= LAG_MS, 10)
        for _ in range(5):
            status, source = self.status(), self.source_status()
            if status["lag_ms"] > LAG_MS or source["lag_ms"] > LAG_MS:
                raise Failure(f"{where}: the agent's lag is {status['lag_ms']} ms, the server's {source['lag_ms']} ms")
            time.sleep(0.1)
        self.kept.append(eventually("a mark", lambda: self.mark(name=f"kept-{len(self.kept)}"), 60)["point"])
        names = {p["point"] for p in self.points()}
        if lost := [name for name in self.kept[-POINTS_KEPT:] if name not in names]:
            raise Failure(f"{where}: points that were asked for are gone: {lost}")
        newest = max(p["mark"] for p in self.points())
        eventually(f"{where}: scheduled points go on", lambda: max(p["mark"] for p in self.points()) > newest, 60)

    def end_all(self):
        self.end("after clocks were set")
        self.points_good()


@case("clocks set forward and back by up to 20 days, under load", "O1 O2 C1 C8; lag stays true, points stay, scheduled ones go on")
def jumps(rng):
    count = trials(6)
    with ClockBench() as b:
        b.run()
        for _ in range(count):
            b.sane(b.jump(rng))
        b.end_all()
    return count


@case("a clock set while writes wait", "C8: lag grows by the time that passes, no more and no less")
def jumps_while_paused(rng):
    count = trials(3)
    with ClockBench() as b:
        b.run()
        for i in range(count):
            call(b.agent_socket, "pause")
            began = time.monotonic()
            eventually("writes wait", lambda: b.status()["lag_ms"] >= 1500, 60)
            b.source_clock.set([DAY, -1800, HOUR][i % 3])
            for _ in range(8):
                least = time.monotonic() - began - 1.5  # the first write that waits came a little later
                lag = b.status()["lag_ms"]
                most = time.monotonic() - began + 2
                if not least * 1000 <= lag + 1000 or lag > most * 1000:
                    raise Failure(f"clock {b.source_clock.off:+d} s: lag is {lag} ms, {least:.1f} to {most:.1f} s passed")
                time.sleep(0.25)
            call(b.agent_socket, "resume")
            b.sane(f"after a pause, source {b.source_clock.off:+d} s")
        b.end_all()
    return count


@case("clocks set while a daemon is down", "O1 O2 C1; points stay, scheduled ones and verification go on")
def jumps_while_down(rng):
    count = trials(4)
    with ClockBench() as b:
        b.run()
        for i in range(count):
            victim = [b.server, b.agent][i % 2]
            victim.kill()
            where = b.jump(rng)
            b.start_server() if victim is b.server else b.start_agent()
            b.sane(where)
        b.end_all()
    return count


@case("the source's clock set back: scheduled verification", "goes on after its interval")
def verification_goes_on(rng):
    count = trials(1)
    with ClockBench() as b:
        b.source_clock.set(10 * DAY)
        b.run()
        for _ in range(count):
            ended = lambda: (b.status()["verify"].get("last") or {}).get("ended_ms", 0)  # noqa: E731
            first = eventually("a scheduled verification", ended, 90)
            b.source_clock.set(b.source_clock.off - rng.randrange(DAY, 2 * DAY))
            eventually("the next one", lambda: ended() not in (0, first), 90)
            last = b.status()["verify"]["last"]
            if last["differing_bytes"] or last.get("error"):  # a block that is written all the time may stay undecided
                raise Failure(f"verification found {last}")
        b.end_all()
    return count


if __name__ == "__main__":
    if not LIBRARIES:
        print("SKIP: libfaketime is not installed")
        sys.exit(77)
    main()
