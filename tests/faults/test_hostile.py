#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A malicious agent: its certificate is valid, what it sends is not. It must not touch the data of another source, nor take
the server's memory, disk or time. An honest source replicates beside it all the while and must not notice."""

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
import uuid

from faultlib import Failure, FaultBench, Refused, call, case, eventually, main, trials
from victim import LIGHT, MARK_S, MEMORY_MAX, Victim, counters
from wire import (ACK, BATCH_BEGIN, DATA, DISCARD, EPOCH_BEGIN, EPOCH_END, EPOCH_RESULT, EXTENTS, HASH_ASK, HEARTBEAT, HELLO, MIB,
                  POINT_REQUEST, POINT_RESULT, RESYNC_SAME, WELCOME, ZERO, Agent, Ended, client_context, disk, epoch_begin, epoch_end,
                  extents, frame, hash_ask, header, point_request, set_digest, text_frame, xxh3, zstd)

SECTORS_MAX = 1 << 54


def expect_refused(bench, what, attack, word, **agent):
    """`attack(agent)` must end with an ERROR that has `word` in it."""
    try:
        with bench.mallory(**agent) as m:
            attack(m)
            error = m.end()
    except Ended as e:
        error = e.error
    if error is None or word not in error["text"]:
        raise Failure(f"{what}: the server answered {error}, expected an ERROR with '{word}'")


@case("malicious agent: another source's data", "O1 of the other; refused by name, the honest connection stays")
def other_sources_data(_):
    with Victim() as b:
        before = {p["point"] for p in b.points()}
        # Its own certificate, the other's name. And the other's certificate on another machine.
        expect_refused(b, "HELLO as another source", lambda m: m.hello([disk(0, 2048)], source=b.source), "certificate is of 'mallory'")
        with contextlib.suppress(Ended), Agent(b, b.dir / f"source-{b.source}", b.source) as clone:
            clone.hello([disk(0, 2048)])
            raise Failure("a second machine with the certificate of a source was let in")
        if "reason=identity" not in b.server.text():
            raise Failure("no alarm for a second machine under one name")
        # Paths as names: a source's name becomes a folder's, a point's name a file's.
        for name in ("../web1", "web1/../x", ".", "a" * 65, "web1\0x", ""):
            expect_refused(b, f"HELLO as {name!r}", lambda m, n=name: m.hello([disk(0, 2048)], source=n), "refused")
        for name in ("../../web1/points/x", "..", "x/y", "a" * 65):
            def ask(m, n=name):
                m.hello([disk(0, 2048)])
                m.send(m.make_batch(others=[(POINT_REQUEST, point_request(1, n))]))
            expect_refused(b, f"POINT_REQUEST {name!r}", ask, "refused")
        # Slots and sectors that it did not announce; frames that only a server sends.
        def told(make):
            def attack(m):
                m.hello([disk(0, 2048)])
                m.send(make(m))
            return attack
        expect_refused(b, "foreign slot", told(lambda m: m.make_batch([(1, ZERO, 0, 8)])), "did not announce")
        expect_refused(b, "beyond the end", told(lambda m: m.make_batch([(0, ZERO, 2047, 2)])), "beyond the end")
        expect_refused(b, "resync without epoch", told(lambda m: m.make_batch([(0, RESYNC_SAME, 0, 8)])), "no open epoch")
        expect_refused(b, "HASH_ASK of a foreign slot",
                       told(lambda m: frame(HASH_ASK, hash_ask(1, 7, 4096, 0, [bytes(32)]))), "did not announce")
        expect_refused(b, "HASH_ASK beyond the end",
                       told(lambda m: frame(HASH_ASK, hash_ask(1, 0, 4096, 2048, [bytes(32)]))), "beyond the end")
        for kind in (HELLO, WELCOME, ACK, EPOCH_RESULT, POINT_RESULT):
            expect_refused(b, f"frame type {kind}", told(lambda m, k=kind: frame(k, b"{}" if k < 3 else bytes(24))), "refused")
        if before - {p["point"] for p in b.points()}:
            raise Failure("recovery points of the honest source are gone")
        b.finish("beside somebody who is after its data")
    return 27


@case("malicious agent: lists, counts and nesting beyond every maximum", "refused by name; memory, honest marks")
def giant_lists(_):
    with Victim() as b:
        def told(make):
            def attack(m):
                m.hello([disk(0, 1 << 30)])
                m.send(make(m))
            return attack
        many = [(0, ZERO, i * 16, 8) for i in range(131073)]
        attacks = [
            ("257 disks", lambda m: m.send(text_frame(HELLO, {"disks": [{}] * 257})), "refused"),
            ("64 KiB of brackets", lambda m: m.send(frame(HELLO, b'{"disks":' + b"[" * 65000)), "not a JSON object"),
            ("65 KiB of JSON", lambda m: m.send(header(HELLO, 65537, 65537, 0)), "65536 allowed"),
            ("a body of 4 GiB", lambda m: m.send(header(HELLO, 0xFFFFFFFF, 0xFFFFFFFF, 0)), "allowed"),
            ("a megabyte before HELLO", lambda m: m.send(header(EXTENTS, MIB, MIB, 0, batch=1) + bytes(200_000)), "larger than any HELLO"),
            ("EXTENTS before HELLO", lambda m: m.send(frame(EXTENTS, extents([(0, ZERO, 0, 8)]), 1)), "not HELLO"),
            ("4097 extents in a frame", told(lambda m: frame(BATCH_BEGIN, struct.pack("<QQQQ", m.mark, m.mark + 1, 1, 0), m.batch + 1) +
                                             frame(EXTENTS, extents([(0, ZERO, 0, 1)] * 4097), m.batch + 1, 1)), "refused"),
            ("2^32 - 1 extents in a frame", told(lambda m: frame(BATCH_BEGIN, struct.pack("<QQQQ", m.mark, m.mark + 1, 1, 0), m.batch + 1) +
                                                 frame(EXTENTS, struct.pack("<II", 0xFFFFFFFF, 0), m.batch + 1, 1)), "refused"),
            ("131073 extents in a batch", told(lambda m: m.make_batch(many)), "131072 extents"),
            ("16385 frames in a batch", told(lambda m: m.make_batch(others=[(EXTENTS, extents([(0, ZERO, i, 1)]))
                                                                           for i in range(16385)])), "16384 frames"),
            ("5 points in a batch", told(lambda m: m.make_batch(others=[(POINT_REQUEST, point_request(i)) for i in range(5)])),
             "point requests"),
            ("1025 hashes", told(lambda m: frame(HASH_ASK, hash_ask(1, 0, 4096, 0, [bytes(32)] * 1025))), "refused"),
            ("blocks of 2 GiB", told(lambda m: frame(HASH_ASK, hash_ask(1, 0, 1 << 31, 0, [bytes(32)]))), "refused"),
            ("a disk of 2^63 sectors", lambda m: m.hello([disk(0, 1 << 63)]), "refused"),
            ("a disk of no sector", lambda m: m.hello([disk(0, 0)]), "refused"),
        ]
        for what, attack, word in attacks:
            expect_refused(b, what, attack, word)
        b.finish("beside giant lists")
    return len(attacks)


@case("malicious agent: compression bombs", "refused; memory, honest marks")
def compression_bombs(_):
    with Victim() as b:
        bomb = zstd(bytes(1 << 30))  # a gigabyte in some tens of kilobytes
        def in_batch(raw_len, body):
            def attack(m):
                m.hello([disk(0, 1 << 30)])
                m.send(frame(BATCH_BEGIN, struct.pack("<QQQQ", m.mark, m.mark + 1, 1, 0), m.batch + 1) +
                       header(EXTENTS, len(body), raw_len, 0, 2, m.batch + 1, 1) + body)
            return attack
        expect_refused(b, "a bomb that says its size", in_batch(1 << 30, bomb), "allowed")
        expect_refused(b, "a bomb that says 1 MiB", in_batch(MIB, bomb), "refused")
        # Its header names a window of 2 GiB.
        expect_refused(b, "a window of 2 GiB", in_batch(MIB, b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x03\x00\x00" * 40), "refused")
        expect_refused(b, "lz4 that runs over", lambda m: (m.hello([disk(0, 2048)]), m.send(
            header(HEARTBEAT, 250, 60000, 0, 1) + b"\x1fA\x01\x00" + b"\xff" * 246)), "refused")
        expect_refused(b, "a HELLO that is a bomb", lambda m: m.send(header(HELLO, 60000, 65536, 0, 2) + bomb.ljust(60000, b"\0")[:60000]), "refused")
        b.finish("beside compression bombs")
    return 5


@case("malicious agent: never reads what it is sent", "the connection is ended; memory, honest marks")
def never_reads(_):
    with Victim() as b:
        with b.mallory(receive_buffer=4096) as m:
            m.hello([disk(0, 2048)])
            m.sync_as_zeroes(0, 2048)
            # An EPOCH_END that is sent again is answered again, each by some tens of bytes.
            again = [(EPOCH_END, epoch_end(0, 2048, set_digest([(0, 0, 2048)]), m.mark - 2))] * 16000
            m.tls.settimeout(MARK_S)
            try:
                for _ in range(60):
                    m.tls.sendall(m.make_batch(others=again))
                    b.look()
            except (OSError, ssl.SSLError):
                pass
            b.server_says("the peer does not read")
        b.finish("beside somebody who reads nothing")
    return 1


class Flood:
    """Connections that say nothing, for as long as it lasts, from addresses in turn: new ones take the place of those that the
    server closed."""

    def __init__(self, bench, addresses, open_max=1500):
        self.bench, self.addresses, self.open_max = bench, addresses, open_max
        self.made = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(30)

    def _open(self):
        s = socket.socket()
        s.setblocking(False)
        s.bind((self.addresses[self.made % len(self.addresses)], 0))
        with contextlib.suppress(BlockingIOError):
            s.connect(("127.0.0.1", self.bench.port))
        self.made += 1
        return s

    def _run(self):
        sockets = []
        while not self._over.wait(0.02):
            closed = select.poll()
            for s in sockets:
                closed.register(s, select.POLLIN | select.POLLHUP)
            gone = {fd for fd, _ in closed.poll(0)}
            for s in sockets:
                if s.fileno() in gone:
                    s.close()
            sockets = [s for s in sockets if s.fileno() >= 0]
            with contextlib.suppress(OSError):
                for _ in range(min(20, self.open_max - len(sockets))):
                    sockets.append(self._open())
        for s in sockets:
            s.close()


@case("connection floods from one address and from many, without end", "limits hold, an honest agent gets in; memory, marks")
def connection_flood(_):
    made = 0
    with Victim() as b:
        for addresses in (["127.0.0.9"], [f"127.0.{i}.{j}" for i in range(1, 11) for j in range(1, 101)]):
            before = counters(b)
            with Flood(b, addresses) as f:
                eventually("the flood is refused", lambda: (c := counters(b))["refused_admission"] + c["refused_handshake"] >=
                           before["refused_admission"] + before["refused_handshake"] + 1000, 90)
                if counters(b)["connections"] > 300:
                    raise Failure(f"{counters(b)['connections']} connections are open in a flood")
                b.look()
                b.agent.kill()
                b.start_agent()
                eventually("the honest agent gets in", lambda: b.status()["connected"], 10)
                b.look()
                made += f.made
        b.moves_on()
        b.end("after floods")
    return made


@case("thousands of half TLS handshakes", "ended in time, an honest agent gets in; memory, marks")
def half_handshakes(_):
    count = 2000
    with Victim() as b:
        context, halves = client_context(b.dir, b.dir / "source-mallory"), []
        for i in range(count):  # each sends its ClientHello and waits
            s = socket.socket()
            s.bind((f"127.0.2.{1 + i % 200}", 0))
            s.settimeout(10)
            with contextlib.suppress(OSError):
                s.connect(("127.0.0.1", b.port))
                outgoing = ssl.MemoryBIO()
                with contextlib.suppress(ssl.SSLWantReadError):
                    context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
                s.sendall(outgoing.read())
            halves.append(s)
            if i % 500 == 0:
                b.look()
        b.agent.kill()
        b.start_agent()
        eventually("the honest agent gets in beside half handshakes", lambda: b.status()["connected"], 10)
        eventually("half handshakes are ended", lambda: counters(b)["connections"] <= 1, 30)
        for s in halves:
            s.close()
        b.look()
        b.end("after half handshakes")
    return count


@case("slow loris: a byte a second in the handshake, before and in HELLO", "ended within the handshake's time")
def slow_loris(_):
    with Victim() as b:
        raw = socket.create_connection(("127.0.0.1", b.port), 30)
        tls = b.mallory()
        silent = b.mallory("eve")
        hello = text_frame(HELLO, {"protocol": 1})
        context = client_context(b.dir, b.dir / "source-mallory")
        outgoing = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
        first = outgoing.read()
        began, ended = time.monotonic(), {}
        while len(ended) < 3 and time.monotonic() - began < 40:
            step = int(time.monotonic() - began)
            for name, s, data in (("handshake", raw, first[step:step + 1]), ("hello", tls.tls, hello[step:step + 1])):
                if name not in ended:
                    try:
                        s.sendall(data)
                    except (OSError, ssl.SSLError):
                        ended[name] = time.monotonic() - began
            for name, s in (("handshake", raw), ("hello", tls.tls), ("silent", silent.tls)):
                s.settimeout(0.3)
                with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                    try:
                        if name not in ended and not s.recv(4096):
                            ended[name] = time.monotonic() - began
                    except (ConnectionError, ssl.SSLError):
                        ended[name] = time.monotonic() - began
            time.sleep(0.1)
        for s in (raw, tls, silent):
            s.close()
        if len(ended) != 3 or max(ended.values()) > 25:
            raise Failure(f"slow connections ended after {ended} seconds, all should within 10")
        b.finish("beside slow connections")
    return 3


@case("malicious agent: deletion storms over disks as large as allowed", "disk and time of the server bounded, honest marks")
def deletion_storm(rng):
    with Victim() as b:
        expect_refused(b, "disks of 8 EiB", lambda m: m.hello([disk(slot, SECTORS_MAX) for slot in range(4)]), "source_size")
        step, each = (1 << 26) - 1, 1 << 30  # four disks of 512 GiB
        whole = [(slot, DISCARD, at, min(step, each - at)) for slot in range(4) for at in range(0, each, step)]
        expect_refused(b, "one disk five hundred times", lambda m: (
            m.hello([disk(slot, each) for slot in range(4)]), m.send(m.make_batch(whole * 500))), "more than twice the sectors")
        with b.mallory(seconds=300) as m:
            m.hello([disk(slot, each) for slot in range(4)])
            some = sorted({(slot, DATA, rng.randrange(each // 8) * 8, 8) for slot in range(4) for _ in range(100)})
            m.send(m.make_batch(some, rng.randbytes(4096 * len(some))))
            for _ in range(300):
                m.send(m.make_batch(whole))
            # With an epoch open each discard is noted in a map too.
            m.send(m.make_batch(whole, others=[(EPOCH_BEGIN, epoch_begin(slot, 1, set_digest([(0, 0, 1)]), m.mark)) for slot in range(4)]))
            for _ in range(300):
                m.send(m.make_batch(whole))
                if rng.random() < 0.03:
                    b.look()
            m.wait_durable(m.batch)
            b.look()
        with b.mallory(seconds=300) as m:  # shrunk to a megabyte each: all behind is zeroed
            m.hello([disk(slot, 2048) for slot in range(4)])
            m.send(m.make_batch())
            m.wait_durable(m.batch)
            b.look()
        eventually("all is applied", lambda: b.source_row("mallory")["journal_bytes"] == 0 and
                   b.source_row("mallory")["store_state"] == "ready", 120)
        # One map of each disk is full: a bit a sector.
        if b.store_bytes("mallory") > 4 * each // 8 + 256 * MIB:
            raise Failure(f"discards took {b.store_bytes('mallory') >> 20} MiB of the store")
        b.finish("beside deletion storms")
    return 602


@case("malicious agent: floods of recovery points and questions", "honest marks; bounded in number")
def point_and_hash_floods(_):
    with Victim() as b:
        with b.mallory(seconds=300) as m:
            m.hello([disk(0, 1 << 22)])
            if not m.sync_as_zeroes(0, 1 << 22):
                raise Failure("the sync was refused")
            m.send(b"".join(m.make_batch(others=[(POINT_REQUEST, point_request(4 * i + j)) for j in range(4)]) for i in range(1000)))
            for _ in range(10):
                b.look()
                time.sleep(0.3)
            points = b.source_row("mallory")["points"]
        expect_refused(b, "65 questions at once", lambda m: (m.hello([disk(0, 1 << 22)]), m.send(b"".join(
            frame(HASH_ASK, hash_ask(i, 0, 1 << 20, 0, [bytes(32)] * 1024)) for i in range(200)))), "questions are open")
        b.look()
        if points > 4000:
            raise Failure(f"{points} points")
        b.finish("beside floods of points and questions")
    return 4200


@case("malicious agent: fills its quota, and files, and descriptors", "no-space by name; the other source goes on")
def quota(rng):
    count = trials(1)
    quota_mib = 48
    with Victim(server=f'source_quota = "{quota_mib}MiB"\njournal_keep = "64MiB"') as b:
        for _ in range(count):
            refused = None
            with b.mallory(seconds=120) as m:
                try:
                    m.hello([disk(slot, 1 << 24) for slot in range(256)])
                    for i in range(2000):
                        slot = i % 256
                        entries = [(slot, DATA, rng.randrange(1 << 21) * 8, 8) for _ in range(100)]
                        entries = sorted({e[2]: e for e in entries}.values())
                        m.send(m.make_batch(entries, rng.randbytes(4096 * len(entries))))
                        if i % 50 == 0:
                            b.look()
                except Ended as e:
                    refused = e.error
            if refused is None or refused["code"] != "no-space" or "quota" not in refused["text"]:
                raise Failure(f"beyond its quota the server answered {refused}")
            b.look()
            fds = len(os.listdir(f"/proc/{b.server.child.pid}/fd"))
            if fds > 3000:
                raise Failure(f"{fds} descriptors are open for one source")
            used = b.store_bytes("mallory")
            if used > (2 * quota_mib + 64) * MIB:
                raise Failure(f"{used >> 20} MiB on the disk with a quota of {quota_mib}")
        b.finish("beside a source at its quota")
    return count


@case("malicious agent: connects again and again with other disks", "slowed down; honest marks, journal bounded")
def hello_flood(_):
    with Victim() as b:
        tries = refusals = 0
        until = time.monotonic() + 10
        while time.monotonic() < until:
            tries += 1
            try:
                with b.mallory() as m:
                    m.hello([disk(slot, 1 << 30, attach_id=str(uuid.uuid4()), identity="x" * 60) for slot in range(150)])
            except (Ended, OSError, ssl.SSLError):
                refusals += 1
            if tries % 10 == 0:
                b.look()
        if tries - refusals > 60:
            raise Failure(f"{tries - refusals} sessions of one source in 10 seconds")
        b.finish("beside a source that connects for ever")
    return tries


@case("random garbage in every frame type, with a valid header", "connection ended by name or ignored; honest marks")
def garbage_bodies(rng):
    count = trials(60)
    with Victim() as b:
        for _ in range(count):
            try:
                with b.mallory() as m:
                    m.hello([disk(0, 2048), disk(3, 4096)])
                    for _ in range(rng.randrange(1, 20)):
                        kind = rng.randrange(1, 17)
                        body = rng.randbytes(rng.choice([0, 8, 16, 24, 32, 40, 48, 300, 5000]))
                        if rng.random() < 0.3:
                            m.send(m.make_batch([(0, DATA, 8, 8)], bytes(4096)))
                        number = m.batch + 1 if 3 <= kind <= 8 else 0
                        m.send(header(kind, len(body), len(body), xxh3(body), rng.choice([0, 0, 0, 1, 2]), number, 0) + body)
                    m.end()
            except Ended:
                pass
            if rng.random() < 0.1:
                b.look()
        b.finish("beside garbage")
    return count


if __name__ == "__main__":
    main()
