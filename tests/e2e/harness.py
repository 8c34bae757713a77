# SPDX-License-Identifier: Apache-2.0
"""Runs server, agent and producer as processes on loopback, in one temporary folder.

Everything waits for conditions with deadlines (`eventually`); nothing sleeps and hopes. Works as any user.
BLKFERRY_BUILD names the folder with the programs (default: ../../build).
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = Path(os.environ.get("BLKFERRY_BUILD", Path(__file__).resolve().parents[2] / "build"))
SLOW = float(os.environ.get("BLKFERRY_E2E_SLOW", "1"))  # multiplies deadlines
SKIP = 77


class Failure(Exception):
    """The test failed; the text says what was expected."""


def program(name):
    for path in (BUILD / name, BUILD / "tests" / name):
        if path.exists():
            return str(path)
    print(f"SKIP: {name} was not built in {BUILD}")
    sys.exit(SKIP)


def eventually(what, condition, seconds=60, interval=0.05):
    """Waits until condition() gives something true and returns it. Exceptions of the kinds below count as 'not yet'."""
    end = time.monotonic() + seconds * SLOW
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (OSError, Refused) as e:
            last = e
        if time.monotonic() > end:
            raise Failure(f"not within {seconds * SLOW:.0f} s: {what}; last: {last!r}")
        time.sleep(interval)


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(f"{answer.get('code')}: {answer.get('error')}")
        self.code = answer.get("code")


def call(path, cmd, seconds=120, **members):
    """One request to a control socket; returns the last line, raises Refused if it is an error."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(seconds * SLOW)
        s.connect(str(path))
        s.sendall(json.dumps({"cmd": cmd, **members}).encode() + b"\n")
        with s.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if answer.get("end"):
                    if not answer["ok"]:
                        raise Refused(answer)
                    return answer
    raise OSError(f"{path} closed the connection without an answer")


def free_port():
    """Below the range from which clients get theirs, so that nobody takes it while the server is down."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def sha256_of(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


class Process:
    """A daemon of the test with its log."""

    def __init__(self, name, command, log):
        self.name, self.command, self.log = name, command, log
        self.environment = None  # as the test's
        self.child = None

    def start(self, **popen):
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(self.command, stderr=out, stdout=popen.pop("stdout", out), env=self.environment, **popen)
        return self

    @property
    def alive(self):
        return self.child is not None and self.child.poll() is None

    def kill(self, how=signal.SIGKILL):
        if self.alive:
            self.child.send_signal(how)
        return self.child.wait(60 * SLOW) if self.child else None

    def stop(self):
        """SIGTERM; the exit status must be 0."""
        if not self.alive:
            raise Failure(f"{self.name} ended by itself: {self.tail()}")
        status = self.kill(signal.SIGTERM)
        if status != 0:
            raise Failure(f"{self.name} ended with status {status}: {self.tail()}")

    def text(self):
        return Path(self.log).read_text(errors="replace") if Path(self.log).exists() else ""

    def tail(self, lines=15):
        return "\n".join(self.text().splitlines()[-lines:])

    def rss(self):
        """Resident bytes of private memory: without the mapped rings."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return 0


class Producer(Process):
    """A machine of file-backed disks with the module's cores in it."""

    def __init__(self, folder, disks, **options):
        self.socket = folder / "producer.sock"
        self.disks = disks
        command = [program("blkferry-producer"), "--socket", str(self.socket)]
        for path, mib in disks:
            command += ["--disk", f"{path}:{mib}"]
        for key, value in options.items():
            command += [f"--{key}"] + ([] if value is True else [str(value)])
        super().__init__("producer", command, folder / "producer.log")

    def start(self):
        super().start(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not json.loads(self.child.stdout.readline() or b"{}").get("ready"):
            raise Failure(f"the producer did not start: {self.tail()}")
        return self

    def ask(self, line):
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()
        answer = json.loads(self.child.stdout.readline() or b'{"ok": false, "error": "the producer ended"}')
        if not answer["ok"]:
            raise Failure(f"producer: {line}: {answer}")
        return answer

    def hashes(self):
        return [d["sha256"] for d in self.ask("hash")["disks"]]


class Bench:
    """One server, one source."""

    def __init__(self, disks=1, mib=64, producer=None, agent="", server="", source="web1"):
        self.dir = Path(tempfile.mkdtemp(prefix="blkferry-e2e-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.keep = bool(os.environ.get("BLKFERRY_E2E_KEEP"))
        self.source = source
        self.port = free_port()
        self.paths = [self.dir / f"disk{i}.img" for i in range(disks)]
        self.mib = mib
        self.agent_socket = self.dir / "agent.sock"
        self.server_socket = self.dir / "server.sock"
        self.agent_extra, self.server_extra = agent, server
        self.make_pki()
        self.write_server()
        self.write_agent()
        self.server = Process("server", [program("blkferry-server"), "--config", str(self.dir / "server.toml")],
                              self.dir / "server.log")
        command = [program("blkferry-agent"), "--config", str(self.dir / "agent.toml")]
        if producer is None or producer:
            self.producer = Producer(self.dir, [(p, mib) for p in self.paths], **(producer or {}))
            command += ["--tracker", f"socket:{self.producer.socket}"]
        else:  # a bench with disks of its own
            self.producer = Process("producer", [], self.dir / "producer.log")
        self.agent = Process("agent", command, self.dir / "agent.log")

    # -- configuration

    def pki(self, *args):
        subprocess.run([program("blkferry"), "pki", *map(str, args)], check=True, stdout=subprocess.DEVNULL)

    def make_pki(self):
        self.pki("init", self.dir / "ca")
        self.pki("issue", self.dir / "ca", "server", "replica", "--out", self.dir)
        self.pki("issue", self.dir / "ca", "source", self.source, "--out", self.dir)

    def write_server(self):
        (self.dir / "server.toml").write_text(
            f'listen = ["127.0.0.1:{self.port}"]\nstore = "{self.dir}/store"\n'
            f'cert = "{self.dir}/server-replica.pem"\nkey = "{self.dir}/server-replica.key"\n'
            f'ca = "{self.dir}/ca/ca.pem"\ncontrol_socket = "{self.server_socket}"\n'
            f'point_interval_s = 0\nchunk = "4MiB"\n{self.server_extra}\n')

    def write_agent(self, port=None, servers=None, ca=None, cert=None, extra=None, source=None):
        cert = cert or self.dir / f"source-{self.source}"
        self.agent_extra = self.agent_extra if extra is None else extra
        (self.dir / "agent.toml").write_text(
            f'server = {json.dumps(servers or f"127.0.0.1:{port or self.port}")}\nsource = "{source or self.source}"\n'
            f'cert = "{cert}.pem"\nkey = "{cert}.key"\n'
            f'ca = "{ca or self.dir / "ca" / "ca.pem"}"\nstate_dir = "{self.dir}/agent"\n'
            f'control_socket = "{self.agent_socket}"\n{self.agent_extra}\n')

    # -- life

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for p in (self.agent, self.server, self.producer):
            p.kill()
        if kind is not None:
            for p in (self.agent, self.server, self.producer):
                print(f"---- {p.name} log\n{p.tail(40)}")
        if self.keep:
            print(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def start_server(self):
        self.server.start()
        eventually("the server answers", lambda: call(self.server_socket, "status", seconds=5)["ok"] if self.server.alive
                   else self.died(self.server))

    def start(self, protect=True):
        self.start_server()
        self.producer.start()
        self.start_agent()
        if protect:
            call(self.agent_socket, "protect", devices=[str(p) for p in self.paths])
        return self

    def start_agent(self):
        self.agent.start()
        eventually("the agent answers", lambda: self.status()["ok"] if self.agent.alive else self.died(self.agent))

    def died(self, process):
        raise Failure(f"{process.name} ended: {process.tail()}")

    # -- questions

    def status(self):
        return call(self.agent_socket, "status")

    def wait_state(self, *states, seconds=120):
        return eventually(f"state {'/'.join(states)}", lambda: (s := self.status())["state"] in states and s or
                          self.note(s), seconds)

    def note(self, s):
        self.last = {k: s.get(k) for k in ("state", "cause", "backlog_bytes", "lag_ms", "progress")}
        return None

    def settled(self, seconds=120):
        """CONTINUOUS with nothing left to ship."""
        def condition():
            s = self.status()
            self.note(s)
            return s if s["state"] == "CONTINUOUS" and s["backlog_bytes"] == 0 else None
        try:
            return eventually("CONTINUOUS with backlog 0", condition, seconds)
        except Failure as e:
            raise Failure(f"{e}; agent says {self.last}") from None

    def mark(self, **members):
        return call(self.agent_socket, "mark", **members)

    def export(self, point, slot):
        """Exports one disk of a point; returns the file."""
        out = self.dir / f"export-{point}-{slot}.img"
        call(self.server_socket, "export", source=self.source, point=point, slot=slot, file=str(out))
        return out

    def slots(self):
        return {d["device"]: d["slot"] for d in self.status()["disks"]}

    def check_equal(self, what):
        """Writers must be stopped: takes a mark and compares the exported point with the disks, bit for bit."""
        point = self.mark()
        want = self.producer.hashes()
        slots = self.slots()
        for path, sha in zip(self.paths, want):
            image = self.export(point["point"], slots[str(path)])
            got = sha256_of(image)
            if got != sha:
                raise Failure(f"{what}: {path.name} differs from point {point['point']}: {first_difference(path, image)}")
            image.unlink()
        return point


def first_difference(a, b):
    count, first, where = 0, None, []
    with open(a, "rb") as fa, open(b, "rb") as fb:
        at = 0
        while True:
            x, y = fa.read(4096), fb.read(4096)
            if not x and not y:
                break
            if x != y:
                count += 1
                first = at if first is None else first
                if len(where) < 8:
                    where.append(at // 4096)
            at += 4096
    return f"{count} blocks of 4 KiB differ, first at byte {first}, blocks {where}"


def main(tests):
    """Runs the named test, or all; prints one line each."""
    wanted = sys.argv[1:] or [t.__name__ for t in tests]
    failed = 0
    for test in tests:
        if test.__name__ not in wanted:
            continue
        began = time.monotonic()
        try:
            test()
            print(f"ok   {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except (Failure, Refused, OSError, subprocess.SubprocessError) as e:
            failed += 1
            print(f"FAIL {test.__name__} ({time.monotonic() - began:.1f} s): {e}", flush=True)
    sys.exit(1 if failed else 0)
