# SPDX-License-Identifier: Apache-2.0
"""A source and a server on this machine: certificates, configuration, the two daemons, a producer of writes."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BLKFERRY_BUILD_DIR") or ROOT / "build")
WORK = Path(os.environ.get("BLKFERRY_BENCH_DIR") or BUILD / "bench/work")
PROGRAMS = {"agent": "blkferry-agent", "server": "blkferry-server", "tool": "blkferry",
            "producer": "bench/bench_producer", "control": "bench/bench_control"}
TICKS = os.sysconf("SC_CLK_TCK")
RING_MIB = 64
WAIT_S = float(os.environ.get("BLKFERRY_BENCH_WAIT_S") or 300)  # deadline of every wait: generous, never a measure


class RigError(Exception):
    """What could not be done, with the end of the log that says why."""


def program(name: str) -> str:
    """Path of one of our programs; RigError if it is not built."""
    path = BUILD / PROGRAMS[name]
    if not path.is_file():
        raise RigError(f"{path} is not built")
    return str(path)


def tool(*arguments: str) -> str:
    done = subprocess.run([program("tool"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"blkferry {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(path: Path, command: str, timeout: float = WAIT_S, **members) -> dict:
    """One request on a control socket; the last line of the answer. RigError if it says no."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(json.dumps({"cmd": command, **members}).encode() + b"\n")
        rows: list[dict] = []
        for line in connection.makefile("rb"):
            answer = json.loads(line)
            if answer.get("end"):
                if not answer.get("ok"):
                    raise RigError(f"{command}: {answer.get('error')}")
                answer["rows"] = rows
                return answer
            rows.append(answer)
    raise RigError(f"{command}: {path} closed the connection")


def wait_for(what: str, condition, seconds: float = WAIT_S, pause: float = 0.02):
    """The first true value of condition(); RigError at the deadline. A control socket may come and go meanwhile."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except (OSError, ValueError) as error:
            last = error
        time.sleep(pause)
    raise RigError(f"waited {seconds:.0f} s for {what}; last: {last}")


def cpu_seconds(pid: int) -> dict[str, float]:
    """CPU seconds of a process per thread name, and "" for all of it (ended threads too)."""
    times: dict[str, float] = {}
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            name = text[text.index("(") + 1:text.rindex(")")]
            fields = text[text.rindex(")") + 2:].split()
            times[name] = times.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2:].split()
    times[""] = (int(fields[11]) + int(fields[12])) / TICKS
    return times


def resident_mib(pid: int, without: str = "") -> float:
    """Resident MiB of a process; without: mappings whose name holds this text are left out."""
    total = 0
    counted = True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first = line.split(" ", 1)[0]
        if "-" in first and not first.endswith(":"):
            counted = not (without and without in line)
        elif first == "Rss:" and counted:
            total += int(line.split()[1])
    return total / 1024


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Rig:
    """Server first, then producer, then agent. close() ends what was started; directory is emptied at the start."""

    def __init__(self, name: str, device: Path, data: str = "random", compression: str = "none", level: int = 1,
                 server_keys: dict | None = None, agent_keys: dict | None = None):
        self.directory = WORK / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.device, self.data = device, data
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen] = {}
        # Unix socket paths hold 107 bytes: relative ones do not, so they live in a short folder of their own.
        self.sockets = Path(f"/tmp/blkferry-bench-{os.getpid()}-{name}")
        shutil.rmtree(self.sockets, ignore_errors=True)
        self.sockets.mkdir(mode=0o700)
        self.agent_socket, self.server_socket = self.sockets / "agent.sock", self.sockets / "server.sock"
        self.ring_socket = self.sockets / "ring.sock"
        self._pki()
        self.agent_keys = {"compression": compression, "compression_level": level, "ring": f"{RING_MIB}MiB",
                           "log_level": "info", **(agent_keys or {})}
        self.server_keys = {"point_interval_s": 0, **(server_keys or {})}

    def _pki(self) -> None:
        tool("pki", "init", str(self.directory / "pki"))
        for role, name in (("server", "replica"), ("source", "bench")):
            tool("pki", "issue", str(self.directory / "pki"), role, name, "--out", str(self.directory))

    @staticmethod
    def _toml(values: dict) -> str:
        def text(value) -> str:
            return str(value) if isinstance(value, int) else json.dumps(value)
        return "".join(f"{key} = {text(value)}\n" for key, value in values.items())

    def _start(self, name: str, command: list[str], **options) -> subprocess.Popen:
        with open(self.directory / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, stderr=log, **({"stdout": log} | options))
        self.processes[name] = process
        return process

    def check(self) -> None:
        """RigError if one of the processes has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RigError(f"{name} ended with {process.returncode}: {self.log_end(name)}")

    def log_end(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-600:].replace("\n", " | ")

    def pid(self, name: str) -> int:
        return self.processes[name].pid

    def start_server(self) -> None:
        d = self.directory
        (d / "server.toml").write_text(self._toml({
            "listen": [f"127.0.0.1:{self.port}"], "store": str(d / "store"), "control_socket": str(self.server_socket),
            "cert": str(d / "server-replica.pem"), "key": str(d / "server-replica.key"), "ca": str(d / "pki/ca.pem"),
            **self.server_keys}))
        (d / "store").mkdir(exist_ok=True)
        self._start("server", [program("server"), "--config", str(d / "server.toml")])
        self.wait("the server", lambda: ask(self.server_socket, "status", 10))

    def start_producer(self) -> None:
        self._producer("producer", self.ring_socket, self.device, self.data)

    def _producer(self, name: str, ring: Path, device: Path, data: str) -> None:
        process = self._start(name, [program("producer"), "--socket", str(ring), "--device", str(device), "--data", data],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if process.stdout.readline().strip() != b"ready":
            raise RigError(f"{name} does not start: {self.log_end(name)}")

    def _agent(self, name: str, source: str, control: Path, ring: Path, keys: dict) -> None:
        d = self.directory
        config = d / f"{name}.toml"
        config.write_text(self._toml({
            "server": f"127.0.0.1:{self.port}", "source": source, "state_dir": str(d / f"{name}-state"),
            "control_socket": str(control), "cert": str(d / f"source-{source}.pem"), "key": str(d / f"source-{source}.key"),
            "ca": str(d / "pki/ca.pem"), **keys}))
        (d / f"{name}-state").mkdir(exist_ok=True)
        self._start(name, [program("agent"), "--config", str(config), "--tracker", f"socket:{ring}"])
        # It connects as soon as there is a disk to protect.
        self.wait(f"{name} to answer", lambda: ask(control, "status", 10))

    def start_agent(self) -> None:
        self._agent("agent", "bench", self.agent_socket, self.ring_socket, self.agent_keys)

    def start_idle_agent(self, source: str, device: Path) -> None:
        """One more machine with its agent, whose disk is synced when this returns."""
        control, ring = self.sockets / f"{source}.sock", self.sockets / f"{source}.ring"
        self._producer(f"producer-{source}", ring, device, "none")
        self._agent(source, source, control, ring, self.agent_keys | {"ring": "1MiB"})
        ask(control, "protect", devices=[str(device)])
        self.wait(f"{source} in RING", lambda: ask(control, "status", 10)["disks"][0]["state"] == "RING")

    def start(self) -> "Rig":
        self.start_server()
        self.start_producer()
        self.start_agent()
        return self

    def wait(self, what: str, condition, pause: float = 0.02):
        def checked():
            self.check()
            return condition()
        return wait_for(what, checked, pause=pause)

    def protect(self) -> None:
        ask(self.agent_socket, "protect", devices=[str(self.device)])

    def produce(self, command: str) -> dict:
        """One command of the producer (see bench/producer.cpp)."""
        process = self.processes["producer"]
        process.stdin.write(command.encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RigError(f"the producer ended: {self.log_end('producer')}")
        return json.loads(line)

    def agent_status(self) -> dict:
        return ask(self.agent_socket, "status", 10)

    def server_source(self) -> dict:
        """The server's row of our source; {} while it has none."""
        sources = ask(self.server_socket, "status", 10)["sources"]
        return next((row for row in sources if row["source"] == "bench"), {})

    def wait_in_ring(self) -> None:
        """The initial sync is over: writes go through the ring and nothing is dirty."""
        def ready() -> bool:
            disks = self.agent_status()["disks"]
            return bool(disks) and disks[0]["state"] == "RING"
        self.wait("state RING", ready)

    def wait_applied(self) -> None:
        """All that the server acknowledged is in its staging."""
        def applied() -> bool:
            row = self.server_source()
            return bool(row) and row["durable_mark"] == row["applied_mark"] and row["journal_bytes"] == 0
        self.wait("the server to apply its journal", applied)

    def cpu(self) -> dict[str, dict[str, float]]:
        return {name: cpu_seconds(self.pid(name)) for name in ("agent", "server")}

    def replica_equals(self, image: Path) -> bool:
        """Takes a point, exports it and compares it with an image, byte by byte."""
        point = ask(self.agent_socket, "mark", name="bench")["point"]
        copy = self.directory / "export.img"
        ask(self.server_socket, "export", source="bench", point=point, file=str(copy))
        equal = subprocess.run(["cmp", "-s", str(copy), str(image)], check=False).returncode == 0
        copy.unlink()
        return equal

    def close(self) -> None:
        def order(name: str) -> int:  # the agents go first
            return 2 if name == "server" else name.startswith("producer")
        for _, process in sorted(self.processes.items(), key=lambda item: order(item[0])):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        self.processes.clear()
        shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.directory / "store", ignore_errors=True)

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *_) -> None:
        self.close()
