# SPDX-License-Identifier: Apache-2.0
"""The host waits for a message; the guest ends without it."""

from vmtest.spec import Case, Guest


def host(vm):
    vm.expect("ready")


CASE = Case("the guest ends before the host heard of it", Guest(script="true\n", timeout=60), host=host)
