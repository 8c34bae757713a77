#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Links that are cut, stalled, slow or that turn bits over."""

import time

from faultlib import ORDERED, Failure, FaultBench, case, eventually, main, mixed, trials

POINTS = "point_interval_s = 1"


def with_link(rng, count, fault, load=None, **bench):
    """`count` times: `fault(bench)`, then the session must be back and marks move on."""
    with FaultBench(load or ORDERED, server=POINTS, **bench) as b:
        b.run()
        for _ in range(count):
            fault(b)
        b.moves_on()
        b.end("after the faults of the link")
    return count


@case("connection reset at a random byte", "O1 O2 C1, no whole sync")
def reset_at_a_byte(rng):
    def fault(b):
        before = b.link.connections
        b.link.cut_after = rng.randrange(1, 200_000) if rng.random() < 0.8 else rng.randrange(1, 4000)
        b.link.cut()
        eventually("the reset", lambda: b.link.connections > before and b.link.cut_after is None, 90)
        eventually("a session", lambda: b.status()["connected"], 90)
    return with_link(rng, trials(4), fault)


@case("flapping link: resets faster than a handshake", "O1 O2 C1, no whole sync")
def flapping(rng):
    def fault(b):
        until = time.monotonic() + 1
        while time.monotonic() < until:
            b.link.cut()
            time.sleep(rng.uniform(0.01, 0.1))
        b.moves_on()
    return with_link(rng, trials(2), fault, mixed(rng.randrange(1000)))


@case("half-open connection: the link falls silent and tells nobody", "O1 O2 C1; noticed within 30 s")
def half_open(rng):
    def fault(b):
        before = b.link.connections
        b.link.stall_after = 1 << 40
        b.link.stall()
        began = time.monotonic()
        # The agent must give the dead connection up by itself and connect anew.
        eventually("the agent notices the dead peer", lambda: not b.status()["connected"] or b.link.connections > before, 60)
        if time.monotonic() - began > 35:
            raise Failure(f"a dead peer was noticed after {time.monotonic() - began:.0f} s only")
        b.link.flow()
        b.link.cut()
        b.moves_on()
    return with_link(rng, trials(1), fault)


@case("MTU black hole: small packets pass, the stream stops at some byte", "O1 O2 C1")
def black_hole(rng):
    def fault(b):
        before = b.link.connections
        b.link.stall_after = rng.randrange(20_000, 300_000)
        b.link.cut()
        eventually("the next connection", lambda: b.link.connections > before, 60)
        eventually("the one after the silence", lambda: b.link.connections > before + 1, 90)
        b.moves_on()
    return with_link(rng, trials(1), fault, mixed(rng.randrange(1000)))


@case("a bit of the stream is turned over", "O1 O2 C1; nothing applied, connection ended")
def flipped_bit(rng):
    def fault(b):
        before, flips = b.link.connections, b.link.flips
        b.link.flip_after = rng.randrange(100, 200_000)
        b.link.cut()
        eventually("the flip", lambda: b.link.flips > flips, 90)
        eventually("a new connection after it", lambda: b.link.connections > before + 1, 90)
        eventually("a session", lambda: b.status()["connected"], 90)
    return with_link(rng, trials(4), fault)


@case("the server's port refuses connections for a while", "O1 O2 C1, no whole sync")
def refused(rng):
    def fault(b):
        before = b.link.connections
        b.link.refuse = True
        b.link.cut()
        eventually("two refused attempts", lambda: b.link.connections > before + 1, 60)
        b.link.refuse = False
        b.moves_on()
    return with_link(rng, trials(2), fault)


@case("delay of 0 - 300 ms each way", "O1 O2 C1, marks move on")
def delayed(rng):
    def fault(b):
        b.link.delay = rng.uniform(0.02, 0.3)
        for _ in range(3):
            b.moves_on()
        b.link.delay = 0.0
    return with_link(rng, trials(1), fault)


@case("64 kbit/s link under more load than it takes", "O1; backlog drains when the link is back")
def slow_link(rng):
    def fault(b):
        b.link.rate = 8000
        time.sleep(3)
        status = b.status()
        if status["backlog_bytes"] == 0:
            raise Failure("no backlog on a link of 64 kbit/s under load")
        b.link.rate = 0
        b.moves_on()
    return with_link(rng, trials(1), fault, mixed(rng.randrange(1000)))


if __name__ == "__main__":
    main()
