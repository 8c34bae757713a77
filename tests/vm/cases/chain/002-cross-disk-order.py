# SPDX-License-Identifier: Apache-2.0
import re

from vmtest.paths import VmError
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk, Guest

POINTS = 20

SCRIPT = r"""
files=$(disk files)
mkfs.ext4 -q "$files"
agent_setup 'batch_interval_ms = 50'
agent_start
blkferry protect "$(disk first)" "$(disk second)" "$files"
agent_wait CONTINUOUS
mkdir -p /mnt
mount "$files" /mnt
order "$(disk first)" "$(disk second)" /tmp/stop >/tmp/rounds &
order=$!
fio --name=load --filename="$(disk first)" --offset=1M --rw=randwrite --bs=4k --direct=1 --rate_iops=200 \
	--time_based --runtime=6h --output=/dev/null &
load=$!
( i=0; while [ ! -e /tmp/stop ]; do i=$((i + 1)); dd if=/dev/urandom of=/mnt/f$((i % 40)) bs=16k count=1 2>/dev/null; \
	[ $((i % 5)) -ne 0 ] || sync; done ) &
files_writer=$!
for n in $(seq POINTS); do
	mark_point "p$n"
done
touch /tmp/stop
wait $order $files_writer
kill $load
wait $load || true
report rounds "$(cat /tmp/rounds)"
umount /mnt
sync_host marked
""".replace("POINTS", str(POINTS))

CHECK = r"""
mkdir -p /mnt
for n in $(seq POINTS); do
	image=$(disk "p$n")
	mount -t ext4 "$image" /mnt
	find /mnt -type f -exec cat {} + >/dev/null
	umount /mnt
	e2fsck -f -n "$image"
done
""".replace("POINTS", str(POINTS))


def newest(image) -> int:
    """The number that the order writer last wrote to this disk; 0 if none."""
    with open(image, "rb") as disk:
        found = re.match(rb"blkferry-order (\d+)\n", disk.read(64))
    return int(found.group(1)) if found else 0


def host(vm) -> None:
    vm.expect("marked")
    server, images, seen = vm.context.server, [], []
    for n in range(1, POINTS + 1):
        first, second = newest(server.export(f"p{n}", 0)), newest(server.export(f"p{n}", 1))
        if not second <= first <= second + 1:
            raise VmError(f"point p{n}: disk A has {first}, disk B has {second}")
        seen.append(first)
        images.append(Disk(f"p{n}", file=str(server.export(f"p{n}", 2))))
    if len(set(seen)) < POINTS // 2 or seen != sorted(seen):
        raise VmError(f"the points do not follow the writer: {seen}")
    vm.reply("checked")
    check = vm.spawn("fsck", Guest(script=CHECK, disks=images, modules=["ext4"], binaries=["e2fsck"], timeout=200))
    outcome = check.wait()
    if not outcome.passed:
        raise VmError(f"fsck of the points: {outcome.reason or outcome.status}")


CASE = chain_case(
    "in 20 recovery points under load disk B is never ahead of disk A by the writer's order, and every ext4 is clean",
    chain_guest(SCRIPT, files=["cc:tests/vm/guest/tools/order"], binaries=["mkfs.ext4"], modules=["ext4"],
                disks=[Disk("first", "32M"), Disk("second", "16M"), Disk("files", "48M")]),
    host=host, check=None)
