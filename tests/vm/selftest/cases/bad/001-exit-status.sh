# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a command fails
# timeout: 60

false
true
