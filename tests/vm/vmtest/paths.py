# SPDX-License-Identifier: Apache-2.0
"""Places on the host: the repository, the build directory, the cache and the machine-wide lock.

Each can be moved by an environment variable, read once at import.
"""

import contextlib
import fcntl
import os
import sys
from pathlib import Path

VM_DIR = Path(__file__).resolve().parent.parent
REPO = VM_DIR.parent.parent
BUILD = Path(os.environ.get("BLKFERRY_BUILD_DIR", REPO / "build"))
RESULTS = Path(os.environ.get("BLKFERRY_VM_RESULTS", BUILD / "vm"))
CACHE = Path(os.environ.get("BLKFERRY_CACHE", "/var/cache/blkferry"))
LOCK = Path(os.environ.get("BLKFERRY_VM_LOCK", "/tmp/vm.lock"))
# The firmware of guests that boot by UEFI, and its variables, beside the guests' folders of a case.
UEFI = Path("/usr/share/OVMF")
UEFI_VARIABLES = "uefi-variables.fd"


class VmError(Exception):
    """Something the user can act upon: what happened, to which object, what to do."""


@contextlib.contextmanager
def file_lock(path: Path, what: str):
    """Hold an exclusive flock(2) on `path`; says on stderr once that it waits. Works together with flock(1)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for {what} ({path})", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def machine_lock():
    """One test at a time may have guests running on this machine."""
    return file_lock(LOCK, "another virtual machine to end")
