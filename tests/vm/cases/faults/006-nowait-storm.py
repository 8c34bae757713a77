# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
modprobe null_blk nr_devices=0
modprobe brd rd_nr=1 rd_size=16384
[ -d /sys/kernel/config/nullb ] || mount -t configfs configfs /sys/kernel/config
mkdir /sys/kernel/config/nullb/nullb0
for setting in size=16 memory_backed=1 hw_queue_depth=8 completion_nsec=200000 irqmode=2 power=1; do
	echo "${setting#*=}" >"/sys/kernel/config/nullb/nullb0/${setting%%=*}"
done
null=/dev/nullb0
retry 30 test -b "$null" || fail "null_blk made no disk"
data=$(disk data)
dd if=/dev/urandom of="$null" bs=1M count=16 oflag=direct 2>/dev/null
agent_setup
agent_start
blkferry protect "$data" "$null" /dev/ram0
agent_wait CONTINUOUS
for round in $(seq "$TRIALS"); do
	# io_uring tries each with NOWAIT and again without; nowait=1 hands the EAGAIN to the program, which drops the write
	fio --output=/tmp/fio.txt --direct=1 --ioengine=io_uring --iodepth=512 --iodepth_batch_submit=64 --rw=randwrite --norandommap=1 \
		--bsrange=512-16k --size=16M --io_size=24M --randrepeat=0 \
		--name=virtio --filename="$data" --name=null --filename="$null" --name=ram --filename=/dev/ram0 || \
		fail "the application saw an error: $(tail -n 5 /tmp/fio.txt)"
	fio --output=/tmp/fio2.txt --direct=1 --ioengine=io_uring --iodepth=512 --iodepth_batch_submit=64 --rw=randwrite --norandommap=1 \
		--bs=4k --size=16M --io_size=16M --randrepeat=0 --nowait=1 --ignore_error=,EAGAIN \
		--name=virtio --filename="$data" --name=null --filename="$null"
	agent_wait CONTINUOUS
	point_equal "storm$round" "$data" "$null" /dev/ram0
done
for id in 0 1 2; do
	report "cancelled$id" "$(count $id cancelled)"
	expect_equal "ended by the watchdog" "$(count $id watchdog)" 0
done
[ $(($(count 0 cancelled) + $(count 1 cancelled))) -gt 0 ] || fail "no submission died with EAGAIN: the case tests nothing"
kernel_clean
"""

CASE = fault_case(
    "NOWAIT storms at queue depth 512 on virtio-blk, null_blk and brd: writes that died with EAGAIN are not in the replica",
    fault_guest(SCRIPT, modules=["null_blk", "brd"], disks=[Disk("data", "16M")]))
