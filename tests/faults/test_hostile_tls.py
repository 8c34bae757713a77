#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Peers that fight with TLS itself: records without data, keys changed without end, session tickets without end. Neither the server nor an
agent may spend its time on them: they are ended, with the reason in the log, and honest marks go on beside them."""

import json
import os
import subprocess
import time
import uuid

from faultlib import Failure, FaultBench, call, case, eventually, main
from harness import program
from victim import LIGHT, Victim, counters
from wire import HEARTBEAT, HELLO, disk, text_frame

#: A flood may last so long; the bound is what ends it.
FLOOD_S = 20
#: Processor seconds that one flood may cost the other end.
CPU_MAX_S = 2.0
NO_DATA = ("key-update", "key-update-asked", "key-update-asked-unread", "ticket", "empty")
ENDED = "sends TLS messages"


def cpu_s(process):
    """User and system time of a process, all threads."""
    fields = open(f"/proc/{process.child.pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_flood(bench, kind, cert, way="connect", seconds=FLOOD_S, alpn="blkferry/1", first=b"", data=b""):
    """`cert`: path without ending, or None."""
    files = [f"{cert}.pem", f"{cert}.key"] if cert else ["-", "-"]
    child = subprocess.Popen([program("blkferry-tls-flood"), kind, way, str(bench.port), str(seconds), alpn, *files,
                              str(bench.dir / "ca" / "ca.pem") if cert else "-", str(len(first))],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdin.write(first + data)
    child.stdin.close()
    return child


def result_of(child):
    out = child.stdout.read()
    if child.wait(120) != 0:
        raise Failure(f"the flood could not be made: status {child.returncode}")
    return json.loads(out)


def hello_of(source):
    return text_frame(HELLO, {"protocol": 1, "agent_version": "0", "source": source, "source_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, source)),
                              "load_id": str(uuid.UUID(int=2)), "features": [], "disks": [disk(0, 2048)]})


def beside(bench, what, child):
    """Honest marks until the flood is over; what it sent, and what it cost the server."""
    before, began = cpu_s(bench.server), time.monotonic()
    while child.poll() is None and time.monotonic() < began + 4 * FLOOD_S:
        bench.look()
        time.sleep(0.05)
    made = result_of(child)
    made["cpu"] = cpu_s(bench.server) - before
    print(f"     {what}: {made['sent']} bytes in {made['seconds']:.2f} s, {made['end']}; the server took {made['cpu']:.2f} s of processor, "
          f"slowest honest mark {bench.slowest_mark_s:.2f} s", flush=True)
    return made


def expect_ended(bench, what, child, floods=None):
    made = beside(bench, what, child)
    if made["end"] == "time":
        raise Failure(f"{what}: nobody ended it in {made['seconds']:.0f} s, {made['sent']} bytes were taken")
    if made["cpu"] > CPU_MAX_S:
        raise Failure(f"{what}: it took {made['cpu']:.1f} s of the server's processor")
    if floods is not None:
        eventually(f"{what}: counted and logged", lambda: counters(bench).get("refused_floods", 0) > floods and ENDED in bench.server.text(), 30)


@case("TLS KeyUpdates, tickets and empty records without end, to the server", "ended with a reason; processor, memory, honest marks")
def floods_at_the_server(_):
    count = 0
    with Victim() as b:
        cert = b.dir / "source-mallory"
        for kind in NO_DATA:
            for first, when in ((b"", "before HELLO"), (hello_of("mallory"), "behind HELLO")):
                floods = counters(b).get("refused_floods", 0) if kind.startswith("key") else None
                expect_ended(b, f"{kind} {when}", start_flood(b, kind, cert, first=first), floods)
                count += 1
        # Nobody's certificate: refused in the handshake, nothing behind it is looked at.
        b.pki("init", b.dir / "ca2")
        b.pki("issue", b.dir / "ca2", "source", "stranger", "--out", b.dir)
        for other in (None, b.dir / "source-stranger"):
            expect_ended(b, f"KeyUpdates with {'a foreign' if other else 'no'} certificate", start_flood(b, "key-update-asked", other))
            count += 1
        b.finish("beside floods of TLS messages")
    return count


@case("TLS records of one byte, and the answers of TLS not read", "others get their turn: honest marks; the processor is left alone")
def small_records_at_the_server(_):
    with Victim() as b:
        heartbeat = text_frame(HEARTBEAT, {"state": "", "cause": "", "backlog_bytes": 0, "lag_ms": 0, "applied_mark": 0, "points": 0,
                                           "newest_point_mark": 0, "progress_permille": 0})
        for kind in ("bytes", "almost-empty"):  # valid frames, so nobody ends it: it gets its share of turns, and so do others
            made = beside(b, kind, start_flood(b, kind, b.dir / "source-mallory", seconds=5, first=hello_of("mallory"), data=heartbeat))
            if made["end"] != "time":
                raise Failure(f"{kind}: valid heartbeats were refused after {made['sent']} bytes: {b.server.tail(3)}")
        b.finish("beside tiny records")
    return 2


@case("TLS KeyUpdates and tickets without end, to an enrolling server", "ended with a reason; processor, honest marks")
def floods_at_the_enrolment(_):
    with Victim() as b:
        b.server.stop()
        config = b.dir / "server.toml"
        config.write_text(config.read_text() + f'pki = "{b.dir}/ca"\naudit_log = "{b.dir}/audit.log"\n')
        b.start_server()
        eventually("a session", lambda: b.status()["connected"], 60)
        call(b.server_socket, "enroll_token", source="new1", life_ms=600000)
        for kind in ("key-update", "key-update-asked-unread", "ticket"):
            expect_ended(b, f"{kind} of a stranger", start_flood(b, kind, None, alpn="blkferry-enroll/1"))
        b.moves_on()
        b.end("after floods at the enrolment", whole_allowed=True)
    return 3


@case("TLS KeyUpdates, tickets and empty records without end, to an agent", "ended with a reason; processor, memory; nothing lost")
def floods_at_the_agent(_):
    count = 0
    with FaultBench(LIGHT, linked=False) as b:
        b.run()
        b.server.stop()
        base = b.agent.rss()
        for kind in NO_DATA:
            before = cpu_s(b.agent)
            made = result_of(start_flood(b, kind, b.dir / "server-replica", way="listen"))
            spent = cpu_s(b.agent) - before
            print(f"     {kind}: {made['sent']} bytes in {made['seconds']:.2f} s, {made['end']}; the agent took {spent:.2f} s of processor", flush=True)
            if made["end"] == "time":
                raise Failure(f"{kind}: the agent did not end it, {made['sent']} bytes were taken")
            if spent > CPU_MAX_S + made["seconds"]:
                raise Failure(f"{kind}: it took {spent:.1f} s of the agent's processor")
            if kind != "empty" and kind != "ticket":
                eventually("the agent tells why", lambda: ENDED in b.agent.text(), 30)
            b.status()
            count += 1
        if b.agent.rss() > base + (32 << 20):
            raise Failure(f"the agent grew from {base >> 20} to {b.agent.rss() >> 20} MiB")
        b.start_server()
        b.moves_on()
        b.end("after servers that flood")
    return count


if __name__ == "__main__":
    main()
