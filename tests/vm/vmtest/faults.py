# SPDX-License-Identifier: Apache-2.0
"""Guests of the fault cases: the chain's, with the length of a run from outside and oracles over many points.

FAULT_TRIALS (default 1) multiplies what a case does; scripts read it as $TRIALS.
"""

import os
import re

from .chain import as_service, check_equal
from .paths import VmError
from .recipes import chain_guest
from .spec import Case, Guest

TRIALS = max(1, int(os.environ.get("FAULT_TRIALS", "1")))

# point_equal NAME DEVICE...: a recovery point now, quiesced; the host compares it with each device, slot by slot.
# names: the points that were made, one a line. try_mark NAME: a point if no gap is open; else the refusal has to say so.
FUNCTIONS = r"""
TRIALS=${TRIALS:-1}
point_equal() {
	point=$1
	shift
	mark_point "$point"
	slot=0
	for device in "$@"; do
		report "_hash.$point.$slot" "$(medium_hash "$device")"
		slot=$((slot + 1))
	done
}
MADE=0
REFUSED=0
try_mark() {
	if blkferry mark --name "$1" >/tmp/mark.txt 2>&1; then
		MADE=$((MADE + 1))
	else
		grep -Eq 'gap|sync|backlog' /tmp/mark.txt || fail "mark $1 refused without the cause: $(cat /tmp/mark.txt)"
		REFUSED=$((REFUSED + 1))
	fi
}
count() { # count ID NAME
	bft get "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"
}
latency() { # tells per set what the module added, of the disk with the longest; counted since attach, so before any detach
	bft info >/tmp/latency.txt
	bft list | sed -n 's/^disk=\([0-9]*\) .*/\1/p' | while read -r id; do bft latency "$id"; done >>/tmp/latency.txt
	for set in submit submit_bitmap end frozen; do
		awk -F '[ =]' -v name="${set}_samples" '$1 == name && $2 > 0 && $8 >= max {
			max = $8; line = "p50=" $4 " p99=" $6 " max=" $8 " ns, " $2 " samples" } END { print line }' /tmp/latency.txt >/tmp/line.txt
		[ -z "$(cat /tmp/line.txt)" ] || report "latency_$set" "$(cat /tmp/line.txt)"
	done
}
kernel_clean() { # the agent stops as asked, every disk is unprotected, the module goes, nothing of it stays
	kill "$BF_AGENT"
	wait "$BF_AGENT"
	latency
	bft list | sed -n 's/^disk=\([0-9]*\) .*/\1/p' | while read -r id; do bft detach "$id"; done
	retry 30 rmmod blkferry || fail "the module does not unload"
	must_fail grep -i blkferry /proc/vmallocinfo
}
"""


def fault_guest(script: str, **options) -> Guest:
    """A chain guest with the functions above, bft, and a deadline that grows with FAULT_TRIALS."""
    options["timeout"] = options.get("timeout", 200) + 60 * (TRIALS - 1)
    options["files"] = ("cc:tests/kmod/guest/bft", "cc:tests/vm/guest/tools/order", *options.get("files", ()))
    options["env"] = {"TRIALS": str(TRIALS), **options.get("env", {})}
    return chain_guest(FUNCTIONS + script, **options)


def check_reported(context) -> None:
    """Each "_hash.POINT.SLOT" that the guest reported is that of the point's image."""
    points: dict[str, dict[int, str]] = {}
    for key, value in context.reports.items():
        if found := re.fullmatch(r"_hash\.([^.]+)\.(\d+)", key):
            points.setdefault(found.group(1), {})[int(found.group(2))] = value
    if not points:
        raise VmError("the guest reported no hash")
    for point, wanted in points.items():
        check_equal(context, point, wanted)


def order_of(image) -> int:
    """The number that guest/tools/order last wrote to this disk; 0 if none."""
    with open(image, "rb") as disk:
        found = re.match(rb"blkferry-order (\d+)\n", disk.read(64))
    return int(found.group(1)) if found else 0


def check_order(context, prefix: str = "p", least: int = 1) -> int:
    """In every point whose name begins so, disk 1 is never ahead of disk 0, nor more than one round behind."""
    names = [point["point"] for point in context.server.points() if point["point"].startswith(prefix)]
    if len(names) < least:
        raise VmError(f"only {len(names)} points were made under load, {least} are wanted")
    before = 0
    for name in names:
        images = [context.server.export(name, slot) for slot in (0, 1)]
        first, second = (order_of(image) for image in images)
        for image in images:
            image.unlink()
        if not second <= first <= second + 1:
            raise VmError(f"point {name}: disk 0 has {first}, disk 1 has {second}")
        if first < before:
            raise VmError(f"point {name} has {first}, the one before it {before}")
        before = first
    return len(names)


def fault_case(title: str, guest: Guest, ordered: int | None = None, settings: dict | None = None, **parts) -> Case:
    """A case whose quiesced points must be equal; `ordered`: so many points p… under load keep the order as well."""
    def check(context) -> None:
        if ordered is not None:
            check_order(context, least=ordered)
        check_reported(context)
    parts.setdefault("check", check)
    return Case(title, guest, services=as_service(**(settings or {})), **parts)
