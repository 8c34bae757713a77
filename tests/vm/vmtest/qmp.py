# SPDX-License-Identifier: Apache-2.0
"""A small client for QEMU's machine protocol. One thread uses it."""

import json
import socket
import time
from pathlib import Path

from .paths import VmError


class Qmp:
    """Connection to a QMP socket; commands return their result, events are kept until asked for."""

    def __init__(self, path: Path, timeout: float = 30.0):
        self.timeout = timeout
        self.events: list[dict] = []
        self.buffer = b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self._message(time.monotonic() + timeout)
        self.command("qmp_capabilities")

    def close(self) -> None:
        self.socket.close()

    def _message(self, deadline: float) -> dict:
        """Next message; VmError at the deadline or when QEMU closed the connection."""
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise VmError("QMP: no answer from QEMU in time")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise VmError("QMP: QEMU closed the connection")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def command(self, name: str, **arguments) -> object:
        """Run a command; underscores of argument names become dashes. An error answer raises VmError."""
        request = {"execute": name, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._message(deadline)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise VmError(f"QMP: {name} {arguments}: {answer['error'].get('desc', answer['error'])}")
            else:
                return answer.get("return")

    def wait_event(self, name: str, timeout: float | None = None, **data) -> dict:
        """The first event of this name whose data holds `data`; it is taken out of the list."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while True:
            for event in self.events:
                found = event.get("data", {})
                if event["event"] == name and all(found.get(key) == value for key, value in data.items()):
                    self.events.remove(event)
                    return event
            answer = self._message(deadline)
            if "event" in answer:
                self.events.append(answer)
