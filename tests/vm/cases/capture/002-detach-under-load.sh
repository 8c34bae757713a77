# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a disk is attached and detached 40 times under load, with and without a live consumer
# binaries: fio
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: data,size=64M
# disk: copy,size=64M
# disk: keeper,size=16M
# timeout: 240

# A second disk stays attached, so that the probes stay hooked in: hooking them in patches code under running CPUs, which
# QEMU 7.2 gets wrong now and then (vmtest/accel.py). 009 does that on one CPU.

data=$(disk data)
insmod /opt/blkferry/blkferry.ko
bft attach "$(disk keeper)" 65536
fio --name=load --filename="$data" --direct=1 --rw=randwrite --bsrange=512-256k --ioengine=io_uring --iodepth=64 \
	--size=64M --time_based=1 --runtime=6h --output=/tmp/fio.txt &
load=$!
set +x
cycle=0
while [ "$cycle" -lt 40 ]; do
	bft attach "$data" 4194304 >/dev/null || fail "cycle $cycle: attach"
	must_fail rmmod blkferry 2>/dev/null
	if [ $((cycle % 2)) = 1 ]; then
		rm -f /tmp/follow.txt
		bft follow 1 "$data" "$(disk copy)" >/tmp/follow.txt 2>&1 &
		follower=$!
		retry 30 grep -qs following /tmp/follow.txt || fail "cycle $cycle: no consumer"
		retry 30 sh -c 'bft get 1 | grep -q " done=[1-9]"' || fail "cycle $cycle: nothing is captured"
	fi
	bft detach 1 >/dev/null || fail "cycle $cycle: detach"
	if [ $((cycle % 2)) = 1 ]; then
		status=0
		wait "$follower" || status=$?
		[ "$status" = 3 ] || fail "cycle $cycle: the consumer ended with $status: $(tail -n 2 /tmp/follow.txt)"
	fi
	cycle=$((cycle + 1))
done
set -x
kill "$load"
wait "$load" || true
bft detach 0
rmmod blkferry || fail "the module does not unload"
must_fail grep -i blkferry /proc/vmallocinfo
