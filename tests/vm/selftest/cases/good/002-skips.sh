# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a case that asks to be skipped
# timeout: 60

skip "not today"
