# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a disk is attached, described, refused twice, detached under I/O, and the module unloads
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# binaries: sfdisk partx blockdev
# disk: data,size=64M
# disk: parts,size=64M
# disk: locked,size=16M,readonly
# timeout: 240

field() { # field NAME: value of NAME=value in the file /tmp/answer
	tr ' ' '\n' </tmp/answer | sed -n "s/^$1=//p"
}

refused() { # refused ERROR COMMAND...
	wanted=$1
	shift
	if "$@" >/tmp/answer 2>&1; then fail "accepted: $*"; fi
	expect_equal "$*" "$(field error)" "$wanted"
}

insmod /opt/blkferry/blkferry.ko
data=$(disk data)
parts=$(disk parts)

bft attach "$data" >/tmp/answer || fail "attach: $(cat /tmp/answer)"
id=$(field disk)
expect_equal "name" "$(field name)" "${data##*/}"
expect_equal "state BITMAP" "$(field state)" 1
expect_equal "sectors" "$(field sectors | head -n 1)" 131072
[ "$(field active)" -gt 0 ] || fail "a fresh disk has a clean map"
[ "$(field memory)" -ge "$(field data_bytes)" ] || fail "memory is less than the ring"
retry 10 test -c "/dev/blkferry/$id" || fail "no node for the disk"
expect_equal "node mode" "$(stat -c %a "/dev/blkferry/$id")" 600

refused EEXIST bft attach "$data"
refused EROFS bft attach "$(disk locked)"
refused ENODEV bft detach 99
# The caller proves that it has the device open: nothing is loaded below the module.
refused EBADF bft attach-by /no/such/file "$parts"
refused EINVAL bft attach-by /etc/passwd "$parts"
refused EINVAL bft attach-by "$data" "$parts"
printf 'label: gpt\n,16M\n' | sfdisk -q --no-reread "$parts"
blockdev --rereadpt "$parts" || partx --add "$parts"
retry 10 test -b "${parts}1"
refused EINVAL bft attach "${parts}1"

bft attach "$parts" >/tmp/answer || fail "second disk: $(cat /tmp/answer)"
bft list >/tmp/answer
expect_equal "disks" "$(field name | sort | tr '\n' ' ')" "$(printf '%s\n' "${data##*/}" "${parts##*/}" | sort | tr '\n' ' ')"

# Ten rounds under writes: attach, detach.
(while [ ! -e /run/stop ]; do dd if=/dev/zero of="$data" bs=4k count=256 oflag=direct; done) 2>/dev/null &
writer=$!
set +x
round=0
while [ "$round" -lt 10 ]; do
	bft detach "$id" >/tmp/answer || fail "round $round: detach: $(cat /tmp/answer)"
	bft attach "$data" >/tmp/answer || fail "round $round: attach: $(cat /tmp/answer)"
	id=$(field disk)
	round=$((round + 1))
done
set -x
retry 30 sh -c "bft get $id | grep -q 'dirty_ops=[1-9]'" || fail "writes were not seen"
touch /run/stop
wait "$writer"

# An attached disk pins the module.
must_fail rmmod blkferry
bft list | sed -n 's/^disk=\([0-9]*\) .*/\1/p' >/tmp/ids
expect_equal "attached disks" "$(wc -l </tmp/ids)" 2
while read -r id; do
	bft detach "$id" || fail "disk $id does not detach"
	refused ENODEV bft get "$id"
done </tmp/ids
rmmod blkferry || fail "the module does not unload"
must_fail ls "/dev/blkferry/$id"
must_fail grep -i blkferry /proc/vmallocinfo
