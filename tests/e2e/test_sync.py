#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Initial sync, continuous replication, overflow, rescan: what the server holds equals the source, bit for bit."""

from harness import Bench, Failure, Refused, call, eventually, main


def initial_sync_of_idle_disks():
    with Bench(disks=2, mib=32) as b:
        for path in b.paths:
            with open(path, "wb") as f:
                f.truncate(32 << 20)
                f.seek(5 << 20)
                f.write(bytes(range(256)) * 8192)
        b.start()
        b.settled()
        b.check_equal("after initial sync")
        b.agent.stop()
        b.server.stop()


def initial_sync_while_everything_is_rewritten():
    with Bench(disks=2, mib=48, producer={"seed": 7, "depth": 8, "sizes": "mixed", "contents": "mixed", "discard": 3,
                                          "zeroes": 3, "cancel": 5, "rate": 1500}) as b:
        b.start_server()
        b.producer.start()
        b.producer.ask("start")
        b.start_agent()
        call(b.agent_socket, "protect", devices=[str(p) for p in b.paths])
        seen = set()
        done = [0]

        def continuous():
            s = b.status()
            b.note(s)
            seen.add(s["state"])
            if "progress" in s and s["state"] in ("INITIAL_SYNC", "FLUSHING_BACKLOG"):
                done.append(s["progress"]["done_bytes"])
                if done[-1] < done[-2]:
                    raise Failure(f"progress goes back: {done[-2:]}")
                if s["backlog_bytes"] and done[-1] >= s["progress"]["total_bytes"]:
                    raise Failure(f"all is called done with backlog: {b.last}")
            return s["state"] == "CONTINUOUS"
        eventually("CONTINUOUS under load", continuous, 180)
        if not seen & {"INITIAL_SYNC", "FLUSHING_BACKLOG"}:
            raise Failure(f"the phases of the initial sync were not shown: {seen}")
        b.producer.ask("stop")
        b.settled()
        b.check_equal("initial sync under rewriting")
        if b.agent.rss() > 64 << 20:
            raise Failure(f"the agent holds {b.agent.rss() >> 20} MiB")


def overflow_of_a_tiny_ring_ends_equal():
    with Bench(disks=1, mib=64, producer={"seed": 3, "depth": 4, "contents": "random", "block": 16384},
               agent='ring = "1MiB"\nbandwidth = "400mbit"') as b:
        b.start()
        b.settled()
        b.producer.ask("start")
        eventually("the ring overflows", lambda: b.status()["disks"][0]["counters"]["overflows"] > 0, 60)
        b.producer.ask("stop")
        b.settled()
        b.check_equal("after ring overflow")


def rescan_after_the_producer_restarted():
    with Bench(disks=2, mib=32, producer={"seed": 5, "contents": "text", "rate": 800}) as b:
        b.start()
        b.producer.ask("start")
        b.wait_state("CONTINUOUS")
        b.producer.ask("stop")
        b.settled()
        b.agent.stop()
        b.producer.ask("write 0 2048 64 171")  # nobody is there to ship it
        b.producer.kill()  # the machine goes down: tracking is lost
        with open(b.paths[1], "r+b") as f:  # and something else writes
            f.seek(3 << 20)
            f.write(b"untracked" * 1000)
        b.producer.start()
        b.start_agent()
        b.settled()
        c = b.status()["counters"]
        b.check_equal("after a rescan")
        if c["wire_bytes"] > 8 << 20:
            raise Failure(f"a rescan of nearly equal disks shipped {c['wire_bytes']} bytes")


def verify_source_finds_nothing_and_mark_names_points():
    with Bench(disks=1, mib=32, producer={"seed": 9, "rate": 300}) as b:
        b.start()
        b.wait_state("CONTINUOUS")
        b.producer.ask("start")
        v = call(b.agent_socket, "verify_source", seconds=180)
        if not v["equal"] or v["compared_bytes"] != 32 << 20:
            raise Failure(f"verification under load: {v}")
        p = b.mark(name="before-upgrade")
        if p["point"] != "before-upgrade":
            raise Failure(f"the point is called {p}")
        b.producer.ask("stop")


def the_server_takes_keys_of_its_file_while_running():
    with Bench(disks=1, mib=8) as b:
        b.pki("init", b.dir / "sign")  # any key of the right kind
        key = b.dir / "sign" / "ca.key"
        b.server_extra = f'manifest_key = "{key}"'
        b.write_server()
        b.start()
        b.settled()
        for name in ("one", "two", "three"):
            b.mark(name=name)
        if (b.dir / "store" / "keys" / "manifest.pem").exists():
            raise Failure("the store made a key although it was given one")
        b.server_extra += '\npoints_keep = 2\nwindow = "8MiB"\napply_workers = 3\nlog_level = "debug"'
        b.write_server()
        answer = call(b.server_socket, "reload")
        if sorted(answer["changed"]) != ["apply_workers", "log_level", "points_keep", "window"] or \
                answer["needs_restart"] != ["apply_workers"]:
            raise Failure(f"the reload says {answer}")
        if call(b.server_socket, "reload")["changed"] != ["apply_workers"]:
            raise Failure("what needs a restart is told once only")
        b.mark(name="four")
        eventually("older points are removed", lambda: [p["point"] for p in call(b.server_socket, "points")["points"]] == ["three", "four"], 30)
        if not call(b.server_socket, "verify_point", source=b.source, point="four")["manifest"] == "signed":
            raise Failure("the manifest is not signed")
        b.server_extra += "\npoints_keep = 3"
        b.write_server()
        try:
            call(b.server_socket, "reload")
            raise Failure("a key given twice was taken")
        except Refused as e:
            if "server.toml:" not in str(e):
                raise Failure(f"the refusal names no line: {e}")


main([initial_sync_of_idle_disks, initial_sync_while_everything_is_rewritten, overflow_of_a_tiny_ring_ends_equal,
      rescan_after_the_producer_restarted, verify_source_finds_nothing_and_mark_names_points,
      the_server_takes_keys_of_its_file_while_running])
