#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of agent, server and both at random moments: nothing is lost, nothing is synced as a whole again."""

import os
import random
import time

from harness import Bench, Failure, eventually, main

ROUNDS = int(os.environ.get("BLKFERRY_E2E_KILLS", "8"))
SEED = int(os.environ.get("BLKFERRY_E2E_SEED", "0")) or random.randrange(1 << 32)


def whole_syncs(bench):
    return bench.agent.text().count("event=epoch_begin kind=initial") + \
        bench.agent.text().count("event=epoch_begin kind=rescan")


def kill_in_a_loop(victims, during_sync):
    rng = random.Random(SEED)
    print(f"     seed {SEED} ({ROUNDS} rounds)")
    with Bench(disks=2, mib=32, producer={"seed": SEED % 1000, "depth": 4, "sizes": "mixed", "contents": "mixed",
                                          "discard": 2, "zeroes": 2, "cancel": 3, "rate": 600},
               agent='batch_interval_ms = 50\n' + ('bandwidth = "160mbit"' if during_sync else "")) as b:
        b.start()
        b.producer.ask("start")
        if not during_sync:
            b.wait_state("CONTINUOUS")
        syncs = whole_syncs(b)
        for _ in range(ROUNDS):
            time.sleep(rng.uniform(0.02, 0.8))  # the random moment is the test
            dead = [getattr(b, v) for v in victims]
            for p in dead:
                p.kill()
            for p in dead:
                b.start_agent() if p is b.agent else b.start_server()
            mark = b.status()["durable_mark"]
            eventually("a session", lambda: b.status()["connected"], 60)
            if not during_sync:
                eventually("the durable mark moves on", lambda: b.status()["durable_mark"] > mark, 60)
        b.wait_state("CONTINUOUS", seconds=180)
        b.producer.ask("stop")
        b.settled()
        b.check_equal(f"after {ROUNDS} kills of {'+'.join(victims)} (seed {SEED})")
        if not during_sync and whole_syncs(b) != syncs:
            raise Failure("a kill led to a sync of a whole disk")


def agent_killed_while_continuous():
    kill_in_a_loop(["agent"], False)


def server_killed_while_continuous():
    kill_in_a_loop(["server"], False)


def both_killed_while_continuous():
    kill_in_a_loop(["agent", "server"], False)


def agent_killed_during_initial_sync():
    kill_in_a_loop(["agent"], True)


def server_killed_during_initial_sync():
    kill_in_a_loop(["server"], True)


main([agent_killed_while_continuous, server_killed_while_continuous, both_killed_while_continuous,
      agent_killed_during_initial_sync, server_killed_during_initial_sync])
