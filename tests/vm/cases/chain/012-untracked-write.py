# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
modprobe dm-mod
data=$(disk data)
dm_create prot "0 98304 linear $data 0"
dd if=/dev/urandom of=/dev/mapper/prot bs=1M count=48 oflag=direct 2>/dev/null
agent_setup
agent_start
blkferry protect /dev/mapper/prot
agent_wait CONTINUOUS
# writes of all kinds are no reason to suspect anything
fio --name=load --filename=/dev/mapper/prot --direct=1 --rw=randwrite --bsrange=512-256k --ioengine=libaio --iodepth=32 --size=48M \
	--io_size=24M --randseed=5 --norandommap=1 --output=/tmp/fio.txt
fio --name=trim --filename=/dev/mapper/prot --direct=1 --rw=randtrim --bs=64k --size=48M --io_size=2M --randseed=6 --output=/tmp/fio.txt
agent_wait CONTINUOUS
sleep 3 # the check looks once a second; nothing may come of it
[ "$(status_of 'disks[0].untracked_bytes')" = 0 ] || fail "captured writes were called untracked: $(tail -n 3 /tmp/agent.log)"
mark_point before

BF_UNTRACKED=1
insmod /opt/blkferry/bypass.ko path=/dev/mapper/prot sector=40000 byte=0x5a
rmmod bypass
found() { [ "$(status_of 'disks[0].untracked_bytes')" = "$1" ]; }
retry 60 found 4096 || fail "the write was not found: $(blkferry status --json)"
blkferry status | grep -q 'WARNING: .* written past the module' || fail "status does not warn: $(blkferry status)"
grep -q 'event=untracked .*4096 bytes' /tmp/agent.log || fail "it is not in the log: $(tail -n 5 /tmp/agent.log)"
compared() { grep -q 'event=epoch_begin kind=rescan' /tmp/agent.log; }
retry 60 compared || fail "the disk is not compared: $(tail -n 5 /tmp/agent.log)"
agent_wait CONTINUOUS
mark_point final
report hash0 "$(medium_hash /dev/mapper/prot)"
"""

CASE = chain_case("a write that no tracepoint told of is found by the disk's own counter and repaired",
                  chain_guest(SCRIPT, modules=["dm-mod"], binaries=["dmsetup"], disks=[Disk("data", "48M", discard=True)],
                              files=["ko:tests/kmod/bypass/bypass.ko"]))
