# SPDX-License-Identifier: Apache-2.0
"""Reads the log of dm-log-writes (drivers/md/dm-log-writes.c): an independent witness of what a disk was told to write.

    for entry in entries(path): ...      # in the order in which the device logged them
    Replay(size).find(entries, image)    # numbers of log entries after which the disk equals the image
"""

import dataclasses
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from .paths import VmError

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Entry:
    """One logged operation: first byte on the disk, its bytes (none for a flush), or the text of a mark."""

    offset: int
    data: bytes
    flags: int
    mark: str = ""


def entries(path: Path) -> Iterator[Entry]:
    """All entries up to the superblock's count. A discard raises: its content afterwards is not defined."""
    with open(path, "rb") as log:
        magic, version, count, sector = struct.unpack("<QQQI", log.read(28))
        if magic != MAGIC or version != 1:
            raise VmError(f"{path} is no log of dm-log-writes (magic {magic:x}, version {version})")
        position = sector
        for _ in range(count):
            log.seek(position)
            start, sectors, flags, length = struct.unpack("<QQQQ", log.read(32))
            position += sector
            if flags & MARK:
                yield Entry(0, b"", flags, log.read(length).rstrip(b"\0").decode())
                continue
            if flags & DISCARD:
                raise VmError(f"{path}: discard at {start}: this reader compares contents")
            data = b""
            if sectors:
                log.seek(position)
                data = log.read(sectors * sector)
                position += len(data)
            yield Entry(start * sector, data, flags)


class Replay:
    """A disk that begins as zeroes and is written entry by entry, compared with an image after each."""

    def __init__(self, size: int):
        self.disk = bytearray(size)

    def apply(self, entry: Entry) -> None:
        self.disk[entry.offset:entry.offset + len(entry.data)] = entry.data

    def find(self, log: Iterable[Entry], image: bytes) -> list[int]:
        """Every number n of entries after which the disk equals the image; the count of differing blocks is kept up to date."""
        if len(image) != len(self.disk):
            raise VmError(f"the image has {len(image)} bytes, the disk {len(self.disk)}")
        view = memoryview(image)
        differing = {at for at in range(0, len(image), BLOCK) if self.disk[at:at + BLOCK] != view[at:at + BLOCK]}
        found = [0] if not differing else []
        for number, entry in enumerate(log, 1):
            self.apply(entry)
            for at in range(entry.offset // BLOCK * BLOCK, entry.offset + len(entry.data), BLOCK):
                if self.disk[at:at + BLOCK] == view[at:at + BLOCK]:
                    differing.discard(at)
                else:
                    differing.add(at)
            if not differing:
                found.append(number)
        return found
