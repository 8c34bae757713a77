# SPDX-License-Identifier: Apache-2.0
from vmtest.faults import fault_case, fault_guest

# Bits of scsi_debug's opts; every_nth says which commands they hit.
SCRIPT = r"""
TIMEOUT=4 RECOVERED=8 TRANSPORT=16 SHORT=256 BUSY=32768 ABORT=65536
modprobe sd_mod
modprobe scsi_debug dev_size_mb=24 max_queue=64 # with its delay: without one some faults are not made
retry 30 test -b /dev/sda || fail "no SCSI disk"
debug=/sys/bus/pseudo/drivers/scsi_debug
faults() { # faults BITS EVERY_NTH
	echo "$1" >$debug/opts
	echo "$2" >$debug/every_nth
}
dd if=/dev/urandom of=/dev/sda bs=1M count=24 oflag=direct 2>/dev/null
echo 2 >/sys/block/sda/device/timeout # seconds until a lost command is aborted
agent_setup
agent_start
blkferry protect /dev/sda
agent_wait CONTINUOUS
load() { # load SECONDS RUNS: direct writes of many sizes, errors are the load's own matter
	fio --name=load --filename=/dev/sda --rw=randwrite --bsrange=512-128k --direct=1 --ioengine=io_uring --iodepth=16 --rate=4m \
		--norandommap=1 --randseed="$2" --time_based --runtime=$(($1 * BF_SLOW)) --continue_on_error=all --output=/tmp/fio.txt || true
}
errors() { # commands that ended with an error, and that were given up waiting for, as the SCSI layer counted them
	echo $(($(cat /sys/block/sda/device/ioerr_cnt) + $(cat /sys/block/sda/device/iotmo_cnt 2>/dev/null || echo 0)))
}
number=0
step() { # step NAME BITS EVERY_NTH SECONDS: the fault under load, then a quiesced point that has to be equal
	number=$((number + 1))
	before=$(errors)
	faults "$2" "$3"
	load "$4" $number
	faults 0 0
	agent_wait CONTINUOUS
	point_equal "$1" /dev/sda
	report "errors_$1" $(($(errors) - before))
	expect_equal "untracked bytes after $1" "$(status_of 'disks[0].untracked_bytes')" 0
}
for round in $(seq "$TRIALS"); do
	step "recovered$round" $RECOVERED 5 4
	step "partial$round" $SHORT 7 4     # half of the transfer is done: the rest is sent again
	step "busy$round" $BUSY 5 4         # the host takes no more: requeued
	step "aborted$round" $ABORT 9 4     # retried by the SCSI layer
	step "transport$round" $TRANSPORT 6 4 # some of them fail for good
	step "lost$round" $TIMEOUT 40 12    # no answer: timeout, abort, retry
	before=$(errors)
	failed=$(count 0 failed)
	faults $TRANSPORT -1
	for block in 100 2000 7; do must_fail dd if=/dev/urandom of=/dev/sda bs=8k seek=$block count=1 oflag=direct; done
	faults 0 0
	[ "$(count 0 failed)" -ge $((failed + 3)) ] || fail "failed writes were not seen: $(bft get 0)"
	[ "$(errors)" -gt "$before" ] || fail "the SCSI layer counted no error"
	agent_wait CONTINUOUS
	point_equal "dead$round" /dev/sda
done
report failed "$(count 0 failed)"
[ "$(errors)" -gt 50 ] || fail "the faults hardly hit: $(errors) errors"
expect_equal "ended by the watchdog" "$(count 0 watchdog)" 0
expect_equal "unknown completions" "$(count 0 unknown)" 0
kernel_clean
"""

CASE = fault_case(
    "scsi_debug: recovered errors, partial completions, busy host, aborts, transport errors and lost commands under load",
    fault_guest(SCRIPT, modules=["sd_mod", "scsi_debug"], timeout=300))
