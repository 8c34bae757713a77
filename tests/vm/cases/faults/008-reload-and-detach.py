# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

# One CPU: loading hooks probes into running code, which QEMU 7.2's multi-threaded TCG gets wrong now and then.
SCRIPT = r"""
data=$(disk data)
printf 'label: gpt\nsize=4MiB\nsize=8MiB\n' | sfdisk -q "$data"
agent_setup
fio --name=load --filename="$data" --offset=1M --size=8M --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=io_uring --iodepth=16 \
	--rate=2m --norandommap=1 --time_based --runtime=6h --output=/dev/null &
load=$!
agent_start
blkferry protect "$data"
agent_wait CONTINUOUS
cycles=0
for round in $(seq $((3 * TRIALS))); do
	# unload attempts and partition tables read again while attached
	set +x
	for n in $(seq 20); do
		must_fail rmmod blkferry 2>/tmp/rmmod.txt
		blockdev --rereadpt "$data" 2>/dev/null || true
	done
	set -x
	grep -Eiq 'in use|busy|unavailable' /tmp/rmmod.txt || fail "rmmod was refused for another reason: $(cat /tmp/rmmod.txt)"
	mark_point "live$round"
	# the disk is detached below the agent, which has it mapped; the agent must live and say so
	bft detach 0
	must_fail sh -c 'bft list | grep -q ^disk='
	detached() { [ "$(status_of 'disks[0].state')" = STOPPED ] || bft list | grep -q ^disk=; }
	retry 60 detached || fail "the agent does not notice: $(blkferry status --json)"
	kill -0 "$BF_AGENT" || fail "the agent died of a detach: $(tail -n 5 /tmp/agent.log)"
	kill "$BF_AGENT"
	wait "$BF_AGENT" || true
	bft list | sed -n 's/^disk=\([0-9]*\) .*/\1/p' | while read -r id; do bft detach "$id"; done
	rmmod blkferry || fail "the module does not unload under I/O"
	must_fail grep -i blkferry /proc/vmallocinfo
	insmod /opt/blkferry/blkferry.ko
	agent_start
	agent_wait CONTINUOUS
	cycles=$((cycles + 1))
done
kill $load
wait $load || true
printf 'label: gpt\nsize=2MiB\nsize=9MiB\n' | sfdisk -q --no-reread --force "$data"
blockdev --rereadpt "$data"
dd if=/dev/urandom of="${data}2" bs=64k seek=3 count=4 oflag=direct conv=notrunc 2>/dev/null
report cycles "$cycles"
agent_wait CONTINUOUS
point_equal final "$data"
kernel_clean
"""

CASE = fault_case(
    "under I/O: rmmod is refused while attached, partition tables are read again, the disk is detached below the agent, "
    "the module is unloaded and loaded; the replica ends equal",
    fault_guest(SCRIPT, binaries=["sfdisk", "blockdev"], cpus=1, disks=[Disk("data", "16M")], timeout=260))
