# SPDX-License-Identifier: Apache-2.0
"""What happens to two machines after README.md's tour: reloads, restarts, kills, upgrades, another kernel, removal."""
import re

from rows import need

# A disk beside the root disk that nobody writes while it is compared.
DATA = "/dev/vdb"
KNOB = 1_000_000  # bytes a second: bandwidth = "8mbit"
KNOB_SECONDS = 10


class Life:
    """The same two machines; each public function is a row of the test."""

    def __init__(self, server, source):
        self.server, self.source = server, source

    def unconfigured(self):
        for machine, unit in ((self.server, "blkferry-server"), (self.source, "blkferry-agent")):
            machine.call(f"""[ "$(systemctl is-enabled {unit})" = enabled ]
                [ "$(systemctl show -p ActiveState --value {unit})" = inactive ]
                [ "$(systemctl show -p ConditionResult --value {unit})" = no ]
                [ ! -d /sys/module/blkferry ]""")

    def confined(self):
        """Users, capabilities and modes of what runs; nothing complains in the logs."""
        self.server.call("""[ "$(capabilities blkferry-server)" = "0000000000000000 blkferry" ]
            [ "$(stat -c '%U %a' /var/lib/blkferry/server)" = "blkferry 700" ]
            [ "$(stat -c '%U %a' /var/lib/blkferry/pki/ca.key)" = "blkferry 600" ]
            no sh -c "journalctl -q -u blkferry-server --no-pager | grep -E 'event=few-descriptors|level=error'" """)
        # CAP_SYS_ADMIN alone, and for the opener alone
        self.source.call("""[ "$(capabilities blkferry-agent)" = "0000000000000000 blkferry-agent" ]
            [ "$(capabilities blkferry-opener)" = "0000000000200000 root" ]
            [ "$(stat -c '%U %a' /run/blkferry/opener.sock)" = "blkferry-agent 600" ]
            [ "$(stat -c '%U %a' /dev/blkferry/0)" = "root 600" ]
            no sh -c "journalctl -q -u blkferry-opener --no-pager | grep -E 'event=refused|level=error'"
            key=$(sed -n 's/^key = "\\(.*\\)"/\\1/p' /etc/blkferry/agent.toml)
            [ "$(stat -c '%U %a' "$key")" = "blkferry-agent 600" ]""")

    def second_disk(self):
        """The swap space becomes a disk with data, beside the protected root disk."""
        self.source.call(f"""swapoff {DATA}
            sed -i /swap/d /etc/fstab
            dd if=/dev/urandom of={DATA} bs=1M count=32 conv=fsync
            blkferry protect {DATA}
            in_step 1200
            dd if=/dev/urandom of={DATA} bs=1M count=4 seek=100 oflag=direct
            blkferry mark --name both""", timeout_s=2400)

    def throttled(self):
        """The knob by a reload alone: what leaves the network card while more waits, and the connection stays."""
        said = self.source.call(f"""in_step
            pid=$(pid_of blkferry-agent) sessions=$(status counters.sessions)
            echo 'bandwidth = "8mbit"' >>/etc/blkferry/agent.toml
            systemctl reload blkferry-agent
            until_true 60 is throttle.rate_bytes {KNOB}
            dd if=/dev/urandom of={DATA} bs=1M count=40 seek=40 oflag=direct
            now() {{ echo "$(cut -d ' ' -f 1 /proc/uptime) $(cat /sys/class/net/eth0/statistics/tx_bytes)"; }}
            before=$(now)
            sleep {KNOB_SECONDS}
            echo "wire $before $(now) $(status backlog_bytes)"
            is counters.sessions "$sessions"
            [ "$(pid_of blkferry-agent)" = "$pid" ]
            echo 'nonsense = 1' >>/etc/blkferry/agent.toml
            line=$(wc -l </etc/blkferry/agent.toml)
            systemctl reload blkferry-agent
            until_true 60 sh -c "journalctl -q -u blkferry-agent --no-pager | grep 'agent.toml:$line:'"
            is throttle.rate_bytes {KNOB}
            sed -i -e /nonsense/d -e /bandwidth/d /etc/blkferry/agent.toml
            systemctl reload blkferry-agent
            until_true 60 is throttle.rate_bytes 0
            in_step
            is counters.sessions "$sessions" """)
        begin, sent, end, sent_then, backlog = map(float, re.search(r"^wire (.*)$", said, re.MULTILINE)[1].split())
        rate = (sent_then - sent) / (end - begin)
        need(backlog > 0, "nothing waited any more, so the rate says nothing")
        # Above the knob: the headers of Ethernet, IP and TCP.
        need(0.85 * KNOB <= rate <= 1.08 * KNOB, f"{rate:.0f} bytes a second on the wire, the knob says {KNOB}")
        self.server.call("""pid=$(pid_of blkferry-server)
            systemctl reload blkferry-server
            [ "$(systemctl is-active blkferry-server)" = active ]
            [ "$(pid_of blkferry-server)" = "$pid" ]""")
        return f"{rate / 1000:.0f} kB/s on the wire at {KNOB // 1000}"

    def restarts(self):
        """What was written while the agent was down comes out of the ring; a stopped server is waited for."""
        self.source.call(f"""systemctl stop blkferry-agent
            [ "$(systemctl is-active blkferry-agent)" = inactive ]
            dd if=/dev/urandom of={DATA} bs=1M count=3 seek=110 oflag=direct
            systemctl start blkferry-agent
            in_step
            is counters.resync_bytes 0
            systemctl restart blkferry-agent
            in_step
            is counters.resync_bytes 0""")
        self.server.call("""systemctl stop blkferry-server
            [ "$(systemctl is-active blkferry-server)" = inactive ]""")
        self.source.call("until_true 120 is connected false; blkferry status")
        self.server.call("systemctl start blkferry-server")
        self.source.call("until_true 300 is connected true; in_step")
        self.server.call("systemctl restart blkferry-server")
        self.source.call("until_true 300 is connected true; in_step; is counters.resync_bytes 0")

    def survive_kills(self):
        """Killed daemons come back by themselves."""
        self.server.call("systemctl kill -s KILL blkferry-server")
        self.source.call(f"""before=$(pid_of blkferry-agent)
            systemctl kill -s KILL blkferry-agent
            dd if=/dev/urandom of={DATA} bs=1M count=1 seek=120 oflag=direct
            until_true 300 is connected true
            in_step
            [ "$(pid_of blkferry-agent)" != "$before" ]
            is counters.resync_bytes 0""")

    def upgraded(self, version):
        """`apt upgrade` on both; DKMS compiles the module anew. At most a gap of what the upgrade itself wrote is read again."""
        for machine, unit in ((self.server, "blkferry-server"), (self.source, "blkferry-agent")):
            machine.call(f"""before=$(pid_of {unit})
                apt-get -qq update
                apt-get -qq --no-install-recommends upgrade
                [ "$(dpkg-query -W -f '${{Version}}' {unit})" = {version} ]
                [ "$(pid_of {unit})" != "$before" ]""", timeout_s=1800)
        said = self.source.call(f"""dkms status -m blkferry -k "$(uname -r)" | grep -F 'blkferry/{version}, ' | grep ': installed'
            [ "$(dkms status -m blkferry | wc -l)" = 1 ]
            until_true 300 is connected true
            in_step
            no sh -c 'journalctl -q -u blkferry-agent --no-pager -o cat --since=-30min | grep state=RESCAN'
            echo "read again: $(status counters.resync_bytes)"
            blkferry verify --source""", timeout_s=3000)
        again = int(re.search(r"^read again: (\d+)$", said, re.MULTILINE)[1])
        need(again < (512 << 20), f"{again} bytes were read again")
        return f"{again / 1e6:.1f} MB read again"

    def another_kernel(self, release):
        """A kernel with its headers from apt: DKMS builds and signs the module for it."""
        packages = f"linux-image-{release} linux-headers-{release}"
        self.source.call(f"""apt-get -qq --no-install-recommends install {packages}
            dkms status -m blkferry -k {release} | grep ': installed'
            modinfo -k {release} blkferry | grep '^signer: *DKMS module signing key'
            [ -s /boot/initrd.img-{release} ]
            until_true 300 is connected true
            in_step 1200""", timeout_s=3600)

    def on_that_kernel(self, release, version):
        """After the reboot the agent is there by itself, compares all, ships what differs, and goes on."""
        said = self.source.call(f"""[ "$(uname -r)" = {release} ]
            until_true 300 systemctl is-active --quiet blkferry-agent
            until_true 300 is connected true
            in_step 2400
            [ "$(cat /sys/module/blkferry/srcversion)" = "$(modinfo -F srcversion blkferry)" ]
            dpkg-query -W -f '${{Version}}\\n' blkferry-dkms | grep -Fx {version}
            journalctl -q -b -u blkferry-agent --no-pager -o cat | grep state=RESCAN
            no sh -c 'journalctl -q -b -u blkferry-agent --no-pager -o cat | grep state=INITIAL_SYNC'
            echo "compared $(status counters.resync_bytes) $(status counters.resync_shipped_bytes)" """, timeout_s=3600)
        compared, shipped = map(int, re.search(r"^compared (\d+) (\d+)$", said, re.MULTILINE).groups())
        size = int(self.source.call(f"echo $(($(blockdev --getsize64 /dev/vda) + $(blockdev --getsize64 {DATA})))"))
        need(compared >= size, f"{compared} of {size} bytes were compared")
        need(shipped < size // 10, f"{shipped} of {size} bytes were shipped, though most did not differ")
        return f"{compared / 1e6:.0f} MB compared, {shipped / 1e6:.1f} MB of them shipped"

    def equal(self, point):
        """The recovery point of the data disk is the data disk, bit for bit; the root disk is verified while it lives."""
        wanted = self.source.call(f"blkferry verify --source >&2; blkferry mark --name {point} >&2; medium_hash {DATA}",
                                  timeout_s=3000).strip().splitlines()[-1]
        self.server.call(f"""until_true 120 sh -c 'blkferry points | grep {point}'
            blkferry export --store /var/lib/blkferry/server --slot 1 web1/{point} /srv/last.img
            [ "$(sha256sum </srv/last.img | cut -d ' ' -f 1)" = {wanted} ]
            rm /srv/last.img
            # Reading the store as root must leave nothing in it that the server cannot write.
            [ -z "$(find /var/lib/blkferry/server ! -user blkferry)" ]""", timeout_s=1800)

    def source_removed(self):
        """Remove ends the tracking and keeps what was configured; purge leaves nothing."""
        self.source.call("""apt-get -qq remove blkferry-agent blkferry-dkms blkferry
            [ ! -d /sys/module/blkferry ]
            no command -v blkferry blkferry-agent
            [ -s /etc/blkferry/agent.toml ]
            [ -s "$(sed -n 's/^cert = "\\(.*\\)"/\\1/p' /etc/blkferry/agent.toml)" ]
            [ -z "$(find /lib/modules -name 'blkferry.ko*')" ]""")
        self.source.call("""apt-get -qq purge 'blkferry*'
            left_behind
            [ -z "$(left_behind)" ]
            no getent passwd blkferry-agent
            [ -z "$(systemctl --failed --no-legend --plain)" ]""")

    def server_removed(self):
        """Remove keeps store, CA and configuration, and a new installation goes on with them; purge keeps recovery points alone."""
        self.server.call("""apt-get -qq remove blkferry-server
            [ ! -e /usr/sbin/blkferry-server ]
            [ -s /etc/blkferry/server.toml ]
            [ -s /var/lib/blkferry/pki/ca.key ]
            apt-get -qq --no-install-recommends install blkferry-server
            until_true 120 systemctl is-active --quiet blkferry-server
            blkferry points | grep before-upgrade
            apt-get -qq purge 'blkferry*' 2>&1 | tee /tmp/purge.log
            grep 'holds recovery points and stays' /tmp/purge.log
            [ -d /var/lib/blkferry/server/sources ]
            rm -r /var/lib/blkferry/server
            rmdir /var/lib/blkferry
            left_behind
            [ -z "$(left_behind)" ]
            [ -z "$(systemctl --failed --no-legend --plain)" ]""")
