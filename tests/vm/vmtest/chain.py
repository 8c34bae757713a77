# SPDX-License-Identifier: Apache-2.0
"""A blkferry-server on the host's loopback for guests that run the module and the agent.

    with Server(directory) as server:      # starts it with fresh certificates and an empty store
        env = server.guest_env()           # for the guest: guest/chain.sh reads it
        server.kill(); server.start()      # any number of times; the store stays

Certificates are made by the product's own `blkferry pki`.
"""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .paths import BUILD, VmError
from .vm import free_port

SOURCE = "guest"


def program(name: str, folders: tuple[Path, ...] = (BUILD,)) -> str:
    """Path of one of our programs: of the build directory, or of other folders."""
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    raise VmError(f"{folders[0] / name} is not built: run make")


class Server:
    """One blkferry-server process, of the programs in `folders`. Not thread-safe."""

    def __init__(self, directory: Path, folders: tuple[Path, ...] = (BUILD,), **settings: str | int):
        self.directory = directory
        self.folders = folders
        self.settings = settings
        self.port = free_port()
        # A socket path holds 107 bytes, so it does not go below the artefacts.
        self.run = Path(tempfile.mkdtemp(prefix="bf-chain-", dir="/tmp"))
        self.socket = self.run / "server.sock"
        self.store = directory / "store"
        self.pki = directory / "pki"
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        self.directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.rmtree(self.pki, ignore_errors=True)
        self.store.mkdir()
        self._pki("init", str(self.pki), "--name", "test-ca")
        self._pki("issue", str(self.pki), "server", "host", "--out", str(self.pki))
        self._pki("issue", str(self.pki), "source", SOURCE, "--out", str(self.pki))
        self._configure()
        self.start()
        return self

    def __exit__(self, *_exc) -> None:
        self.kill()
        shutil.rmtree(self.run, ignore_errors=True)

    def _pki(self, *arguments: str) -> None:
        done = subprocess.run([program("blkferry", self.folders), "pki", *arguments], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise VmError(f"blkferry pki {arguments[0]} failed: {done.stderr.strip()}")

    def _configure(self) -> None:
        values: dict[str, object] = {
            "listen": [f"127.0.0.1:{self.port}"], "store": str(self.store), "control_socket": str(self.socket),
            "cert": str(self.pki / "server-host.pem"), "key": str(self.pki / "server-host.key"),
            "ca": str(self.pki / "ca.pem"), "point_interval_s": 0, **self.settings}
        # JSON's texts, numbers and lists are TOML's too.
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        (self.directory / "server.toml").write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Starts the process and waits until it answers on its control socket."""
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen([program("blkferry-server", self.folders), "--config",
                                             str(self.directory / "server.toml")],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, VmError):
                self.control("status")
                return
            time.sleep(0.05)
        tail = (self.directory / "server.log").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise VmError(f"blkferry-server did not start:\n{tail}")

    def kill(self) -> None:
        """SIGKILL, as a crash; the store stays as it is."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def control(self, command: str, timeout: float = 600, **members: object) -> dict:
        """One request to the control socket; returns the last line of the answer, raises if it is not ok."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(timeout)
            client.connect(str(self.socket))
            client.sendall(json.dumps({"cmd": command, **members}).encode() + b"\n")
            with client.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    answer = json.loads(line)
                    if answer.get("end"):
                        if not answer["ok"]:
                            raise VmError(f"server refused {command}: {answer.get('error')}")
                        return answer
        raise VmError(f"server closed its control socket during {command}")

    def source(self) -> dict:
        """How the guest's replica stands."""
        for row in self.control("status")["sources"]:
            if row["source"] == SOURCE:
                return row
        return {}

    def points(self) -> list[dict]:
        return self.control("points", source=SOURCE)["points"]

    def export(self, point: str, slot: int) -> Path:
        """The image of one disk of a recovery point as a sparse file; checks the hash that the server told."""
        file = self.directory / f"{point}.{slot}.img"
        file.unlink(missing_ok=True)
        answer = self.control("export", source=SOURCE, point=point, slot=slot, file=str(file))
        if answer["sha256"] != sha256(file):
            raise VmError(f"{file} does not have the hash that the server told")
        return file

    def guest_env(self) -> dict[str, str]:
        """What guest/chain.sh needs to connect."""
        def text(name: str) -> str:
            return base64.b64encode((self.pki / name).read_bytes()).decode()
        return {"BF_SERVER": f"10.0.2.2:{self.port}", "BF_SOURCE": SOURCE, "BF_CA": text("ca.pem"),
                "BF_CERT": text(f"source-{SOURCE}.pem"), "BF_KEY": text(f"source-{SOURCE}.key")}


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, holes included."""
    digest = hashlib.sha256()
    with open(file, "rb", buffering=0) as source:
        while data := source.read(4 << 20):
            digest.update(data)
    return digest.hexdigest()


def as_service(**settings: str | int):
    """services= of a case: a server for the run of the case, reachable as context.server."""
    @contextlib.contextmanager
    def service(context):
        with Server(context.directory / "server", **settings) as server:
            context.server = server
            yield server.guest_env()
    return service


def check_equal(context, point: str, wanted: dict[int, str]) -> None:
    """Fails unless each disk (slot -> SHA-256 that the guest computed) of the point equals the source."""
    for slot, digest in wanted.items():
        image = context.server.export(point, slot)
        if sha256(image) != digest:
            raise VmError(f"point {point}: disk {slot} differs from the source")
        os.unlink(image)
