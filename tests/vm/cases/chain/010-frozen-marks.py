# SPDX-License-Identifier: Apache-2.0
import subprocess

from vmtest.paths import VmError
from vmtest.recipes import chain_case, chain_guest
from vmtest.spec import Disk

POINTS = 5

SCRIPT = r"""
data=$(disk data)
mkfs.ext4 -q "$data"
agent_setup
agent_start
blkferry protect "$data"
agent_wait CONTINUOUS
mkdir -p /mnt
mount "$data" /mnt
( i=0; while [ ! -e /tmp/stop ]; do i=$((i + 1)); dd if=/dev/urandom of=/mnt/f$((i % 60)) bs=16k count=$((1 + i % 4)) 2>/dev/null; \
	[ $((i % 7)) -ne 0 ] || sync; [ $((i % 11)) -ne 0 ] || rm -f /mnt/f$((i % 50)); done; echo "$i" >/tmp/written ) &
writer=$!
mark_point plain
for n in $(seq POINTS); do
	mark_point "fs$n" --fs
done
touch /tmp/stop
wait $writer
# what the module added is told: each write that was captured, and each freeze
measured() { # within a second of it
	blkferry status --json >/tmp/status.json && jq -e '[.frozen, .disks[0].latency[]] | all(.p50_ns <= .p99_ns and .p99_ns <= .max_ns)' \
		/tmp/status.json && jq -e '.frozen.samples == POINTS and .frozen.max_ns > 0' /tmp/status.json &&
		jq -e '.disks[0].latency | .submit.samples > 0 and .end.samples > 0' /tmp/status.json
}
retry 60 measured >/dev/null 2>&1 || fail "latency is not told: $(jq -c '[.frozen, .disks[].latency]' /tmp/status.json)"
blkferry status | grep -q '^Latency  .* added to a write' || fail "no latency in the status: $(blkferry status)"
report submit "$(jq -c '.disks[0].latency.submit' /tmp/status.json)"
report frozen "$(jq -c .frozen /tmp/status.json)"
report rounds "$(cat /tmp/written)"
umount /mnt
""".replace("POINTS", str(POINTS))


def run(*command: str) -> tuple[int, str]:
    """Exit status and output of a program that only reads the image."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def check(context) -> None:
    if int(context.reports["rounds"]) < POINTS:
        raise VmError(f"there was hardly a load: {context.reports['rounds']} rounds")
    # Without a freeze the journal of a mounted ext4 has to be replayed: the test below would see it.
    if "needs_recovery" not in run("dumpe2fs", "-h", str(context.server.export("plain", 0)))[1]:
        raise VmError("the crash-consistent point needs no recovery: the check means nothing")
    for number in range(1, POINTS + 1):
        image = context.server.export(f"fs{number}", 0)
        if "needs_recovery" in run("dumpe2fs", "-h", str(image))[1]:
            raise VmError(f"point fs{number}: the journal has to be replayed")
        status, text = run("e2fsck", "-f", "-n", str(image))
        if status != 0:
            raise VmError(f"point fs{number}: e2fsck says {status}: {text[-400:]}")
        image.unlink()


CASE = chain_case(
    "each mark --fs under load is an ext4 that is clean and needs no journal replay",
    chain_guest(SCRIPT, binaries=["mkfs.ext4"], modules=["ext4"], disks=[Disk("data", "64M")]), check=check)
