# SPDX-License-Identifier: Apache-2.0
"""Guests of the chain cases: what each needs to run the agent, and the checks they share."""

from .chain import SOURCE, as_service, check_equal
from .paths import VmError
from .spec import Case, Guest

FILES = ("kmod:blkferry.ko", "build:blkferry", "build:blkferry-agent", "tests/vm/guest/chain.sh")


def chain_guest(script: str, **options) -> Guest:
    """A guest that can replicate: the script has chain.sh's functions and `lib.sh`'s."""
    options.setdefault("memory", 1024)
    options.setdefault("timeout", 280)
    options["files"] = (*FILES, *options.get("files", ()))
    options["binaries"] = ("fio", "jq", *options.get("binaries", ()))
    return Guest(script=". /opt/blkferry/chain.sh\n" + script, network=True, **options)


def check_hashes(point: str):
    """check= of a case whose guest reported hash0, hash1, … for the slots of its disks at the point."""
    def check(context) -> None:
        wanted = {int(key.removeprefix("hash")): value for key, value in context.reports.items()
                  if key.startswith("hash")}
        if not wanted:
            raise VmError("the guest reported no hash")
        check_equal(context, point, wanted)
    return check


def chain_case(title: str, guest: Guest, settings: dict | None = None, point: str = "final", **parts) -> Case:
    """A case whose guest ends quiesced with a recovery point that must equal the hashes it reported."""
    parts.setdefault("check", check_hashes(point))
    return Case(title, guest, services=as_service(**(settings or {})), **parts)


__all__ = ["FILES", "SOURCE", "chain_case", "chain_guest", "check_hashes"]
