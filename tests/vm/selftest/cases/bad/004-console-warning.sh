# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the script succeeds, the kernel warns
# allow: WARNING: another one
# timeout: 60

echo '<4>WARNING: CPU: 0 PID: 1 at block/made-up.c:1 nothing+0x0/0x10' >/dev/kmsg
