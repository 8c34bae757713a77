# SPDX-License-Identifier: Apache-2.0
"""What is not a write to a healthy disk: passthrough, growth, removal, a completion that does not come, SEQ_FLOOR."""

from vmtest.spec import Case, Disk, Guest

SCRIPT = r"""
count() { # count ID NAME
	bft get "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"
}
event() { # event ID NUMBER: enum blkferry_event
	retry 30 grep -q "^disk=$1 event=$2 " /tmp/events.txt || fail "no event $2 of disk $1: $(cat /tmp/events.txt)"
}
follow() { # follow ID SOURCE
	rm -f /tmp/follow.txt
	bft follow "$1" "$2" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
	follower=$!
	retry 60 sh -c "bft get $1 | grep -q 'state=3'" || fail "no RING: $(bft get "$1")"
}
equal() { # equal ID WHAT
	kill -USR1 "$follower"
	wait "$follower" || fail "$2: $(tail -n 2 /tmp/follow.txt)"
	bft detach "$1"
}

insmod /opt/blkferry/blkferry.ko stuck_seconds=10
bft events 100000 >/tmp/events.txt &
listener=$!
retry 30 grep -q listening /tmp/events.txt

# SEQ_FLOOR: upward only, below 2^62, not while a ring is in use
bft floor 1000000
bft floor 5
expect_equal "the number after both" "$(bft info | sed -n 's/^seq=//p')" 1000000
must_fail bft floor 4611686018427387904 >/tmp/answer
grep -q error=EINVAL /tmp/answer || fail "$(cat /tmp/answer)"
data=$(disk data)
bft attach "$data" 4194304
event 0 1
follow 0 "$data"
must_fail bft floor 2000000 >/tmp/answer
grep -q error=EBUSY /tmp/answer || fail "$(cat /tmp/answer)"
dd if=/dev/urandom of="$data" bs=64k count=16 oflag=direct conv=notrunc 2>/dev/null
[ "$(bft info | sed -n 's/^seq=//p')" -gt 1000016 ] || fail "numbers do not go on above the floor"

# growth: told by an event; what is within the old size is captured on, what is beyond is counted; all of it after a new attach
sync_host grow
event 0 4
[ $(($(count 0 flags) & 2)) -ne 0 ] || fail "RESIZED is not set: $(bft get 0)"
dd if=/dev/urandom of="$data" bs=64k seek=8 count=4 oflag=direct conv=notrunc 2>/dev/null
expect_equal "writes beyond the end before" "$(count 0 beyond_end)" 0
dd if=/dev/urandom of="$data" bs=64k seek=1020 count=8 oflag=direct conv=notrunc 2>/dev/null
[ "$(count 0 beyond_end)" -gt 0 ] || fail "no write beyond the end was counted"
kill -USR1 "$follower"
wait "$follower" || true
bft detach 0
event 0 2
bft attach "$data" 4194304
expect_equal "sectors after the growth" "$(count 0 sectors | head -n 1)" 196608
follow 0 "$data"
dd if=/dev/urandom of="$data" bs=64k seek=1400 count=32 oflag=direct conv=notrunc 2>/dev/null
equal 0 "after the growth"

# passthrough: seen at its issue
modprobe sd_mod
modprobe scsi_debug dev_size_mb=32
retry 30 test -b /dev/sda || fail "no SCSI disk"
bft attach /dev/sda 4194304
follow 0 /dev/sda
expect_equal "passthrough writes" "$(count 0 passthrough)" 0
bft sgwrite /dev/sda 5000
expect_equal "passthrough writes" "$(count 0 passthrough)" 1
event 0 6
[ $(($(count 0 flags) & 8)) -ne 0 ] || fail "UNTRACKED is not set: $(bft get 0)"
bft dirty 0
[ $(($(count 0 flags) & 8)) -eq 0 ] || fail "UNTRACKED is not cleared: $(bft get 0)"
retry 60 sh -c "bft get 0 | grep -q 'gap_seq=0 '" || fail "the gap does not close: $(bft get 0)"

# removal under load
(while dd if=/dev/urandom of=/dev/sda bs=64k count=64 oflag=direct; do :; done) >/dev/null 2>&1 &
writer=$!
done_before=$(count 0 done)
retry 30 sh -c "[ \$(bft get 0 | tr ' ' '\n' | sed -n 's/^done=//p') -gt $done_before ]" || fail "the load is not captured"
echo 1 >/sys/block/sda/device/delete
wait "$writer"
event 0 5
expect_equal "state of the removed disk" "$(count 0 state)" 0
status=0
wait "$follower" || status=$?
expect_equal "the consumer's end" "$status" 3
bft detach 0

# a completion that does not come (for 25 s): given up after stuck_seconds, dirty then and once more when it comes
modprobe dm-mod
modprobe dm-delay
modprobe brd rd_nr=1 rd_size=32768
dm_create late "0 65536 delay /dev/ram0 0 0 /dev/ram0 0 25000"
bft attach /dev/mapper/late 4194304
follow 0 /dev/mapper/late
dd if=/dev/urandom of=/dev/mapper/late bs=8k seek=77 count=1 oflag=direct conv=notrunc &
writer=$!
retry 24 sh -c 'bft get 0 | grep -q "watchdog=1 "' || fail "the write was not given up: $(bft get 0)"
kill -0 "$writer" || fail "the write had ended before it was given up"
expect_equal "writes that failed" "$(count 0 failed)" 1
# its payload is not shipped, and the re-read of now still finds the old data: only what its end marks brings the new one
wait "$writer"
equal 0 "after the late write"
dm_remove late
kill "$listener"
wait "$listener" || true
rmmod blkferry
"""


def host(vm):
    vm.expect("grow")
    vm.resize("data", 96 << 20)
    vm.reply()


CASE = Case("passthrough, growth, removal under load, a missing completion and SEQ_FLOOR: each is seen and told by an event",
            Guest(script=SCRIPT, files=["kmod:blkferry.ko", "cc:tests/kmod/guest/bft"], binaries=["dmsetup"],
                  modules=["scsi_debug", "sd_mod", "dm-mod", "dm-delay", "brd"], memory=768,
                  disks=[Disk("data", "64M"), Disk("copy", "96M")], timeout=240), host=host)
