#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Processes that die or stand still at random moments under load (P2: nothing is lost, no full resync)."""

import signal
import time

from faultlib import ORDERED, SEED, Failure, FaultBench, call, case, eventually, main, mixed, trials

KILLS_PER_BENCH = 50
ORDERED_SERVER = "point_interval_s = 1"


def kill(bench, rng, victims):
    time.sleep(rng.uniform(0.01, 0.7))  # the random moment is the test
    dead = [getattr(bench, v) for v in victims]
    for p in dead:
        p.kill()
    for p in dead:
        bench.start_agent() if p is bench.agent else bench.start_server()
    bench.moves_on()


def kill_while_continuous(rng, victims, count):
    """Half of the trials with the ordered writer, half with mixed writes, discards, failed and cancelled ones."""
    done = 0
    while done < count:
        ordered = done // KILLS_PER_BENCH % 2 == 0 if count > KILLS_PER_BENCH else done * 2 < count
        part = min(KILLS_PER_BENCH, count - done, count if count > KILLS_PER_BENCH else (count + 1) // 2)
        with FaultBench(ORDERED if ordered else mixed(rng.randrange(1000)), linked=False,
                        server=ORDERED_SERVER if ordered else "") as b:
            b.run()
            for _ in range(part):
                kill(b, rng, victims)
            b.end(f"after {part} kills of {'+'.join(victims)}")
        done += part
    return done


@case("kill -9 of the agent, continuous", "O1 O2 C1, no whole sync")
def agent_killed(rng):
    return kill_while_continuous(rng, ["agent"], trials(6))


@case("kill -9 of the server, continuous", "O1 O2 C1, no whole sync")
def server_killed(rng):
    return kill_while_continuous(rng, ["server"], trials(6))


@case("kill -9 of agent and server, continuous", "O1 O2 C1, no whole sync")
def both_killed(rng):
    return kill_while_continuous(rng, ["agent", "server"], trials(6))


def kill_during_sync(rng, victims, count):
    """Each trial is a sync of its own: protect, kill while it runs, and it must end equal."""
    with FaultBench(mixed(rng.randrange(1000)), mib=24, linked=False, agent='bandwidth = "200mbit"') as b:
        b.start(protect=False)
        b.producer.ask("start")
        for _ in range(count):
            devices = [str(p) for p in b.paths]
            call(b.agent_socket, "protect", devices=devices)
            time.sleep(rng.uniform(0.01, 1.2))
            for v in victims:
                getattr(b, v).kill()
            for v in victims:
                b.start_agent() if v == "agent" else b.start_server()
            b.wait_state("CONTINUOUS", seconds=180)
            b.newest_mark = 0
            b.rest_equal("after a kill during the initial sync")
            call(b.agent_socket, "unprotect", devices=devices)
        b.producer.ask("stop")
    return count


@case("kill -9 of the agent, initial sync", "O1")
def agent_killed_in_sync(rng):
    return kill_during_sync(rng, ["agent"], trials(1))


@case("kill -9 of the server, initial sync", "O1")
def server_killed_in_sync(rng):
    return kill_during_sync(rng, ["server"], trials(1))


@case("kill -9 of agent and server, initial sync", "O1")
def both_killed_in_sync(rng):
    return kill_during_sync(rng, ["agent", "server"], trials(1))


@case("kill -9 of agent and server with a tiny ring that overflows", "O1 C1")
def killed_while_the_ring_overflows(rng):
    count = trials(3)
    load = {"seed": SEED % 1000, "depth": 4, "contents": "random", "block": 16384}
    with FaultBench(load, mib=32, linked=False, agent='ring = "1MiB"\nbandwidth = "400mbit"') as b:
        b.start()
        b.settled()
        b.producer.ask("start")
        eventually("the ring overflows", lambda: any(d["counters"]["overflows"] > 0 for d in b.status()["disks"]))
        for i in range(count):
            time.sleep(rng.uniform(0.01, 0.7))
            for p in [b.agent, b.server][i % 3 // 2:1 + (i % 3 + 1) // 2]:
                p.kill()
            if not b.server.alive:
                b.start_server()
            if not b.agent.alive:
                b.start_agent()
            eventually("a session", lambda: b.status()["connected"], 90)
        b.end_equal("after kills while the ring overflowed")
    return count


def stop_and_go(rng, victim, count, seconds):
    with FaultBench(ORDERED, linked=False, server=ORDERED_SERVER) as b:
        b.run()
        for _ in range(count):
            process = getattr(b, victim)
            process.child.send_signal(signal.SIGSTOP)
            time.sleep(rng.uniform(seconds / 2, seconds))
            process.child.send_signal(signal.SIGCONT)
            b.moves_on()
        b.end(f"after SIGSTOP of the {victim}")
    return count


def pause_seconds():
    """In long runs minutes, far longer than the silence after which a peer is given up (20 s)."""
    return 240 if trials(1) > 1 else 4


def pauses():
    """In long runs a pause lasts two or four minutes: one for twenty trials of the others."""
    return max(1, trials(1) // 20)


@case("SIGSTOP of the agent", "O1 O2 C1, no whole sync")
def agent_stopped(rng):
    return stop_and_go(rng, "agent", pauses(), pause_seconds())


@case("SIGSTOP of the server", "O1 O2 C1, no whole sync")
def server_stopped(rng):
    return stop_and_go(rng, "server", pauses(), pause_seconds())


@case("the source goes down (tracking lost) and comes back", "O1, a rescan, nothing assumed clean")
def source_goes_down(rng):
    count = trials(2)
    with FaultBench(mixed(rng.randrange(1000)), linked=False) as b:
        b.run()
        for _ in range(count):
            time.sleep(rng.uniform(0.05, 0.5))
            victims = rng.choice([[b.producer], [b.producer, b.agent], [b.producer, b.server]])
            for p in victims:
                p.kill()
            if b.agent.alive:
                b.agent.kill()
            with open(rng.choice(b.paths), "r+b") as f:  # somebody writes while nobody looks
                f.seek(rng.randrange(8 << 20))
                f.write(rng.randbytes(50000))
            b.producer.start()
            if not b.server.alive:
                b.start_server()
            b.start_agent()
            b.producer.ask("start")
            b.wait_state("CONTINUOUS", seconds=180)
            b.rest_equal("after the source came back")
        b.producer.ask("stop")
        if b.whole_syncs() - b.whole < count:
            raise Failure("a source that came back was assumed clean")
    return count


if __name__ == "__main__":
    main()
