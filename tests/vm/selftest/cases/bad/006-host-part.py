# SPDX-License-Identifier: Apache-2.0
"""The guest succeeds, the host part does not."""

from vmtest.spec import Case, Guest


def host(vm):
    vm.expect("ready")
    vm.reply()
    assert not vm.env["BF_KERNEL"], "the host part disagrees"


CASE = Case("the host part fails", Guest(script="sync_host ready\n", timeout=60), host=host)
