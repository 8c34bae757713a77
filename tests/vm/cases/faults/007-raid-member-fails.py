# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
modprobe raid1
one=$(disk one)
two=$(disk two)
order_disk=$(disk order)
mdadm --create /dev/md0 --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean --run "$one" "$two"
agent_setup 'batch_interval_ms = 20'
agent_start
blkferry protect /dev/md0 "$order_disk"
agent_wait CONTINUOUS
order /dev/md0 "$order_disk" /tmp/stop >/tmp/rounds &
order=$!
fio --name=load --filename=/dev/md0 --offset=1M --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=16 \
	--rate=2m --norandommap=1 --time_based --runtime=6h --output=/tmp/fio.txt &
load=$!
number=0
made() { number=$((number + 1)); mark_point "p$number"; }
healthy() { grep -q '\[UU\]' /proc/mdstat; }
for round in $(seq $((2 * TRIALS))); do
	for member in "$one" "$two"; do
		mdadm /dev/md0 --fail "$member"
		made
		mdadm /dev/md0 --remove "$member"
		made
		mdadm /dev/md0 --re-add "$member"
		made
		retry 60 healthy || fail "the member does not come back: $(cat /proc/mdstat)"
	done
done
touch /tmp/stop
wait $order
kill $load
wait $load || true
must_fail grep -q 'err=[ ]*[1-9]' /tmp/fio.txt
report points "$number"
agent_wait CONTINUOUS
point_equal final /dev/md0 "$order_disk"
kernel_clean
mdadm --stop /dev/md0
"""

CASE = fault_case("a raid1 whose members fail, leave and come back under load stays replicated in order, and ends equal",
                  fault_guest(SCRIPT, modules=["raid1", "md-mod"], binaries=["mdadm"],
                              disks=[Disk("one", "10M"), Disk("two", "10M"), Disk("order", "4M")],
                              timeout=240), ordered=12)
