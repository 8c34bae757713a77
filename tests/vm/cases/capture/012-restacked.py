# SPDX-License-Identifier: Apache-2.0
"""bcache without a cache hands the very bio it got to its backing disk: that disk sees no queue event, only an unknown completion.

On 6.12 it hands on a clone, which is announced and captured like any write: nothing to test there.
"""

import base64
import struct

from vmtest.spec import Case, Disk, Guest

MAGIC = bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")
POLYNOMIAL = 0x42F0E1EBA9EA3693


def crc64(data: bytes) -> int:
    """bcache's checksum: CRC-64 of ECMA-182, inverted before and after."""
    value = (1 << 64) - 1
    for byte in data:
        value ^= byte << 56
        for _ in range(8):
            value = (value << 1 ^ (POLYNOMIAL if value >> 63 else 0)) & (1 << 64) - 1
    return value ^ (1 << 64) - 1


def superblock() -> bytes:
    """Of a backing disk (version 1) with blocks of 512 bytes: what make-bcache -B writes at sector 8."""
    body = struct.pack("<QQ16s16s16s32sQQ64sQHHHHIHH", 8, 1, MAGIC, b"blkferry-backing", b"blkferry-no-set!", b"",
                       0, 0, b"", 0, 1, 1, 1, 0, 0, 1, 0)
    return (struct.pack("<Q", crc64(body)) + body).ljust(4096, b"\0")


SCRIPT = r"""
count() { # count ID NAME
	bft get "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"
}
follow() {
	rm -f /tmp/follow.txt
	bft follow 0 "$data" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
	follower=$!
	retry 60 sh -c 'bft get 0 | grep -q "gap_seq=0 "' || fail "no RING: $(bft get 0)"
}
load() {
	fio --name=load --filename=/dev/bcache0 --direct=1 --rw=randwrite --bsrange=4k-64k --ioengine=libaio --iodepth=16 --size=24M \
		--io_size="$1" --randseed="$2" --norandommap=1 --output=/tmp/fio.txt
}

data=$(disk data)
printf '%s' "$SUPERBLOCK" | base64 -d | dd of="$data" bs=4k seek=1 oflag=direct conv=notrunc 2>/dev/null
modprobe bcache
insmod /opt/blkferry/blkferry.ko
bft attach "$data" 4194304
follow
echo "$data" >/sys/fs/bcache/register
retry 30 test -b /dev/bcache0 || fail "bcache did not take its disk: $(dmesg | tail -n 5)"
ops=$(count 0 ops)
load 8M 1
unknown=$(count 0 unknown)
report unknown "$unknown"
[ "$unknown" -gt 100 ] || fail "the completions were not seen: $(bft get 0)"
kill -USR1 "$follower"
wait "$follower" || fail "writes that came without a queue event were lost: $(tail -n 2 /tmp/follow.txt)"
[ "$(count 0 ops)" -lt $((ops + 100)) ] || fail "this kernel announces them: the case tests nothing"

# The upper disk is protected too: its writes end in requests of the lower one, and both must know.
bft attach /dev/bcache0 4194304
follow
load 4M 2
report restacked "$(count 0 restacked)"
[ "$(count 0 restacked)" -gt 50 ] || fail "restacked writes were not told apart: $(bft get 0)"
kill -USR1 "$follower"
wait "$follower" || fail "with both protected: $(tail -n 2 /tmp/follow.txt)"
bft detach 1
bft detach 0
rmmod blkferry
"""

CASE = Case("bios that reach a disk without a queue event (bcache) are caught at their completion and re-read",
            Guest(script=SCRIPT, files=["kmod:blkferry.ko", "cc:tests/kmod/guest/bft"], binaries=["fio"], modules=["bcache"],
                  env={"SUPERBLOCK": base64.b64encode(superblock()).decode()},
                  disks=[Disk("data", "32M"), Disk("copy", "32M")], timeout=200), kernels=["6.1", "6.1-*"])
