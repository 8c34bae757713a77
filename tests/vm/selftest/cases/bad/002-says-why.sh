# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the script says why it fails
# timeout: 60

expect_equal "sum" $((1 + 1)) 3
