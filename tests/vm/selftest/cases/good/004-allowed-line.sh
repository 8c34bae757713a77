# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a console line that the case allows
# allow: WARNING: this one is expected
# timeout: 60

echo '<4>WARNING: this one is expected' >/dev/kmsg
