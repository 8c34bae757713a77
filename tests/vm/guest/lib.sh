# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Functions for guest scripts; init and every script read this file.
#
# Control protocol, one line a message. Port "ctl", guest to host: "up SECONDS", "sync NAME", "report KEY VALUE",
# "skip REASON", "fail REASON", "exit STATUS". Port "reply", host to guest: one line of text for each "sync".
# Port "out": files to the host as concatenated tar archives. A port can be open once at a time, hence the lock.

BF_CTL=/dev/bf-ctl
BF_REPLY=/dev/bf-reply
BF_OUT=/dev/bf-out

# Finds the ports; there is no udev to make their names.
bf_open_ports() {
	for port in /sys/class/virtio-ports/*; do
		[ -r "$port/name" ] || continue
		ln -sf "/dev/${port##*/}" "/dev/bf-$(cat "$port/name")"
	done
	[ -e "$BF_CTL" ] && [ -e "$BF_REPLY" ] && [ -e "$BF_OUT" ]
}

# Sends one line to the host; newlines in it become spaces.
bf_tell() {
	[ -e "$BF_CTL" ] || return 0
	bf_line=$(printf '%s' "$*" | tr '\n' ' ')
	(
		flock 8
		printf '%s\n' "$bf_line" >"$BF_CTL"
	) 8>/run/bf-ctl.lock
} 2>/dev/null # keeps the trace short

# bf_send_file FILE [NAME]: copies a file (or directory) of the guest to the case's artefacts.
bf_send_file() {
	[ -e "$BF_OUT" ] || return 0
	(
		flock 8
		if [ -n "${2:-}" ] && [ "$2" != "${1##*/}" ]; then
			rm -rf /tmp/bf-send
			mkdir -p /tmp/bf-send
			cp -r "$1" "/tmp/bf-send/$2"
			tar -c -C /tmp/bf-send "$2" >"$BF_OUT"
		else
			tar -c -C "$(dirname "$1")" "${1##*/}" >"$BF_OUT"
		fi
	) 8>/run/bf-out.lock
}

# sync_host NAME: waits until the host part called vm.reply(); prints the text it sent. One process at a time.
sync_host() {
	exec 9<"$BF_REPLY"
	bf_tell "sync $1"
	IFS= read -r bf_reply <&9
	exec 9<&-
	printf '%s\n' "$bf_reply"
}

# report KEY VALUE: a measurement for result.json; shown with the result unless the key starts with _.
report() {
	bf_tell "report $1 $2"
	echo "report: $1 = $2"
}

# skip REASON: this case cannot run here. Not a failure, but it is listed.
skip() {
	bf_tell "skip $*"
	echo "skip: $*"
	exit 77
}

# fail REASON: the case failed; the reason is in the result line.
fail() {
	bf_tell "fail $*"
	echo "FAIL: $*"
	exit 1
}

# uptime_s: whole seconds since the boot, whatever the clock is set to.
uptime_s() {
	IFS=. read -r bf_up _ </proc/uptime
	echo "$bf_up"
} 2>/dev/null

# retry SECONDS COMMAND...: runs the command until it succeeds; fails after the deadline.
retry() {
	bf_deadline=$(($(uptime_s) + $1 * ${BF_SLOW:-1} * ${BF_PATIENCE:-1}))
	shift
	until "$@" 2>&7; do
		[ "$(uptime_s)" -lt "$bf_deadline" ] || return 1
		sleep 0.2
	done
} 7>&2 2>/dev/null

# expect_equal WHAT GOT WANTED
expect_equal() {
	[ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"
} 2>/dev/null

# must_fail COMMAND...: the command has to fail.
must_fail() {
	if "$@"; then fail "succeeded but must not: $*"; fi
}

# Serial number of a block device, letters, digits, - and _ only: virtio-blk, NVMe (padded with blanks), SCSI (vital product data page).
bf_serial() {
	for bf_file in "$1/serial" "$1/device/serial" "$1/device/vpd_pg80"; do
		if [ -r "$bf_file" ]; then
			tr -dc 'A-Za-z0-9_-' <"$bf_file"
			return 0
		fi
	done
}

# disk NAME: device path of the disk that the host gave this serial number.
disk() {
	for bf_block in /sys/block/*; do
		if [ "$(bf_serial "$bf_block")" = "$1" ]; then
			echo "/dev/${bf_block##*/}"
			return 0
		fi
	done
	echo "/dev/no-disk-with-serial-$1"
	return 1
} 2>/dev/null

# dm_create NAME TABLE: a device-mapper device without udev; its node is /dev/mapper/NAME when this returns.
dm_create() {
	dmsetup --noudevsync --noudevrules create "$1" --table "$2" && dmsetup mknodes "$1"
}

dm_remove() {
	dmsetup --noudevsync --noudevrules remove "$1"
}
