# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
modprobe dm-mod
modprobe raid1
mdadm --create /dev/md0 --level=1 --raid-devices=2 --metadata=1.2 --assume-clean --run "$(disk mirror1)" "$(disk mirror2)"
linear=$(disk linear)
dm_create stripe "0 65536 linear $linear 2048
65536 32768 linear $linear 131072"
parted=$(disk parted)
printf 'label: gpt\nsize=40MiB\nsize=40MiB\n' | sfdisk -q "$parted"
mkfs.ext4 -q "${parted}1"

plain=$(disk plain)
fio --name=before --filename="$plain" --rw=write --bs=1M --size=64M --direct=1 --output=/dev/null
agent_setup
agent_start
blkferry protect "$plain" /dev/md0 /dev/mapper/stripe "$parted"
agent_wait CONTINUOUS
blkferry status

# Mixed sizes, direct and buffered; queue depth 256 so that NOWAIT submissions die and come back.
fio --output=/tmp/fio.log --randrepeat=1 --randseed=7 --norandommap=1 \
	--name=mixed --filename="$plain" --rw=randwrite --bsrange=512-8M --size=96M --io_size=64M --direct=1 --ioengine=psync \
	--name=deep --filename="$plain" --rw=randwrite --bs=4k --size=96M --io_size=24M --direct=1 --ioengine=io_uring --iodepth=256 \
	--name=buffered --filename=/dev/md0 --rw=randwrite --bsrange=512-1M --size=48M --io_size=48M --fsync=64 \
	--name=mapped --filename=/dev/mapper/stripe --rw=randwrite --bsrange=4k-256k --size=40M --io_size=32M --direct=1 --ioengine=io_uring --iodepth=64 \
	--name=table --filename="${parted}2" --rw=randwrite --bsrange=4k-64k --size=32M --io_size=16M --direct=1
grep -q 'err= 0' /tmp/fio.log
mkdir -p /mnt
mount "${parted}1" /mnt
for i in $(seq 50); do dd if=/dev/urandom of=/mnt/file$i bs=64k count=2 2>/dev/null; done
rm -f /mnt/file1*
umount /mnt
blkdiscard --offset 8M --length 6M "$plain"
blkdiscard --zeroout --offset 20M --length 5M "$plain"
blkdiscard --offset 4M --length 3M /dev/mapper/stripe
dd if=/dev/urandom of="$plain" bs=64k seek=340 count=4 oflag=direct conv=notrunc 2>/dev/null
sync

mark_point final
report hash0 "$(medium_hash "$plain")"
report hash1 "$(medium_hash /dev/md0)"
report hash2 "$(medium_hash /dev/mapper/stripe)"
report hash3 "$(medium_hash "$parted")"
blkferry verify --source
blkferry unprotect "$plain" /dev/md0 /dev/mapper/stripe "$parted"
kill "$BF_AGENT"
wait "$BF_AGENT"
rmmod blkferry
"""

CASE = chain_case(
    "after mixed writes, discards and zeroes on plain, partitioned, dm-linear and md disks the recovery point equals the source",
    chain_guest(SCRIPT, modules=["dm-mod", "raid1", "md-mod", "ext4"],
                binaries=["mdadm", "dmsetup", "sfdisk", "blkdiscard", "mkfs.ext4"],
                disks=[Disk("plain", "96M", discard=True), Disk("mirror1", "64M"), Disk("mirror2", "64M"),
                       Disk("linear", "96M", discard=True), Disk("parted", "96M")]))
