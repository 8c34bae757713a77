# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

SCRIPT = r"""
data=$(disk data)
mkfs.ext4 -q "$data"
agent_setup
# As the packages' units have it: the agent is a user that may read disks and nothing else, the opener root with one capability (and the one
# to give its socket away, which systemd does there).
mkdir -p /run/blkferry/agent
chown -R 998:998 /etc/blkferry /var/lib/blkferry /run/blkferry/agent
chgrp 6 "$data"
chmod 640 "$data"
opener_start() {
	setpriv --bounding-set=-all,+sys_admin,+chown --no-new-privs blkferry-opener --user 998 --socket /run/blkferry/opener.sock --verbose \
		>>/tmp/opener.log 2>&1 &
	opener=$!
	retry 60 [ -S /run/blkferry/opener.sock ]
}
agent_start() {
	setpriv --reuid 998 --regid 998 --groups 6 --inh-caps=-all --bounding-set=-all --no-new-privs \
		blkferry-agent --config /etc/blkferry/agent.toml >>/tmp/agent.log 2>&1 &
	BF_AGENT=$!
	retry 60 agent_answers
}
opener_start
agent_start
for set in CapPrm CapEff CapBnd CapAmb; do
	expect_equal "$set of the agent" "$(sed -n "s/^$set:[[:space:]]*//p" /proc/$BF_AGENT/status)" 0000000000000000
done
expect_equal "user of the agent" "$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' /proc/$BF_AGENT/status)" 998
expect_equal "owner of its socket" "$(stat -c '%u %a' /run/blkferry/opener.sock)" "998 600"
blkferry protect "$data"
agent_wait CONTINUOUS
expect_equal "the ring is root's" "$(stat -c '%u %a' /dev/blkferry/0)" "0 600"

# The agent is as far from the module as anybody: by itself it gets neither a ring nor an answer.
setpriv --reuid 998 --regid 998 --groups 6 --inh-caps=-all --bounding-set=-all dd if=/dev/blkferry/0 of=/dev/null count=1 2>/tmp/dd.log &&
	fail "the agent's user opened a ring"

mkdir -p /mnt
mount "$data" /mnt
for i in $(seq 20); do dd if=/dev/urandom of=/mnt/f$i bs=64k count=4 2>/dev/null; done
mark_point frozen --fs
for i in $(seq 20); do dd if=/dev/urandom of=/mnt/g$i bs=64k count=4 conv=fsync 2>/dev/null; done

# The opener dies: the agent goes on with its rings, and asks the next one.
kill -9 $opener
wait $opener 2>/dev/null || true
rm -f /run/blkferry/opener.sock
for i in $(seq 20); do dd if=/dev/urandom of=/mnt/h$i bs=64k count=4 conv=fsync 2>/dev/null; done
opener_start
mark_point again --fs
# The agent dies: the ring is let go, and opened for the next one.
agent_kill
dd if=/dev/urandom of=/mnt/late bs=64k count=8 conv=fsync 2>/dev/null
agent_start
agent_wait CONTINUOUS
expect_equal "bytes resynced after a restart" "$(status_of counters.resync_bytes)" 0

# Another user: kept out by the socket's mode, and heard by nobody where that was opened by hand.
chmod 666 /run/blkferry/opener.sock
setpriv --reuid 997 --regid 997 --clear-groups --inh-caps=-all --bounding-set=-all blkferry-agent --config /etc/blkferry/agent.toml \
	--tracker module >/tmp/other.log 2>&1 && fail "another user's agent came up"
grep -q 'event=refused uid=997' /tmp/opener.log || fail "another user was not refused: $(tail -n 5 /tmp/opener.log)"
if grep event=refused /tmp/opener.log | grep -v uid=997; then fail "the agent itself was refused"; fi
grep -q 'event=opened .*ring=0' /tmp/opener.log || fail "requests are not logged: $(tail -n 5 /tmp/opener.log)"

umount /mnt
mark_point final
report hash0 "$(medium_hash "$data")"
blkferry unprotect "$data"
kill "$BF_AGENT"
wait "$BF_AGENT"
kill $opener
wait $opener 2>/dev/null || true
rmmod blkferry
"""

CASE = chain_case(
    "an agent that is a user without any capability replicates, freezes and restarts through the opener, which hears nobody else",
    chain_guest(SCRIPT, files=("build:blkferry-opener",), binaries=["mkfs.ext4", "setpriv"], modules=["ext4"], disks=[Disk("data", "96M")]))
