# SPDX-License-Identifier: Apache-2.0
"""The bench of the cases about malicious sources: an honest one beside them, that must not notice."""

import contextlib
import os
import time

from faultlib import Failure, FaultBench, call
from wire import MIB, Agent

#: Anonymous memory that an attack may add to the server's for as long as it lasts.
MEMORY_MAX = 96 * MIB
#: An honest mark beside an attack, on a loaded machine.
MARK_S = 30
LIGHT = {"pattern": "ordered", "rate": 50}


class Victim(FaultBench):
    """A server with an honest source under light load, and certificates of two others."""

    def __init__(self, server=""):
        super().__init__(LIGHT, linked=False, server=server)
        for name in ("mallory", "eve"):
            self.pki("issue", self.dir / "ca", "source", name, "--out", self.dir)
        self.peak = self.base = 0
        self.slowest_mark_s = 0.0

    def __enter__(self):
        super().__enter__()
        self.run()
        self.base = self.server.rss()
        return self

    def mallory(self, name="mallory", **more):
        return Agent(self, self.dir / f"source-{name}", name, **more)

    def look(self):
        """One honest mark, and the server's memory."""
        began = time.monotonic()
        self.mark()
        self.slowest_mark_s = max(self.slowest_mark_s, time.monotonic() - began)
        self.peak = max(self.peak, self.server.rss())
        if self.slowest_mark_s > MARK_S:
            raise Failure(f"an honest mark took {self.slowest_mark_s:.1f} s")
        if self.peak > self.base + MEMORY_MAX:
            raise Failure(f"the server's memory grew from {self.base >> 20} to {self.peak >> 20} MiB")

    def finish(self, what):
        """The honest source never lost its connection, and its replica is right."""
        self.look()
        if not self.server.alive:
            raise Failure("the server died")
        lost = [line for line in self.server.text().splitlines() if "event=disconnected" in line and f"source={self.source} " in line]
        if lost:
            raise Failure(f"the honest source was disconnected: {lost[0]}")
        self.end(what)

    def source_row(self, name):
        for s in call(self.server_socket, "status")["sources"]:
            if s["source"] == name:
                return s
        return None

    def store_bytes(self, name):
        """On the disk, of one source."""
        total = 0
        for folder, _, files in os.walk(self.dir / "store" / "sources" / name):
            for f in files:
                with contextlib.suppress(OSError):
                    total += os.stat(os.path.join(folder, f)).st_blocks * 512
        return total


def counters(bench):
    return call(bench.server_socket, "status")["counters"]
