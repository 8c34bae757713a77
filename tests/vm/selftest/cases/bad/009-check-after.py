# SPDX-License-Identifier: Apache-2.0
"""What the guest sent is judged after its end."""

from vmtest.spec import Case, Guest


def check(context):
    text = (context.directory / "main/out/answer").read_text(encoding="utf-8")
    assert text == "right\n", f"the guest sent {text!r}"


CASE = Case("the check after the run fails",
            Guest(script="echo wrong >/tmp/answer\nbf_send_file /tmp/answer\n", timeout=60), check=check)
