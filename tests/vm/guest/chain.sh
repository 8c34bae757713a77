# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Functions for guests that replicate to a server on the host (vmtest/chain.py). Needs these files in the guest:
#   kmod:blkferry.ko  build:blkferry  build:blkferry-agent  tests/vm/guest/chain.sh

# bf_tell_agent STATUS: ends the script; prints the end of the agent's log if it failed.
bf_tell_agent() {
	[ "$1" = 0 ] || tail -n 60 /tmp/agent.log
	exit "$1"
}

# agent_setup [KEY=VALUE ...]: loads the module, writes agent.toml; further keys are TOML lines.
agent_setup() {
	# What the agent said is the first thing to read when the case fails.
	trap 'bf_tell_agent $?' EXIT
	insmod /opt/blkferry/blkferry.ko
	mkdir -p /etc/blkferry /var/lib/blkferry/agent
	printf '%s' "$BF_CA" | base64 -d >/etc/blkferry/ca.pem
	printf '%s' "$BF_CERT" | base64 -d >/etc/blkferry/cert.pem
	(umask 077 && printf '%s' "$BF_KEY" | base64 -d >/etc/blkferry/key.pem)
	{
		echo "server = \"$BF_SERVER\""
		echo "source = \"$BF_SOURCE\""
		echo 'cert = "/etc/blkferry/cert.pem"'
		echo 'key = "/etc/blkferry/key.pem"'
		echo 'ca = "/etc/blkferry/ca.pem"'
		for line in "$@"; do
			echo "$line"
		done
	} >/etc/blkferry/agent.toml
}

# agent_start: starts the agent and waits until it answers.
agent_start() {
	blkferry-agent --config /etc/blkferry/agent.toml >>/tmp/agent.log 2>&1 &
	BF_AGENT=$!
	retry 60 agent_answers
}

agent_answers() {
	blkferry status --json >/tmp/status.json 2>/dev/null
}

# agent_kill: SIGKILL, as a crash.
agent_kill() {
	kill -9 "$BF_AGENT"
	wait "$BF_AGENT" 2>/dev/null || true
}

# status_of PATH: a member of the agent's status, as jq names it without the first dot: state, counters.resync_bytes.
status_of() {
	blkferry status --json | jq -r ".$1"
}

agent_in() {
	[ "$(status_of state)" = "$1" ]
}

# mark_passed SEQ: the newest durable mark is above SEQ.
mark_passed() {
	[ "$(status_of durable_mark)" -gt "$1" ]
}

# agent_wait STATE [SECONDS]: until the source is in that state; shows the agent's log if it does not get there.
agent_wait() {
	if ! retry "${2:-120}" agent_in "$1" >/dev/null 2>&1; then
		blkferry status || true
		tail -n 40 /tmp/agent.log
		fail "state $1 not reached, it is $(status_of state)"
	fi
}

# mark_point NAME [OPTION ...]: a recovery point as soon as no gap is open (until then the agent refuses).
mark_point() {
	mark_name=$1
	shift
	if ! retry 200 blkferry mark --name "$mark_name" "$@"; then
		tail -n 40 /tmp/agent.log
		fail "mark $mark_name refused: $(blkferry mark --name "$mark_name" "$@" 2>&1)"
	fi
	# A case that writes behind the capture on purpose says BF_UNTRACKED=1.
	[ -n "${BF_UNTRACKED:-}" ] || ! grep event=untracked /tmp/agent.log || fail "a captured disk is called untracked"
}

# medium_hash DEVICE: SHA-256 of what is on the medium, past the page cache.
medium_hash() {
	dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1
}
