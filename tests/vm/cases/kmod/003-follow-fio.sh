# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a consumer keeps a replica equal to the disk under random writes, discards and ext4
# modules: ext4
# binaries: fio mkfs.ext4 mount umount blkdiscard
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: data,size=64M,discard
# disk: copy,size=64M
# memory: 768
# timeout: 600

insmod /opt/blkferry/blkferry.ko
data=$(disk data)
id=$(bft attach "$data" 16777216 | sed -n 's/^disk=\([0-9]*\) .*/\1/p')
bft follow "$id" "$data" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
follower=$!

fio --name=random --filename="$data" --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=512-64k \
	--size=64M --io_size=24M --randseed=7 --output=/tmp/fio.txt || fail "fio: $(tail -n 3 /tmp/fio.txt)"
blkdiscard --offset 1048576 --length 4194304 "$data"
mkfs.ext4 -q "$data"
mount -t ext4 -o discard "$data" /mnt
fio --name=files --directory=/mnt --rw=randwrite --bs=4k --size=2M --nrfiles=8 --numjobs=2 --fsync=16 \
	--output=/tmp/fio2.txt || fail "fio on ext4: $(tail -n 3 /tmp/fio2.txt)"
rm /mnt/files.0.*
umount /mnt

bft get "$id"
kill -USR1 "$follower"
wait "$follower" || fail "the replica is not right: $(tail -n 2 /tmp/follow.txt)"
cat /tmp/follow.txt
bft get "$id" | tr ' ' '\n' >/tmp/counters
for counter in unknown inflight_full reused watchdog bad_consumer; do
	report "$counter" "$(sed -n "s/^$counter=//p" /tmp/counters)"
done
expect_equal "entries lost by the in-flight table" "$(sed -n 's/^watchdog=//p' /tmp/counters)" 0
bft detach "$id"
rmmod blkferry
