# SPDX-License-Identifier: Apache-2.0
"""A reader follows README.md on two fresh machines: its commands as they stand there, typed one after the other.

What a reader does besides: the packages lie in the folder, apt's question gets its yes (apt.conf), the server's name is in
/etc/hosts, the token that the server printed is typed where `blkferry enroll` asks for it, and `blkferry status --watch` is
interrupted once it shows continuous replication.
"""
import re
import shlex
import time

import readme
from rows import need

SERVER_NAME = "backup1.example.org"
SOURCE_NAME = "web1"
POINT = "before-upgrade"
# A terminal for the command, which types the token after the prompt has come.
TYPE_TOKEN = """rm -f /run/tty-in /run/tty-out
mkfifo /run/tty-in
script -qefc {line} /run/tty-out </run/tty-in >/dev/null &
exec 9>/run/tty-in
for _ in $(seq 300); do ! grep -qs Token: /run/tty-out || break; sleep 0.2; done
echo {token} >&9
status=0
wait $! || status=$?
cat /run/tty-out
exit $status
"""
WATCH = """{line} >/run/watched 2>&1 &
for _ in $(seq 3000); do ! grep -q 'Continuous replication' /run/watched || break; kill -0 $!; sleep 1; done
kill $!
wait $! || true
cat /run/watched
grep -q 'Continuous replication' /run/watched
"""


class Tour:
    """Follows the sections; keeps what was said and how long each command took."""

    def __init__(self, machines):
        self.machines = machines  # "server" and "source"
        self.token = ""
        self.said = {}
        self.seconds = {}

    def follow(self, section):
        """Types the section's commands. Returns how many, and how long it took."""
        begin = time.monotonic()
        todo = readme.commands(section)
        for command in todo:
            started = time.monotonic()
            self.said[command.line] = self._type(self.machines[command.machine], command.line)
            self.seconds[command.line] = time.monotonic() - started
        return f"{len(todo)} commands, {time.monotonic() - begin:.0f} s"

    def _type(self, machine, line):
        if line.startswith("blkferry enroll "):
            need(self.token, "README.md enrols before it has a token")
            said = machine.call(TYPE_TOKEN.format(line=shlex.quote(line), token=shlex.quote(self.token)))
            need(self.token not in said, "the token is shown where it is typed")
            return said
        if line.startswith("blkferry status --watch"):
            return machine.call(WATCH.format(line=line), timeout_s=3600)
        said = machine.call(line, timeout_s=1800)
        if "enroll-token" in line:
            self.token = said.strip().splitlines()[-1].strip()
        return said

    def of(self, pattern):
        """What the command that matches said; there has to be one."""
        found = [line for line in self.said if re.search(pattern, line)]
        need(found, f"README.md has no command like {pattern!r}")
        return self.said[found[0]]

    def install_seconds(self):
        """How long `apt install` took on each machine, DKMS's build included."""
        return ", ".join(f"{'source' if 'dkms' in line else 'server'} {seconds:.0f} s" for line, seconds in self.seconds.items()
                         if line.startswith("apt install"))

    def phases_shown(self):
        """`status --watch` began with the initial sync; the log has every phase by its name, in order."""
        said = self.of(r"^blkferry status --watch")
        need("Initial sync" in said, f"the initial sync was not shown:\n{said[-2000:]}")
        log = self.machines["source"].call("journalctl -q -u blkferry-agent --no-pager -o cat | grep event=state")
        found = re.findall(r"state=([A-Z_]+)", log)
        wanted = iter(found)
        need(all(phase in wanted for phase in ("INITIAL_SYNC", "FLUSHING_BACKLOG", "CREATING_SNAPSHOT", "CONTINUOUS")), f"phases: {found}")

    def disks_chosen(self):
        """The root disk is taken; the swap space is left out, and the reason is shown."""
        said = self.of(r"^blkferry protect --all")
        need(re.search(r"^/dev/vda\s.*\syes$", said, re.MULTILINE), f"the root disk is not taken:\n{said}")
        need(re.search(r"^/dev/vdb\s.*no: .*swap", said, re.MULTILINE), f"swap space is not left out:\n{said}")

    def point_is_sound(self):
        """The exported image is a root file system that e2fsck has nothing against, as after a power cut, and a name is in it."""
        server = self.machines["server"]
        image = shlex.split(next(line for line in self.said if line.startswith("blkferry export")))[-1]
        need(POINT in self.of(r"^blkferry points"), self.of(r"^blkferry points"))
        server.call(f"cp --sparse=always {image} /srv/check.img; e2fsck -fy /srv/check.img >/srv/check.log 2>&1 || [ $? = 1 ]\n"
                    "cat /srv/check.log; e2fsck -fn /srv/check.img\n"
                    f"[ \"$(debugfs -R 'cat /etc/hostname' /srv/check.img 2>/dev/null)\" = {SOURCE_NAME} ]\nrm /srv/check.img")
        said = server.call("cat /srv/check.log")
        # The counters of free blocks and inodes are not in ext4's journal: after any power cut they are counted anew.
        said = re.sub(r"^Free (blocks|inodes) count wrong.*\nFix\? yes\n", "", said, flags=re.MULTILINE)
        wrong = [line for line in said.splitlines() if re.search(r"\? yes|[Ii]nvalid|corrupt|ERROR|differences", line)]
        need(not wrong, "\n".join(wrong))
        return image
