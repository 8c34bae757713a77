# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: instructions added per write stay within the goals (brd, counted by the emulator)
# modules: brd
# files: kmod:blkferry.ko cc:tests/kmod/guest/bft
# icount: yes
# memory: 1536
# timeout: 240

within() { # within WHAT ADDED LIMIT
	report "$1" "$2"
	[ "$2" -le "$3" ] || fail "$1: $2 instructions added, at most $3 allowed"
}

modprobe brd rd_nr=2 rd_size=65536
for disk in /dev/ram0 /dev/ram1; do dd if=/dev/zero of="$disk" bs=1M count=64 oflag=direct 2>/dev/null; done
alone=$(bft count /dev/ram0 400 4096)
alone64=$(bft count /dev/ram0 30 65536)
report alone "$alone"
insmod /opt/blkferry/blkferry.ko
within detached $(($(bft count /dev/ram0 400 4096) - alone)) 5
bft attach /dev/ram1 67108864 >/dev/null
within unprotected $(($(bft count /dev/ram0 400 4096) - alone)) 100
bft attach /dev/ram0 67108864 131072 >/dev/null
within bitmap $(($(bft count /dev/ram0 400 4096) - alone)) 300
bft begin 1
bft clear 1 0 131072
bft end 1
within ring $(($(bft count /dev/ram0 400 4096) - alone)) 1000
within ring_64k $(($(bft count /dev/ram0 30 65536) - alone64)) 10500
bft get 1 | tr ' ' '\n' | grep -x state=3 || fail "not in RING any more: $(bft get 1)"
bft detach 0
bft detach 1
within detached_again $(($(bft count /dev/ram0 400 4096) - alone)) 5
rmmod blkferry
