# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest
from vmtest.spec import Disk

SCRIPT = r"""
data=$(disk data)
printf 'label: gpt\nsize=96MiB\nsize=16MiB\n' | sfdisk -q "$data"
mkswap "${data}1"
mkdir -p /sys/fs/cgroup /big
mount -t cgroup2 none /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/agent
agent_setup 'ring = "4MiB"'
start() {
	echo max >/sys/fs/cgroup/agent/memory.max
	# born in its cgroup: memory that a process had before it was moved stays charged where it was
	echo $$ >/sys/fs/cgroup/agent/cgroup.procs
	agent_start
	echo $$ >/sys/fs/cgroup/cgroup.procs
}
start
blkferry protect "$data"
agent_wait CONTINUOUS
swapon "${data}1"
fio --name=load --filename="${data}2" --rw=randwrite --bsrange=4k-32k --direct=1 --ioengine=io_uring --iodepth=8 --rate=1m \
	--norandommap=1 --time_based --runtime=6h --output=/tmp/fio.txt &
load=$!
for round in $(seq "$TRIALS"); do
	# global: more in a tmpfs than there is memory, so that the protected disk is swapped to
	free=$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
	mount -t tmpfs -o size=$((free + 60))m tmpfs /big
	dd if=/dev/zero of=/big/zeroes bs=1M count=$((free - 40)) 2>/dev/null
	noise() { openssl enc -aes-256-ctr -pass pass:x -nosalt -pbkdf2 </dev/zero 2>/dev/null | head -c 83886080; }
	noise >/big/noise || fail "the tmpfs could not be filled"
	used=$(awk 'NR > 1 { print $4 }' /proc/swaps)
	report swap_used_kib "$used"
	[ "$used" -gt 8192 ] || fail "nothing was swapped out: $used KiB"
	expect_equal "what was swapped out and in" "$(sha256sum </big/noise)" "$(noise | sha256sum)"
	umount /big
	# the agent runs out of its own memory, twice, and is killed; writes go on meanwhile
	for kill_round in 1 2; do
		echo 0 >/sys/fs/cgroup/agent/memory.swap.max
		echo 1M >/sys/fs/cgroup/agent/memory.max
		status=0
		wait "$BF_AGENT" || status=$?
		expect_equal "how the agent ended" "$status" 137
		start
		agent_wait CONTINUOUS
	done
done
kill $load
wait $load || true
must_fail grep -q 'err=[ ]*[1-9]' /tmp/fio.txt
swapoff "${data}1"
report killed "$(sed -n 's/^oom_kill //p' /sys/fs/cgroup/agent/memory.events)"
agent_wait CONTINUOUS
point_equal final "$data"
kernel_clean
"""

CASE = fault_case(
    "with swap on the protected disk under memory pressure nothing is lost or stuck, nor when the agent is killed for memory",
    fault_guest(SCRIPT, binaries=["sfdisk", "mkswap", "openssl"], memory=768, disks=[Disk("data", "120M")], timeout=260),
    # The kernel tells at length of the process that it kills in the agent's cgroup, which this case wants; were it the whole
    # machine that has no memory, "Out of memory:" would still be found.
    allow=[r"\b(sh|blkferry\S*) invoked oom-killer", r"^Call Trace:$"])
