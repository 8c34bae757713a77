# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: a case whose module no kernel has
# modules: no-such-module
# binaries: no-such-program
# timeout: 60

true
