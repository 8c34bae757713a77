# SPDX-License-Identifier: Apache-2.0
"""The initial copy of a disk, raced against nbdcopy and qemu-img on the same image, one round of all after another."""

import contextlib
import os
import re
import resource
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from .rig import WORK, Rig, RigError, free_port, wait_for
from .table import Table

IMAGE_MIB = 1024
FILL = 0.45  # part of the image that is not zero
SPARSE_GIB = 16
SOURCES = ("/usr/share", "/usr/bin")


def gather(target: Path, wanted: int) -> int:
    """Copies files of SOURCES, in order of their names, until `wanted` bytes (of 4 KiB blocks) are there."""
    done = 0
    for top in SOURCES:
        quota = wanted * (0.75 if top == SOURCES[0] else 1)
        for folder, folders, files in os.walk(top):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                    continue
                size = (os.path.getsize(path) + 4095) // 4096 * 4096
                if done + size > quota:
                    continue
                to = target / path.lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
                done += size
            if done > quota - 65536:
                break
    return done


def make_image(mib: int = IMAGE_MIB) -> Path:
    """An ext4 image with part of this machine's /usr in it; made once, kept in the work folder."""
    image = WORK / f"image-{mib}.img"
    if image.exists():
        return image
    WORK.mkdir(parents=True, exist_ok=True)
    tree = WORK / "image-tree"
    shutil.rmtree(tree, ignore_errors=True)
    gather(tree, int(mib * FILL) << 20)
    part = image.with_suffix(".part")
    part.unlink(missing_ok=True)
    made = subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,hash_seed=00000000-0000-0000-0000-"
                           "000000000001", "-U", "00000000-0000-0000-0000-000000000001", "-d", str(tree), str(part),
                           f"{mib}M"], capture_output=True, text=True, check=False)
    shutil.rmtree(tree)
    if made.returncode:
        raise RigError(f"mke2fs: {made.stderr}")
    part.rename(image)
    return image


def data_bytes(image: Path) -> int:
    """Bytes of the image that are not zero, in blocks of 4 KiB."""
    zero = bytes(4096)
    total = 0
    with open(image, "rb") as file:
        while data := file.read(1 << 20):
            if data.count(0) != len(data):
                total += sum(4096 for at in range(0, len(data), 4096) if data[at:at + 4096] != zero)
    return total


def equal(one: Path, two: Path) -> bool:
    return subprocess.run(["cmp", "-s", str(one), str(two)], check=False).returncode == 0


@contextlib.contextmanager
def nbdkit(target: Path, size: int, psk: Path | None = None):
    """nbdkit's file plugin over a fresh sparse file; yields (port, cpu()): CPU seconds of the server."""
    target.unlink(missing_ok=True)
    with open(target, "wb") as file:
        file.truncate(size)
    port = free_port()
    command = ["nbdkit", "-f", "--exit-with-parent", "-i", "127.0.0.1", "-p", str(port)]
    if psk:
        command += ["--tls=require", f"--tls-psk={psk}"]
    process = subprocess.Popen([*command, "file", str(target)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # The table of listening sockets, not a trial connection: nbdkit would count that as a client.
        listening = re.compile(rf":{port:04X} \S+ 0A ")
        wait_for("nbdkit", lambda: listening.search(Path("/proc/net/tcp").read_text()), 30)
        yield port
    finally:
        process.terminate()
        process.wait()
        target.unlink(missing_ok=True)


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def race_nbd(command: list[str], image: Path, psk: Path | None) -> tuple[float, float]:
    """Wall and CPU seconds (both ends) of one copy to a fresh nbdkit; the result is compared. {uri} is the target."""
    target = WORK / "nbd-target.img"
    before = children_cpu()
    with nbdkit(target, image.stat().st_size, psk) as port:
        uri = f"nbd://127.0.0.1:{port}"
        if psk:
            uri = f"nbds://bench@127.0.0.1:{port}/?tls-psk-file={psk}"
        begin = time.monotonic()
        done = subprocess.run([word.replace("{uri}", uri) for word in command], capture_output=True, text=True, check=False)
        wall = time.monotonic() - begin
        if done.returncode:
            raise RigError(f"{command[0]}: {done.stderr.strip()[-300:]}")
        compared = children_cpu()
        if not equal(image, target):
            raise RigError(f"{command[0]}: the copy differs from the image")
        compared = children_cpu() - compared
    return wall, children_cpu() - before - compared


def race_ours(image: Path, compression: str, check: bool = True) -> tuple[float, float]:
    """Wall seconds from `protect` to the end of the resync, all durable; CPU seconds of agent and server until applied."""
    with Rig("initial", image, compression=compression) as rig:
        rig.start()
        before = rig.cpu()
        begin = time.monotonic()
        rig.protect()
        rig.wait_in_ring()
        wall = time.monotonic() - begin
        rig.wait_applied()
        after = rig.cpu()
        if check and not rig.replica_equals(image):
            raise RigError("the replica differs from the image")
    return wall, sum(after[name][""] - before[name][""] for name in after)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def run(table: Table, runs: int) -> None:
    image = make_image()
    logical = image.stat().st_size / 1e9
    psk = WORK / "bench.psk"
    psk.write_text(f"bench:{secrets.token_hex(32)}\n")
    os.chmod(psk, 0o600)
    nbdcopy = ["nbdcopy", str(image), "{uri}"]
    racers = {
        "nbdcopy": lambda: race_nbd(nbdcopy, image, None),
        "nbdcopy_flush": lambda: race_nbd(["nbdcopy", "--flush", str(image), "{uri}"], image, None),
        "nbdcopy_tls": lambda: race_nbd(nbdcopy, image, psk),
        "qemu_img": lambda: race_nbd(["qemu-img", "convert", "-f", "raw", "-O", "raw", "-n", str(image), "{uri}"], image, None),
        "blkferry": lambda: race_ours(image, "none"),
    }
    walls: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    for round_number in range(runs + 1):  # the first one warms the caches
        for name, race in list(racers.items()):
            try:
                wall, cpu = race()
            except (RigError, OSError) as error:
                table.skip(f"initial copy by {name}", str(error))
                del racers[name]
                continue
            if round_number:
                walls.setdefault(name, []).append(wall)
                cpus.setdefault(name, []).append(cpu)
    table.add("initial_image", image.stat().st_size / 2**20, "MiB", note=f"of it {data_bytes(image) / 2**20:.0f} MiB not zero")
    for name, values in walls.items():
        table.add(f"initial_{name}_wall", median(values), "s")
        table.add(f"initial_{name}_cpu", median(cpus[name]) / logical, "CPU-s/GB", 1.0 if name == "blkferry" else None,
                  note="both ends, per logical GB")
    if "blkferry" in walls and "nbdcopy" in walls:
        pairs = zip(walls["blkferry"], walls["nbdcopy"])
        table.add("initial_vs_nbdcopy", median([ours / theirs for ours, theirs in pairs]), "times wall", 1.9)
    if "blkferry" in walls and "nbdcopy_tls" in walls:
        pairs = zip(walls["blkferry"], walls["nbdcopy_tls"])
        table.add("initial_faster_than_nbdcopy_tls", median([theirs / ours for ours, theirs in pairs]), "times", 2.5, most=False)
    sparse(table)


def sparse(table: Table) -> None:
    """A large disk that is zero almost everywhere."""
    image = WORK / "sparse.img"
    image.unlink(missing_ok=True)
    with open(image, "wb") as file:
        file.truncate(SPARSE_GIB << 30)
        for gib in range(SPARSE_GIB):
            file.seek(gib << 30)
            file.write(os.urandom(1 << 20))
    try:
        wall, cpu = race_ours(image, "none", check=False)
        table.add("initial_zero_regions", image.stat().st_size / wall / 1e9, "GB/s logical", 8.0, most=False,
                  note=f"{SPARSE_GIB} GiB sparse file, 1 MiB of data per GiB, {cpu / (image.stat().st_size / 1e9):.3f} CPU-s/GB")
    except (RigError, OSError) as error:
        table.skip("initial copy of zero regions", str(error))
    finally:
        image.unlink(missing_ok=True)
