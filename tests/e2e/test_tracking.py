#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The module breaks its promises, a disk grows, or the server's first address is dead: the agent notices, and ends equal."""

import socket

from harness import Bench, Failure, eventually, main


def lost_write(b, disk, offset, data):
    """Reaches the disk and no ring."""
    with open(b.paths[disk], "r+b") as f:
        f.seek(offset)
        f.write(data)


def broken(how, attached):
    with Bench(disks=2, mib=16, producer={"seed": 11, "rate": 400}) as b:
        b.start()
        b.producer.ask("start")
        b.wait_state("CONTINUOUS")
        b.producer.ask("stop")
        b.settled()
        lost_write(b, 0, 3 << 20, b"lost" * 5000)
        lost_write(b, 1, 5 << 20, b"lost too" * 3000)
        b.producer.ask(f"spoil {how}")
        b.producer.ask("write 0 16 8 7")  # shows the hole
        eventually("tracking is given up", lambda: "event=tracking_lost" in b.agent.text(), 60)
        eventually("both disks are compared with the replica", lambda: b.agent.text().count("kind=rescan") >= 2, 60)
        b.settled()
        b.check_equal(f"after {how}")
        if b.agent.text().count("event=attached") != attached:
            raise Failure(f"the disks were attached {b.agent.text().count('event=attached')} times, not {attached}")
        # What is captured from now on counts again, without another rescan.
        epochs = b.agent.text().count("event=epoch_begin")
        b.producer.ask("start")
        b.wait_state("CONTINUOUS")
        b.producer.ask("stop")
        b.settled()
        b.check_equal(f"long after {how}")
        if b.agent.text().count("kind=rescan") > epochs or not b.agent.alive:
            raise Failure("tracking never comes to rest")


def garbage_in_a_descriptor():
    broken("garbage", attached=4)  # a ring that lies is thrown away: both disks are attached anew


def a_number_that_is_in_no_ring():
    broken("hole", attached=2)  # the rings are sound


def the_first_address_is_dead():
    with Bench(disks=1, mib=8) as b, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets it
        b.write_agent(servers=[f"127.0.0.1:{dead.getsockname()[1]}", f"127.0.0.1:{b.port}"])
        b.start()
        b.settled()
        b.check_equal("over the second address")
        # Also after the server was away.
        b.server.kill()
        eventually("the agent notices", lambda: b.status()["state"] == "DISCONNECTED", 60)
        b.producer.ask("write 0 64 8 9")
        b.start_server()
        b.settled()
        b.check_equal("over the second address again")


def a_gap_shows_at_once():
    """Who asks right after the write that opened a gap is not told that all is well."""
    with Bench(disks=1, mib=16, agent='ring = "1MiB"\nbandwidth = "200kbit"') as b:
        b.start()
        b.settled()
        for i in range(5):
            b.producer.ask(f"write 0 {i * 4096} 4096 {i + 1}")  # larger than the ring
            state = b.status()["state"]
            if state == "CONTINUOUS":
                raise Failure(f"CONTINUOUS while a gap of 2 MiB is open (write {i})")
            b.settled(seconds=180)
        b.check_equal("after gaps")


def grown(b, disk, mib):
    eventually(f"disk {disk} has {mib} MiB", lambda: b.status()["disks"][disk]["size_bytes"] == mib << 20, 60)


def a_disk_that_grows_is_replicated_whole():
    with Bench(disks=2, mib=16, producer={"seed": 12, "depth": 4, "sizes": "mixed", "contents": "mixed", "rate": 300}) as b:
        b.start()
        b.settled()
        b.producer.ask("start")
        eventually("load is captured", lambda: b.status()["counters"]["captured_bytes"] > 1 << 20)
        before = b.mark(name="before")["point"]
        # While the agent runs: both disks, one after the other, under load.
        for disk, mib in ((0, 24), (1, 20), (0, 26)):
            b.producer.ask(f"grow {disk} {mib}")
            b.producer.ask(f"write {disk} {(mib << 11) - 64} 64 {mib}")  # the last sectors there are now
            grown(b, disk, mib)
            b.wait_state("CONTINUOUS")
        # While none runs.
        b.agent.kill()
        b.producer.ask("grow 1 30")
        b.producer.ask(f"write 1 {(30 << 11) - 64} 64 30")
        b.start_agent()
        grown(b, 1, 30)
        b.wait_state("CONTINUOUS")
        b.producer.ask("stop")
        b.settled()
        b.check_equal("after growth")
        text = b.agent.text()
        if text.count("event=resized") != 4 or "event=tracking_lost" in text:
            raise Failure("growth was not followed disk by disk")
        if b.slots() != {str(path): i for i, path in enumerate(b.paths)}:
            raise Failure(f"slots: {b.slots()}")
        # The point of before has the size of before.
        image = b.export(before, 0)
        if image.stat().st_size != 16 << 20:
            raise Failure(f"the point made before the growth has {image.stat().st_size} bytes")


main([a_gap_shows_at_once, garbage_in_a_descriptor, a_number_that_is_in_no_ring, the_first_address_is_dead,
      a_disk_that_grows_is_replicated_whole])
