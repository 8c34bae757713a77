# SPDX-License-Identifier: Apache-2.0
"""The kernel crashes while the host part waits: the result has to name the crash too."""

from vmtest.spec import Case, Guest


def host(vm):
    vm.expect("ready")


CASE = Case("a crash while the host waits", Guest(script="echo c >/proc/sysrq-trigger\nsleep 1000\n", timeout=60),
            host=host)
