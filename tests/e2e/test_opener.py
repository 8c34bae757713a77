#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The opener as a process: who may speak to it, what it makes of garbage; and an agent that is a user without any capability. What needs the
module is in the guest case chain/013."""

import array
import contextlib
import os
import pwd
import random
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import SKIP, Bench, Failure, Process, eventually, main, program

MAGIC, VERSION = 0x706F6662, 1
OPEN_RING, MODULE = 1, 2
MEMORY_MAX = 8 << 20


class Opener:
    def __init__(self, user):
        self.dir = tempfile.TemporaryDirectory(prefix="blkferry-opener-")
        folder = Path(self.dir.name)
        folder.chmod(0o755)
        self.socket = folder / "opener.sock"
        self.process = Process("opener", [program("blkferry-opener"), "--user", str(user), "--socket", str(self.socket), "--verbose"],
                               folder / "opener.log")

    def __enter__(self):
        self.process.start()
        eventually("the opener listens", lambda: "event=start" in self.process.text() and self.socket.exists())
        return self

    def __exit__(self, kind, *_):
        self.process.kill()
        if kind:
            print(self.process.tail(20))
        self.dir.cleanup()

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(str(self.socket))  # waits while the socket's queue is full
        s.settimeout(30)
        return s


def message(op, disk=0, body=b"", magic=MAGIC, version=VERSION, size=None):
    return struct.pack("<IHHII", magic, version, op, disk, len(body) if size is None else size) + body


def answers(s):
    """What comes until the peer closes or is silent: kinds, or None for a refusal's end."""
    got = []
    try:
        while data := s.recv(70000):
            got.append((struct.unpack_from("<IHHiI", data)[2:4], data[16:].decode(errors="replace")))
    except (TimeoutError, ConnectionError):
        pass
    return got


def one(s, data):
    s.sendall(data)
    reply = s.recv(70000)
    if not reply:
        return None
    _, _, kind, err, _ = struct.unpack_from("<IHHiI", reply)
    return kind, err, reply[16:].decode(errors="replace")


def another_user_is_not_heard():
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody").pw_uid
    with Opener(nobody) as o:
        if (o.socket.stat().st_uid, o.socket.stat().st_mode & 0o777) != (nobody, 0o600):
            raise Failure("the socket is not the user's alone")
        with o.connect() as s:  # root gets through the mode, and no further
            if answers(s):
                raise Failure("root was answered, though it is not the user")
        eventually("it is logged", lambda: "event=refused uid=0" in o.process.text())
        os.chmod(o.socket, 0o666)
        code = f"import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(20); s.connect({str(o.socket)!r}); " \
               "s.sendall(bytes(16)); print(len(s.recv(100)))"
        for uid, heard in ((nobody, True), (nobody - 1, False)):
            out = subprocess.run(["/usr/bin/python3", "-I", "-c", code], user=uid, group=uid, extra_groups=[], cwd="/", capture_output=True, text=True,
                                 check=False)
            if (out.stdout.strip() not in ("", "0")) != heard:
                raise Failure(f"uid {uid}: {out.stdout} {out.stderr[-300:]}")


def garbage_ends_the_connection():
    rng = random.Random(5)
    with Opener(os.geteuid()) as o:
        base, refused = o.process.rss(), 0
        for i in range(2000):
            data = rng.choice([rng.randbytes(rng.randrange(1, 200)), message(rng.randrange(5), rng.randrange(9), rng.randbytes(rng.randrange(60))),
                               message(OPEN_RING, 1, size=rng.getrandbits(32)), message(MODULE, 0, bytes(21000)),
                               message(MODULE, 0, rng.randbytes(64), version=rng.randrange(9))])
            with o.connect() as s:
                if i % 10 == 0:  # with descriptors that nobody asked for
                    fds = array.array("i", [s.fileno()] * rng.randrange(1, 9))
                    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                else:
                    s.sendall(data)
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_WR)
                refused += all(kind == 3 for (kind, _), _ in answers(s))
        eventually("all connections are over", lambda: len(os.listdir(f"/proc/{o.process.child.pid}/task")) == 1)
        if refused != 2000 or not 0 < o.process.text().count("event=refused") < 500:
            raise Failure(f"{refused} of 2000 were refused, {o.process.text().count('event=refused')} lines tell of it")
        if len(os.listdir(f"/proc/{o.process.child.pid}/fd")) > 8:
            raise Failure("descriptors stay open")
        if not o.process.alive or o.process.rss() > base + MEMORY_MAX:
            raise Failure(f"it grew from {base} to {o.process.rss()} bytes, or died")
        # More connections than it takes at once: the ones that are there stay.
        held = [o.connect() for _ in range(8)]
        eventually("eight are served", lambda: len(os.listdir(f"/proc/{o.process.child.pid}/task")) == 9)
        with o.connect() as s:
            if answers(s):
                raise Failure("a ninth connection was answered")
        reply = one(held[0], message(OPEN_RING, 3))
        if reply is None or reply[0] != 3:
            raise Failure(f"a connection that was there: {reply}")
        for s in held:
            s.close()


def without_the_module_it_says_so():
    if Path("/sys/module/blkferry").exists():
        return
    with Opener(os.geteuid()) as o:
        with o.connect() as s:
            for _ in range(3):  # the connection stays
                kind, err, text = one(s, message(OPEN_RING, 0))
                if kind != 3 or err != 2 or "no netlink family 'blkferry'" not in text:
                    raise Failure(f"answer: {kind} {err} {text}")
        if "event=refused" in o.process.text():
            raise Failure("what the kernel says is logged as refused")


def an_agent_without_rights():
    """As `nobody`, with no capability to be had: it replicates what a producer captures, and tells of the module that is not there."""
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    bare = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
            "--no-new-privs"]
    with Bench(disks=2, mib=16) as b, Opener(nobody.pw_uid) as o:
        b.dir.chmod(0o755)
        b.start_server()
        b.producer.start()
        own = b.dir / "agent"
        own.mkdir()
        for path in (own, b.dir / f"source-{b.source}.key"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        b.producer.socket.chmod(0o666)
        for path in b.paths:
            path.chmod(0o644)
        b.agent_socket = own / "agent.sock"
        (b.dir / "ca.pem").write_text((b.dir / "ca" / "ca.pem").read_text())
        b.write_agent(ca=b.dir / "ca.pem")
        plain = b.agent.command
        b.agent.command = [*bare, *plain]
        b.start_agent()
        status = Path(f"/proc/{b.agent.child.pid}/status").read_text()
        if "CapEff:\t0000000000000000" not in status or f"Uid:\t{nobody.pw_uid}" not in status:
            raise Failure(f"the agent has rights: {status}")
        subprocess.run([program("blkferry"), "protect", "--socket", str(b.agent_socket), *map(str, b.paths)], check=True, capture_output=True)
        b.producer.ask("write 0 64 8 3")
        b.settled()
        b.check_equal("of an agent without rights")
        b.agent.stop()
        if Path("/sys/module/blkferry").exists():
            return
        out = subprocess.run([*bare, *plain[:3], "--tracker", "module", "--opener", str(o.socket)], capture_output=True, text=True, check=False)
        if out.returncode != 1 or "no netlink family 'blkferry'" not in out.stderr:
            raise Failure(f"without the module: {out.returncode} {out.stderr[-400:]}")


if __name__ == "__main__":
    if subprocess.run(["setpriv", "--version"], capture_output=True, check=False).returncode != 0:
        sys.exit(SKIP)
    main([another_user_is_not_heard, garbage_ends_the_connection, without_the_module_it_says_so, an_agent_without_rights])
