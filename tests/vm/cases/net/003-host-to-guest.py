# SPDX-License-Identifier: Apache-2.0
"""The host reaches a server in the guest, over a slow link made in the guest."""

import socket
import time

from vmtest.spec import Case, Guest

SCRIPT = r"""
modprobe sch_netem
tc qdisc add dev eth0 root netem delay 200ms
nc -l -p 7000 -e cat &
retry 30 grep -q ':1B58 ' /proc/net/tcp /proc/net/tcp6
sync_host listening
wait
"""


def host(vm):
    vm.expect("listening")
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", vm.forwarded[7000]), timeout=30) as connection:
        connection.sendall(b"ping\n")
        answer = connection.recv(100)
    assert answer == b"ping\n", f"the echo is {answer!r}"
    assert time.monotonic() - begin >= 0.2, "the answer came faster than the link that netem made"
    vm.reply()


CASE = Case("TCP from the host to a server in the guest, netem in between",
            Guest(script=SCRIPT, network=True, forwards=[7000], modules=["sch_netem"], binaries=["tc"], timeout=180),
            host=host)
