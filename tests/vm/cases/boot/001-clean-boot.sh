# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the guest boots, has what the harness promises, and its console is clean
# timeout: 120
# env: GREETING=it's "quoted" $HOME

expect_equal "environment" "$GREETING" "it's \"quoted\" \$HOME"
expect_equal "shell" "$(readlink /bin/sh)" dash
expect_equal "processors" "$(nproc)" 2
for place in /proc /sys /dev /tmp /run /sys/kernel/debug; do
	grep -q " $place " /proc/mounts || fail "$place is not mounted"
done
ping -c 1 -W 5 127.0.0.1
[ -c /dev/bf-ctl ] || fail "no control port"
[ -d /sys/bus/virtio/drivers/virtio_console ]
report uptime_s "$(cut -d' ' -f1 /proc/uptime)"

# Files reach the host: check 002 looks at its own; here the path is exercised with a directory.
mkdir -p /tmp/sent/deep
echo content >/tmp/sent/deep/file
bf_send_file /tmp/sent
