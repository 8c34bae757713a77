# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the kernel crashes
# timeout: 60

echo c >/proc/sysrq-trigger
sleep 1000
