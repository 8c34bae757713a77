# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the probes are hooked in and out 25 times under load, entries in flight included
# binaries: fio
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: data,size=64M
# cpus: 1
# timeout: 240

data=$(disk data)
insmod /opt/blkferry/blkferry.ko
fio --name=load --filename="$data" --direct=1 --rw=randwrite --bsrange=512-64k --ioengine=io_uring --iodepth=64 \
	--size=64M --time_based=1 --runtime=6h --output=/tmp/fio.txt &
load=$!
set +x
for cycle in $(seq 1 25); do
	bft attach "$data" 4194304 >/dev/null || fail "cycle $cycle: attach"
	retry 30 sh -c 'bft get 0 | grep -q " dirty_ops=[1-9][0-9]"' || fail "cycle $cycle: nothing is captured"
	bft detach 0 >/dev/null || fail "cycle $cycle: detach"
done
set -x
kill "$load"
wait "$load" || true
rmmod blkferry || fail "the module does not unload"
must_fail grep -i blkferry /proc/vmallocinfo
