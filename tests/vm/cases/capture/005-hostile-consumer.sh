# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: wrong tails put the disk into BITMAP and nothing else; mappings cannot be misused; it recovers
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# disk: data,size=32M
# disk: copy,size=32M
# timeout: 180

data=$(disk data)
insmod /opt/blkferry/blkferry.ko
bft attach "$data" 65536 64
bft maps 0

state() {
	bft get 0 | tr ' ' '\n' | sed -n 's/^state=//p'
}

# beyond whatever head can reach without a consumer (64 descriptors), before the tail, at the ends of 64 bits
for tail in h65 h-1 0xffffffffffffffff 0x8000000000000000 h0x100000000; do
	[ "$tail" != h-1 ] || tail=h0xffffffffffffff00
	rm -f /tmp/follow.txt
	bft follow 0 "$data" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
	follower=$!
	retry 30 grep -qs following /tmp/follow.txt
	dd if=/dev/urandom of="$data" bs=4k count=64 oflag=direct 2>/dev/null
	kill -USR1 "$follower"
	wait "$follower" || fail "before tail $tail: $(tail -n 2 /tmp/follow.txt)"
	expect_equal "state" "$(state)" 3
	before=$(bft get 0 | tr ' ' '\n' | sed -n 's/^bad_consumer=//p')
	bft tail 0 "$tail"
	dd if=/dev/urandom of="$data" bs=4k count=64 oflag=direct 2>/dev/null
	expect_equal "state after tail $tail" "$(state)" 1
	after=$(bft get 0 | tr ' ' '\n' | sed -n 's/^bad_consumer=//p')
	expect_equal "refused indices" "$after" "$((before + 1))"
done
rm -f /tmp/follow.txt
bft follow 0 "$data" "$(disk copy)" compare >/tmp/follow.txt 2>&1 &
follower=$!
retry 30 grep -qs following /tmp/follow.txt
kill -USR1 "$follower"
wait "$follower" || fail "at the end: $(tail -n 2 /tmp/follow.txt)"
bft detach 0
rmmod blkferry
