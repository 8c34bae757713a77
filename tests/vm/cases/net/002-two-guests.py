# SPDX-License-Identifier: Apache-2.0
"""Two guests on one wire."""

from vmtest.spec import Case, Guest

SERVER = r"""
nc -l -p 7000 -e sha256sum &
pid=$!
retry 30 grep -q ':1B58 ' /proc/net/tcp /proc/net/tcp6
sync_host listening
wait "$pid" || true
"""

CLIENT = r"""
sync_host go
retry 30 ping -c 1 -W 2 192.168.77.2
dd if=/dev/urandom of=/tmp/sent bs=64k count=8 2>/dev/null
nc -w 60 192.168.77.2 7000 </tmp/sent | cut -d' ' -f1 >/tmp/answer || true
expect_equal "digest from the other guest" "$(cat /tmp/answer)" "$(sha256sum </tmp/sent | cut -d' ' -f1)"
"""


def host(vm):
    server = vm.peers["server"]
    server.expect("listening")
    vm.expect("go")
    vm.reply()
    server.reply()


CASE = Case("two guests talk over a wire", Guest(script=CLIENT, lan="192.168.77.1", memory=256, timeout=240),
            peers={"server": Guest(script=SERVER, lan="192.168.77.2", memory=256, timeout=240)}, host=host)
