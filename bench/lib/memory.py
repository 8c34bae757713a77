# SPDX-License-Identifier: Apache-2.0
"""Resident memory of the daemons: while copying, under load, and with many idle sources."""

import contextlib
import threading

from .initial import make_image
from .pipeline import usr_data
from .rig import WORK, Rig, RigError, resident_mib, tool
from .table import Table

RINGS = "blkferry-ring"  # name of the ring's mappings when a producer serves them
LOAD_MIB = 512
IDLE_SOURCES = 50
BASE_MIB, IDLE_MIB, BUSY_MIB = 64, 1, 16


class Watch:
    """Samples the resident memory of agent (without rings) and server; peak[name] in MiB."""

    def __init__(self, rig: Rig, names: tuple[str, ...] = ("agent", "server")):
        self.rig, self.names = rig, names
        self.peak = dict.fromkeys(names, 0.0)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _sample(self) -> None:
        for name in self.names:
            with contextlib.suppress(OSError):
                self.peak[name] = max(self.peak[name], resident_mib(self.rig.pid(name), RINGS if name == "agent" else ""))

    def _run(self) -> None:
        while not self.stop.wait(0.05):
            self._sample()

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        self.thread.join()
        self._sample()


def one_source(table: Table) -> None:
    image = make_image()
    with Rig("memory", image, data=str(usr_data()), compression="lz4") as rig:
        rig.start()
        table.add("memory_agent_start", resident_mib(rig.pid("agent"), RINGS), "MiB", note="resident, connected, nothing protected")
        with Watch(rig) as sync:
            rig.protect()
            rig.wait_in_ring()
            rig.wait_applied()
        with Watch(rig) as load:
            rig.produce(f"write {LOAD_MIB}")
            rig.wait_applied()
        limit = BASE_MIB
        table.add("memory_agent_initial_sync", sync.peak["agent"], "MiB", limit, note="peak resident besides the rings")
        table.add("memory_agent_load", load.peak["agent"], "MiB", limit, note="peak resident besides the rings, lz4")
        table.add("memory_server_busy_source", max(sync.peak["server"], load.peak["server"]), "MiB", BASE_MIB + BUSY_MIB,
                  note="peak resident, one busy source")


def idle_sources(table: Table) -> None:
    """Many sources without writes, each with a disk, and one that is busy."""
    disk = WORK / "memory.disk"
    with open(disk, "wb") as file:
        file.truncate(256 << 20)
    with Rig("memory-idle", disk, data=str(usr_data()), compression="lz4") as rig:
        devices = []
        for number in range(IDLE_SOURCES):
            device = rig.directory / f"idle{number}.disk"
            with open(device, "wb") as file:
                file.truncate(16 << 20)
            devices.append(device)
            tool("pki", "issue", str(rig.directory / "pki"), "source", f"idle{number}", "--out", str(rig.directory))
        rig.start_server()
        empty = resident_mib(rig.pid("server"))
        rig.start_producer()
        rig.start_agent()
        rig.protect()
        rig.wait_in_ring()
        for number, device in enumerate(devices):
            rig.start_idle_agent(f"idle{number}", device)
        rig.wait_applied()
        idle = resident_mib(rig.pid("server"))
        with Watch(rig, ("server",)) as watch:
            rig.produce(f"write {LOAD_MIB}")
            rig.wait_applied()
        table.add("memory_server_start", empty, "MiB", BASE_MIB, note="resident, no source")
        table.add("memory_server_per_idle_source", (idle - empty) / (IDLE_SOURCES + 1), "MiB", IDLE_MIB,
                  note=f"{IDLE_SOURCES + 1} connected sources with a synced disk each")
        table.add("memory_server_fleet", watch.peak["server"], "MiB", BASE_MIB + IDLE_MIB * IDLE_SOURCES + BUSY_MIB,
                  note=f"peak resident, {IDLE_SOURCES} idle sources and a busy one")
    disk.unlink()


def run(table: Table) -> None:
    for what in (one_source, idle_sources):
        try:
            what(table)
        except (RigError, OSError) as error:
            table.skip(f"memory, {what.__name__.replace('_', ' ')}", str(error))
