# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# The source machine of the demo: a live ext4 and a raw disk under load, replicated to the server on the host.
# Lines that begin with "demo: " are shown to the reader.
set +x
# shellcheck source=tests/vm/guest/chain.sh
. /opt/blkferry/chain.sh

files=$(disk files)
raw=$(disk raw)
mkfs.ext4 -q -L files "$files"
mkdir -p /mnt
mount "$files" /mnt
echo "written before replication began" >/mnt/early.txt
dd if=/dev/urandom of="$raw" bs=1M count=48 oflag=direct 2>/dev/null
echo "demo: kernel $(uname -r), disks $files (ext4, mounted) and $raw (raw), both in use"

# Writers: numbered files with their checksum beside them, and fio on the raw disk.
( n=0; while [ ! -e /tmp/stop ]; do n=$((n + 1)); f=/mnt/file$((n % 60)); dd if=/dev/urandom of=$f bs=32k count=2 2>/dev/null; \
	sha256sum $f >$f.sum; [ $((n % 10)) -ne 0 ] || sync; done ) &
writer=$!
fio --name=raw --filename="$raw" --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=16 --rate=2m \
	--time_based --runtime=3600 --norandommap=1 --output=/dev/null &
load=$!

show_status() {
	echo "demo:   $(blkferry status | grep -E '^(State|Sync|Backlog|Lag)' | tr -s ' \n' ' ')"
}

agent_setup 'bandwidth = "40mbit"'
agent_start
blkferry protect "$files" "$raw" >/dev/null
echo "demo: module loaded, agent connected at 40 Mbit/s, both disks protected; their writers go on"
for _ in $(seq 300); do
	show_status
	if agent_in CONTINUOUS; then break; fi
	sleep 1
done
agent_in CONTINUOUS || fail "the source did not reach CONTINUOUS: $(tail -n 5 /tmp/agent.log)"

echo "demo: recovery point under load"
mark_point under-load >/dev/null
for _ in 1 2 3; do
	sleep 1
	show_status
done

echo "demo: phases as the agent logged them"
for state in INITIAL_SYNC FLUSHING_BACKLOG CREATING_SNAPSHOT CONTINUOUS; do
	line=$(grep "event=state state=$state " /tmp/agent.log | tail -n 1)
	[ -n "$line" ] || fail "the source never was in $state"
	echo "demo:   ${line%% *} $state"
done

echo "demo: stopping the writers"
touch /tmp/stop
wait $writer
kill $load
wait $load 2>/dev/null || true
echo "the last line before the final mark" >/mnt/late.txt
sync
mount -o remount,ro /mnt
mark_point final >/dev/null
report hash0 "$(medium_hash "$files")"
report hash1 "$(medium_hash "$raw")"
report captured "$(status_of durable_mark)"
blkferry verify --source >/dev/null || fail "blkferry verify --source found a difference"
