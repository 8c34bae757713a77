# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a kernel that waits for ever before it reaches init
# timeout: 60
# cmdline: rdinit=/none root=/dev/none rootwait

exit 0
