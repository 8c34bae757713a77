# SPDX-License-Identifier: Apache-2.0
from vmtest.recipes import chain_case, chain_guest, check_hashes
from vmtest.spec import Disk

SCRIPT = r"""
modprobe dm-mod
data=$(disk data)
dd if=/dev/urandom of="$data" bs=1M count=48 oflag=direct 2>/dev/null
# 64 KiB at 20 MiB cannot be read
dm_create bad "0 40960 linear $data 0
40960 128 error
41088 57216 linear $data 41088"
agent_setup
agent_start
blkferry protect /dev/mapper/bad
told() { blkferry status --json | jq -e '.disks[0].error | test("source read error at sector [0-9]+")' >/dev/null; }
retry 120 told || fail "the read error is not in the status: $(blkferry status --json)"
grep -q 'read_error.*sector=' /tmp/agent.log || fail "the read error is not in the log"
sector=$(blkferry status --json | jq -r '.disks[0].error | capture("sector (?<n>[0-9]+)").n')
[ "$sector" -ge 40960 ] && [ "$sector" -lt 41088 ] || fail "it names sector $sector, not one of 40960 to 41087"
must_fail blkferry mark --name never
must_fail agent_in CONTINUOUS
# the disk is mended below the running agent
printf '0 98304 linear %s 0\n' "$data" | dmsetup --noudevsync --noudevrules reload bad
dmsetup --noudevsync --noudevrules suspend --noflush bad
dmsetup --noudevsync --noudevrules resume bad
agent_wait CONTINUOUS
expect_equal "the error after it was mended" "$(status_of 'disks[0].error')" ""
mark_point final
report hash0 "$(medium_hash /dev/mapper/bad)"
"""


def check(context) -> None:
    names = [point["point"] for point in context.server.points()]
    assert "never" not in names, f"a point was made of an unreadable source: {names}"
    check_hashes("final")(context)


CASE = chain_case(
    "a source that cannot be read at a place: the place is told, no point is made, and once mended the sync ends equal",
    chain_guest(SCRIPT, modules=["dm-mod"], binaries=["dmsetup"], disks=[Disk("data", "48M")]), check=check)
