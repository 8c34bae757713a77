#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A malicious server, with a valid certificate of that role, at the other end of an honest agent; and malicious users of the control
sockets. The agent must stay alive and small, lose nothing that only it still has, and tell why it is not connected."""

import contextlib
import json
import os
import pwd
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
import uuid

from faultlib import Failure, FaultBench, Refused, call, case, eventually, main, trials
from wire import (ACK, BATCH_END, EPOCH_RESULT, ERROR, HASH_ASK, HASH_REPLY, HEARTBEAT, HEADER_BYTES, HELLO, MIB, POINT_RESULT, WELCOME,
                  Ended, Peer, frame, header, text_frame, xxh3)

MEMORY_MAX = 64 * MIB
LIGHT = {"pattern": "ordered", "rate": 50}


class Impostor:
    """Stands where the server was: `script(peer)` runs for each connection whose TLS handshake ended well."""

    def __init__(self, bench, script):
        self.bench, self.script = bench, script
        self.served = 0
        self._over = False
        self._raw = None

    def __enter__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.bench.dir / "server-replica.pem", self.bench.dir / "server-replica.key")
        context.load_verify_locations(self.bench.dir / "ca" / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["blkferry/1"])
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", self.bench.port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over = True
        with contextlib.suppress(OSError, AttributeError):  # the agent of the moment is cut off
            self._raw.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):  # wakes accept()
            socket.create_connection(("127.0.0.1", self.bench.port), 5).close()
        self._thread.join(60)
        self._listener.close()

    def _serve(self):
        while not self._over:
            raw, _ = self._listener.accept()
            if self._over:
                raw.close()
                return
            raw.settimeout(20)
            try:
                with Peer(self._context.wrap_socket(raw, server_side=True), 20) as peer:
                    self._raw = peer.tls
                    self.script(peer)
            except (Ended, OSError, ssl.SSLError):
                pass
            self.served += 1


def welcome_for(hello, **changes):
    """What an honest server with a fresh store would answer."""
    body = {"protocol": 1, "server_version": "0", "session": 1, "durable_batch": 0, "durable_mark": 0,
            "load_id": str(uuid.UUID(int=0)), "window_bytes": 64 * MIB, "features": [],
            "disks": [{"slot": d["slot"], "known": False, "attach_id": str(uuid.UUID(int=0)), "synced": False, "epoch_seq": 0}
                      for d in hello["disks"]]}
    body.update(changes)
    return text_frame(WELCOME, body)


def greet(peer, **changes):
    hello = json.loads(peer.wait_for(HELLO))
    peer.send(welcome_for(hello, **changes))
    return hello


def known_disks(hello, **changes):
    return [{"slot": d["slot"], "known": True, "attach_id": d["attach_id"], "synced": True, "epoch_seq": 0, **changes}
            for d in hello["disks"]]


def in_step(peer, **changes):
    """WELCOME of a server that claims to hold everything."""
    hello = json.loads(peer.wait_for(HELLO))
    peer.send(welcome_for(hello, load_id=hello["load_id"], disks=known_disks(hello), **changes))
    return hello


def after(welcome, data):
    """A script: a greeting, some frames, then it listens until the agent has had enough."""
    def script(peer):
        hello = welcome(peer)
        peer.send(data(hello) if callable(data) else data)
        peer.end()
    return script


def ack(batch, mark, window=64 * MIB):
    return frame(ACK, struct.pack("<QQQ", batch, mark, window))


def epoch_result(slot, ok, seq0, text=b""):
    return frame(EPOCH_RESULT, struct.pack("<HBBIQ", slot, ok, 0, len(text), seq0) + text)


def acks_everything(peer):
    """Takes all and stores nothing: what it acknowledged is lost, and the next server must get it all the same."""
    greet(peer)
    marks, mark = {}, 0
    while True:
        head = peer._exactly(HEADER_BYTES)
        kind, wire_len, batch = head[5], struct.unpack_from("<I", head, 8)[0], struct.unpack_from("<Q", head, 16)[0]
        body = peer._exactly(wire_len)
        if kind == 3:
            mark = struct.unpack_from("<Q", body, 8)[0]
        if kind == BATCH_END:
            marks[batch] = mark
            peer.send(ack(batch, mark))


def trickles(peer):
    """A byte a second of a frame that never ends."""
    greet(peer)
    for byte in header(HEARTBEAT, 60000, 60000, 0)[:12]:
        peer.send(bytes([byte]))
        time.sleep(1)


def never_reads(peer):
    greet(peer)
    time.sleep(12)


ANY = 2**64 - 1
SCRIPTS = {
    "closes at once": lambda peer: None,
    "garbage instead of WELCOME": lambda peer: peer.send(bytes(range(256)) * 40),
    "ACK before WELCOME": after(lambda p: p.wait_for(HELLO), ack(1, 1)),
    "WELCOME of 64 KiB of brackets": after(lambda p: p.wait_for(HELLO), frame(WELCOME, b'{"disks":' + b"[" * 65000)),
    "WELCOME without members": after(lambda p: p.wait_for(HELLO), text_frame(WELCOME, {})),
    "WELCOME of another protocol": after(lambda p: greet(p, protocol=9), b""),
    "WELCOME with no disk": after(lambda p: greet(p, disks=[]), b""),
    "WELCOME with 256 other disks": after(lambda p: greet(p, disks=[{"slot": i, "known": True, "attach_id": str(uuid.uuid4()), "synced": True,
                                                                   "epoch_seq": 7} for i in range(256)]), b""),
    "the last batch number": after(lambda p: in_step(p, durable_batch=ANY - 1, durable_mark=ANY), b""),
    "a mark of the future": after(lambda p: in_step(p, durable_batch=5, durable_mark=1 << 60), b""),
    "a window of nothing": after(lambda p: greet(p, window_bytes=0), b""),
    "ACK of a batch that was not sent": after(greet, ack(1 << 40, 1 << 40)),
    "ACK that goes back": after(greet, ack(0, 0)),
    "ACK with a wrong mark": after(greet, ack(1, ANY)),
    "results that nobody asked for": after(greet, b"".join(epoch_result(s, 1, 0) for s in range(256)) + frame(
        POINT_RESULT, struct.pack("<QQBBH", 5, 5, 1, 1, 0) + b"x") + frame(HASH_REPLY, struct.pack("<QII", 9, 8, 0) + b"\xff")),
    "epochs that failed, for ever": after(greet, b"".join(epoch_result(s % 2, 0, ANY, b"x" * 256) for s in range(2000))),
    "EPOCH_RESULT for slot 65535": after(greet, epoch_result(65535, 1, 0)),
    "HASH_REPLY that says 2^32 - 1": after(greet, frame(HASH_REPLY, struct.pack("<QII", 1, ANY >> 32, 0) + bytes(100))),
    "frames that only agents send": after(greet, frame(HASH_ASK, bytes(64))),
    "ERROR of 64 KiB": after(greet, frame(ERROR, json.dumps({"code": "x" * 30000, "text": "\x1b[31m" * 5000}).encode()[:65536])),
    "a flood of heartbeats": after(greet, text_frame(HEARTBEAT, {
        "state": "", "cause": "\n" * 200, "backlog_bytes": ANY, "lag_ms": ANY, "applied_mark": ANY, "points": ANY,
        "newest_point_mark": ANY, "progress_permille": ANY}) * 30000),
    "a body of 4 GiB": after(greet, header(HEARTBEAT, ANY >> 32, ANY >> 32, 0)),
    "a wrong checksum": after(greet, header(ACK, 24, 24, 1) + bytes(24)),
    "a byte a second": trickles,
    "never reads": never_reads,
}


def impersonate(bench, script, name, rng):
    before = bench.agent.rss()
    with Impostor(bench, script) as server:
        bench.agent.kill()
        bench.start_agent()
        eventually(f"the agent tries the server ({name})", lambda: server.served > 0 or (
            name in ("a byte a second", "never reads") and bench.status()["connected"]), 90)
        time.sleep(rng.uniform(0, 0.5))
        status = bench.status()  # it answers
        if bench.agent.rss() > max(before, 32 * MIB) + MEMORY_MAX:
            raise Failure(f"{name}: the agent's memory grew from {before >> 20} to {bench.agent.rss() >> 20} MiB")
        if any("\n" in line or "\x1b" in line for line in [status["cause"]]):
            raise Failure(f"{name}: the cause holds control characters: {status['cause']!r}")
    if not bench.agent.alive:
        raise Failure(f"{name}: the agent died")


@case("malicious server: WELCOME, ACK, results, floods, silence", "the agent lives, small; with the honest server again: O1 O2")
def hostile_server(rng):
    names = rng.sample(sorted(SCRIPTS), min(len(SCRIPTS), trials(8)))
    with FaultBench(LIGHT, linked=False) as b:
        b.run()
        for name in names:
            b.server.stop()
            impersonate(b, SCRIPTS[name], name, rng)
            b.start_server()
            b.newest_mark = 0
            eventually(f"the honest server has its source again after {name!r}", lambda: b.status()["connected"], 60)
        b.end("after all impostors", whole_allowed=True)
    return len(names)


@case("malicious server: acknowledges and keeps nothing", "the honest server's replica is brought in step: O1")
def liar(rng):
    count = trials(2)
    with FaultBench(LIGHT, linked=False) as b:
        b.run()
        for _ in range(count):
            b.server.stop()
            with Impostor(b, acks_everything):
                b.agent.kill()
                b.start_agent()
                eventually("the liar acknowledges", lambda: b.status()["durable_mark"] > b.newest_mark or
                           b.status()["state"] == "CONTINUOUS", 60)
                time.sleep(rng.uniform(0.3, 1.5))
            b.start_server()
            b.newest_mark = 0
            eventually("a session", lambda: b.status()["connected"], 60)
            b.wait_state("CONTINUOUS", seconds=180)
            b.rest_equal("after a server that lied about what it holds")
        b.producer.ask("stop")
    return count


# ---- control sockets

def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(True)
    s.connect(str(path))  # waits while the socket's queue is full
    s.settimeout(30)
    return s


def answer(s):
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := s.recv(65536):
            data += piece
            if data.endswith(b"\n") and b'"end"' in data.rsplit(b"\n", 2)[-2]:
                break
    return data


OTHER_USER = """
import socket, sys
for path in sys.argv[1:]:
    try:
        s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(path); s.sendall(b'{"cmd": "status"}\\n')
        got = s.recv(65536)
        print("in" if b'"ok":true' in got else "out")
    except OSError:
        print("out")
"""


@case("control sockets: another user, garbage, floods, clients that never read", "refused or bounded; the daemons answer on")
def control_sockets(rng):
    count = trials(200)
    with FaultBench(LIGHT, linked=False) as b:
        b.run()
        paths = [b.agent_socket, b.server_socket]
        daemons = [b.agent, b.server]
        before = [d.rss() for d in daemons]
        b.dir.chmod(0o755)
        nobody = pwd.getpwnam("nobody")
        for mode in (0o600, 0o666):  # the second: somebody opened the door by hand, the peer's user is looked at all the same
            for p in paths:
                os.chmod(p, mode)
            said = subprocess.run(["/usr/bin/python3", "-I", "-c", OTHER_USER, *map(str, paths)], user=nobody.pw_uid, group=nobody.pw_gid,
                                  extra_groups=[], cwd="/", capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
            if said is not None and said.stdout.split() != ["out", "out"]:
                raise Failure(f"another user at sockets of mode {mode:o}: {said.stdout} {said.stderr[-300:]}")
        requests = [b"[" * 60000 + b"\n", b'{"cmd": 5}\n', b"\xff\xfe\n", b'{"cmd": "' + b"x" * 60000 + b'"}\n', b"{}\n", b"\n", b"null\n",
                    b'{"cmd":"status","cmd":"stop"}\n', b'{"cmd": "export", "source": "../..", "point": "/etc", "file": "x"}\n',
                    b'{"cmd": "protect", "devices": ["' + b'","'.join([b"/dev/x"] * 5000) + b'"]}\n', b"x" * 70000]
        for path, daemon in zip(paths, daemons):
            for i in range(count):
                with connect(path) as s:
                    request = rng.choice(requests) if i % 2 else rng.randbytes(rng.randrange(1, 300)) + b"\n"
                    with contextlib.suppress(ConnectionError):
                        s.sendall(request)
                        s.shutdown(socket.SHUT_WR)
                        if b'"ok":true' in answer(s) and b"status" not in request:
                            raise Failure(f"{daemon.name}: a malformed request was taken: {request[:80]!r}")
            # All places taken: one more is told so. Those that send a byte now and then do not keep their place.
            slow = [connect(path) for _ in range(40)]
            for s in slow:
                with contextlib.suppress(OSError):
                    s.sendall(b"{")
            refused = sum(b"connected already" in answer(s) for s in slow[-4:])
            if refused == 0:
                raise Failure(f"{daemon.name}: 40 clients at once")
            began = time.monotonic()
            while True:
                for s in slow:
                    with contextlib.suppress(OSError):
                        s.sendall(b" ")
                try:
                    call(path, "status", seconds=10)
                    break
                except (Refused, OSError):
                    if time.monotonic() - began > 100:
                        raise Failure(f"{daemon.name}: slow clients keep all places") from None
                time.sleep(0.5)
            for s in slow:
                s.close()
            # Asks and never reads.
            deaf = connect(path)
            deaf.settimeout(1)
            with contextlib.suppress(OSError):
                for _ in range(100_000):
                    deaf.sendall(b'{"cmd": "status"}\n' * 50)
            eventually("it answers others", lambda: call(path, "status", seconds=10)["ok"], 60)
            deaf.close()
        for daemon, base in zip(daemons, before):
            if not daemon.alive:
                raise Failure(f"{daemon.name} died")
            if daemon.rss() > base + MEMORY_MAX:
                raise Failure(f"{daemon.name} grew from {base >> 20} to {daemon.rss() >> 20} MiB")
        b.end("after abuse of the control sockets")
    return 2 * count


if __name__ == "__main__":
    main()
