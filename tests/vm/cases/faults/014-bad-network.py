# SPDX-License-Identifier: Apache-2.0
"""The path between source and server loses, delays, reorders, duplicates and damages packets, or is a 64 kbit line: netem in the
guest, on what goes out and (over an ifb) on what comes in. One case of each kind a round, its strength drawn from the seed.
"""
import os
import random

from vmtest.faults import TRIALS, fault_case, fault_guest
from vmtest.spec import Disk

SEED = int(os.environ.get("BLKFERRY_FAULT_SEED", "0")) or random.randrange(1 << 32)


def profiles(rng: random.Random) -> list[str]:
    """Lines "NAME OPTIONS OF NETEM": one of each kind."""
    delay = rng.randrange(30, 300)
    return [
        f"loss-light loss {rng.uniform(1, 2):.2f}%",
        f"loss-heavy loss {rng.uniform(3, 5):.2f}%",
        f"bursts loss {rng.uniform(1, 3):.2f}% 50%",
        f"delay delay {delay}ms {delay // 4}ms",
        f"reorder delay {rng.randrange(10, 60)}ms reorder {rng.randrange(50, 95)}% 25% gap {rng.randrange(2, 6)}",
        f"duplicate duplicate {rng.uniform(1, 20):.2f}%",
        f"corrupt corrupt {rng.uniform(0.5, 4):.2f}%",
        "line64k rate 64kbit limit 60",
        f"all-of-it delay {delay // 3}ms 10ms loss 1% duplicate 1% corrupt 0.5% reorder 5%",
    ]


SCRIPT = r"""
for module in sch_netem sch_ingress ifb act_mirred cls_matchall; do modprobe $module; done
[ -d /sys/class/net/ifb0 ] || ip link add ifb0 type ifb
ip link set ifb0 up
tc qdisc add dev eth0 handle ffff: ingress
tc filter add dev eth0 parent ffff: matchall action mirred egress redirect dev ifb0
network() { # network OPTIONS OF NETEM, or nothing: as it was
	for device in eth0 ifb0; do
		tc qdisc del dev $device root 2>/dev/null || true
		[ $# = 0 ] || tc qdisc add dev $device root netem "$@"
	done
}
net_count() { # net_count PROTOCOL NAME: a counter of /proc/net/snmp
	awk -v of="$1:" -v name="$2" '$1 == of && !n { for (i = 2; i <= NF; i++) if ($i == name) n = i; next } $1 == of { print $n }' /proc/net/snmp
}
first=$(disk first)
second=$(disk second)
agent_setup 'batch_interval_ms = 50'
agent_start
blkferry protect "$first" "$second"
agent_wait CONTINUOUS
order "$first" "$second" /tmp/stop 5000 >/tmp/rounds &
order=$!
# 64 KiB that are written again and again, 32 KiB a second: four times what a line of 64 kbit takes, and what folding makes of it fits
fio --name=hot --filename="$first" --offset=1M --size=64k --rw=randwrite --bs=4k --direct=1 --ioengine=psync --rate_iops=8 \
	--norandommap=1 --time_based --runtime=6h --output=/dev/null &
hot=$!
printf '%s\n' "$PROFILES" >/tmp/profiles
number=0
set +x
while read -r name options; do
	number=$((number + 1))
	# shellcheck disable=SC2086
	network $options
	begin=$(date +%s)
	for step in 1 2 3; do
		before=$(status_of durable_mark)
		retry 150 mark_passed "$before" || fail "$name ($options): marks do not move on: $(blkferry status)"
	done
	mark_point "p$number-$name"
	report "$name" "$options: $(($(date +%s) - begin)) s for 3 marks and a point"
done </tmp/profiles
set -x
network
agent_wait CONTINUOUS 200
touch /tmp/stop
wait $order
kill $hot
wait $hot || true
report rounds "$(cat /tmp/rounds)"
report retransmitted "$(net_count Tcp RetransSegs)"
# The network device vouches for checksums, so what ifb damages behind its header reaches TLS and ends the session: the harder case.
report damaged_headers "$(net_count Ip InHdrErrors)"
report sessions "$(status_of counters.sessions)"
[ "$(net_count Tcp RetransSegs)" -gt 20 ] || fail "the network was good: $(cat /proc/net/snmp)"
expect_equal "whole syncs" "$(grep -Ec 'event=epoch_begin kind=(rescan|initial)' /tmp/agent.log)" 2
point_equal final "$first" "$second"
kernel_clean
"""

RNG = random.Random(f"{SEED}/netem")
LINES = [line for _ in range(TRIALS) for line in profiles(RNG)]

CASE = fault_case(
    "loss, bursts, delay, reordering, duplicates, damaged packets and a line of 64 kbit, both ways: marks move on, each point keeps the order, "
    f"the end is equal (BLKFERRY_FAULT_SEED={SEED})",
    fault_guest(SCRIPT, modules=["sch_netem", "sch_ingress", "ifb", "act_mirred", "cls_matchall"], binaries=["tc", "ip"],
                env={"PROFILES": "\n".join(LINES)}, timeout=420 + 200 * (TRIALS - 1),
                disks=[Disk("first", "4M"), Disk("second", "4M")]), ordered=len(LINES))
