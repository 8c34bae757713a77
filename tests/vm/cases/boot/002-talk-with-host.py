# SPDX-License-Identifier: Apache-2.0
"""Guest and host wait for each other and exchange a file."""

import hashlib

from vmtest.spec import Case, Guest

SCRIPT = r"""
answer=$(sync_host ready)
expect_equal "reply" "$answer" "seed 17"
answer=$(sync_host again)
expect_equal "second reply" "$answer" "done"
seq 1 200000 >/tmp/numbers
report sha256 "$(sha256sum /tmp/numbers | cut -d' ' -f1)"
bf_send_file /tmp/numbers numbers.txt
# Concurrent tellers must not lose a message.
for number in 1 2 3 4 5 6 7 8; do
	bf_tell "report _parallel$number $number" &
done
wait
"""


def host(vm):
    vm.expect("ready")
    vm.reply("seed 17")
    vm.expect("again")
    vm.reply("done")


def check(context):
    data = (context.directory / "main/out/numbers.txt").read_bytes()
    wanted = "".join(f"{number}\n" for number in range(1, 200001)).encode()
    assert data == wanted, "numbers.txt differs from what the guest wrote"
    assert context.reports["sha256"] == hashlib.sha256(wanted).hexdigest(), "digest differs"
    for number in range(1, 9):
        assert context.reports.get(f"_parallel{number}") == str(number), f"message {number} of 8 was lost"


CASE = Case("guest and host exchange messages and files", Guest(script=SCRIPT, timeout=120), host=host, check=check)
