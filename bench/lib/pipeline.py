# SPDX-License-Identifier: Apache-2.0
"""Ring -> agent -> TLS -> server journal and staging, beside the control program, run by run."""

import json
import os
import subprocess
from pathlib import Path

from .rig import WORK, Rig, RigError, program
from .table import Table

DISK_MIB = 1024
POOL = 64 << 20
CASES = (  # name, codec, data
    ("none", "none", "usr"),
    ("lz4", "lz4", "usr"),
    ("zstd1", "zstd", "usr"),
    ("lz4_random", "lz4", "random"),
)


def usr_data() -> Path:
    """64 MiB of this machine's /usr files one after another: what the writes of the pipeline hold."""
    path = WORK / "usr.data"
    if path.exists() and path.stat().st_size == POOL:
        return path
    with open(path, "wb") as out:
        for top in ("/usr/bin", "/usr/share", "/usr/lib"):
            for folder, folders, files in os.walk(top):
                folders.sort()
                for name in sorted(files):
                    file = Path(folder) / name
                    if out.tell() >= POOL:
                        break
                    if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK):
                        out.write(file.read_bytes()[:4 << 20])
                # A quarter from programs, the rest from what lies beside them.
                if top == "/usr/bin" and out.tell() > POOL // 4:
                    break
        out.truncate(POOL)
    return path


def control(codec: str, data: str, mib: int, apply: bool, seed: int) -> dict:
    """One run of the control program; like the producer it writes other places in each run (seed)."""
    journal, image = WORK / "control.journal", WORK / "control.image"
    command = [program("control"), "--codec", codec, "--data", data, "--mib", str(mib), "--journal", str(journal),
               "--seed", str(seed)]
    if apply:
        command += ["--apply", str(image), "--image-mib", str(DISK_MIB)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    journal.unlink(missing_ok=True)
    if done.returncode:
        raise RigError(f"bench_control: {done.stderr}")
    return json.loads(done.stdout)


def ours(rig: Rig, mib: int) -> dict:
    """One run of the whole chain: wall to the last acknowledgement, CPU until all is applied."""
    rig.wait_applied()
    before = rig.cpu()
    result = rig.produce(f"write {mib}")
    rig.wait_applied()
    after = rig.cpu()
    for name in after:
        result[f"{name}_cpu_s"] = after[name][""] - before[name][""]
        result[f"{name}_threads"] = {thread: round(seconds - before[name].get(thread, 0.0), 2)
                                     for thread, seconds in after[name].items() if thread}
    return result


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def case(table: Table, name: str, codec: str, data: str, runs: int, mib: int) -> None:
    disk = WORK / "pipeline.disk"
    with open(disk, "wb") as file:
        file.truncate(DISK_MIB << 20)
    (WORK / "control.image").unlink(missing_ok=True)
    pairs: list[tuple[dict, dict]] = []
    plain: list[dict] = []
    with Rig(f"pipeline-{name}", disk, data=data, compression=codec) as rig:
        rig.start()
        rig.protect()
        rig.wait_in_ring()
        for number in range(runs + 1):  # the first round warms up
            pair = control(codec, data, mib, True, 2 + number), ours(rig, mib)
            if number:
                pairs.append(pair)
                plain.append(control(codec, data, mib, False, 2 + number))
    disk.unlink()
    (WORK / "control.image").unlink(missing_ok=True)
    gb = mib * 2**20 / 1e9

    def control_cpu(run: dict) -> float:
        return run["source_cpu_s"] + run["server_cpu_s"]

    def our_cpu(run: dict) -> float:
        return run["agent_cpu_s"] + run["server_cpu_s"]

    table.add(f"pipeline_{name}_control", median([gb / c["wall_s"] for c, _ in pairs]), "GB/s",
              note="control, journal only: {:.3g} GB/s, CPU {:.3g} + {:.3g} s/GB".format(
                  median([gb / c["wall_s"] for c in plain]), median([c["source_cpu_s"] for c in plain]) / gb,
                  median([c["server_cpu_s"] for c in plain]) / gb))
    table.add(f"pipeline_{name}_blkferry", median([gb / o["wall_s"] for _, o in pairs]), "GB/s",
              note=f"threads of the last run: {pairs[-1][1]['agent_threads']} {pairs[-1][1]['server_threads']}")
    table.add(f"pipeline_{name}_wall", median([c["wall_s"] / o["wall_s"] for c, o in pairs]), "of control", 0.85, most=False,
              note="speed, durable at the acknowledgement")
    table.add(f"pipeline_{name}_cpu", median([our_cpu(o) / control_cpu(c) for c, o in pairs]), "of control", 1.20,
              note="CPU s/GB: agent {:.3g} (control {:.3g}), server with apply {:.3g} (control {:.3g})".format(
                  median([o["agent_cpu_s"] for _, o in pairs]) / gb, median([c["source_cpu_s"] for c, _ in pairs]) / gb,
                  median([o["server_cpu_s"] for _, o in pairs]) / gb, median([c["server_cpu_s"] for c, _ in pairs]) / gb))


def run(table: Table, runs: int, mib: int) -> None:
    data = {"usr": str(usr_data()), "random": "random"}
    for name, codec, kind in CASES:
        try:
            case(table, name, codec, data[kind], runs, mib)
        except (RigError, OSError) as error:
            table.skip(f"pipeline {name}", str(error))
