#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The bandwidth limit holds over any second, and changes without losing the connection."""

import os
import signal
import time

from harness import Bench, Failure, call, eventually, main

RATE = 5_000_000  # 40 Mbit/s in bytes


def wire_bytes(b):
    """Bytes that the agent put on the wire, and when the answer came."""
    s = b.status()
    return time.monotonic(), s["counters"]["wire_bytes"]


def measure(b, seconds):
    samples = [wire_bytes(b)]
    end = samples[0][0] + seconds
    while samples[-1][0] < end:
        time.sleep(0.05)
        samples.append(wire_bytes(b))
    return samples


def worst_second(samples):
    """Highest mean rate over any window of a second or slightly more."""
    worst = 0
    j = 0
    for i, (t, n) in enumerate(samples):
        j = max(j, i)
        while j < len(samples) and samples[j][0] - t < 1.0:
            j += 1
        if j == len(samples):
            break
        worst = max(worst, (samples[j][1] - n) / (samples[j][0] - t))
    return worst


def holds(b, rate):
    """Never more than 3 % above the limit in any second; and the limit is reached. A machine that is busy with other things
    may keep the agent from the processor for a while, so one of several windows has to reach it."""
    means = []
    for _ in range(6):
        samples = measure(b, 2)
        worst = worst_second(samples)
        means.append((samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0]))
        if worst > rate * 1.03:
            raise Failure(f"limit {rate} bytes/s: {worst:.0f} in the worst second")
        if means[-1] >= rate * 0.97:
            return
    raise Failure(f"limit {rate} bytes/s was not reached: {[round(m) for m in means]}")


def limit_within_three_percent():
    with Bench(disks=1, mib=256, agent='bandwidth = "40mbit"\ncompression = "none"') as b:
        os.truncate(b.paths[0], 0) if b.paths[0].exists() else None
        with open(b.paths[0], "wb") as f:
            f.write(os.urandom(256 << 20))
        b.start()
        sessions = eventually("a session", lambda: b.status()["counters"]["sessions"], 30)
        first = wire_bytes(b)[1]
        eventually("the limit is reached", lambda: wire_bytes(b)[1] - first > 2 * RATE, 30)
        holds(b, RATE)
        toml = b.dir / "agent.toml"
        toml.write_text(toml.read_text().replace("40mbit", "80mbit"))
        b.agent.child.send_signal(signal.SIGHUP)
        eventually("the new limit", lambda: b.status()["throttle"]["rate_bytes"] == 2 * RATE, 20)
        holds(b, 2 * RATE)
        call(b.agent_socket, "throttle", rate_bytes=0)
        b.settled()
        if b.status()["counters"]["sessions"] != sessions:
            raise Failure("the connection was lost when the limit changed")
        b.check_equal("after throttling")


main([limit_within_three_percent])
