# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: the script never ends
# timeout: 8

sleep 1000
