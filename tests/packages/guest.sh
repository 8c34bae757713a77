#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs in the booted guest of tests/packages/installed: server and agent of the packages on one machine, which replicates
# its second disk, /dev/vdb. Prints a row a check on its standard output, which the host reads.
set -u

# until_true SECONDS COMMAND...: repeats it until it succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 1
    done
}

# check NAME FUNCTION: a row; the function's output is shown if it fails.
check() {
    local begin=$SECONDS said status
    # Not as a condition: that would switch errexit off in the function.
    said=$(set -eux; "$2" 2>&1)
    status=$?
    if [ $status = 0 ]; then
        echo "passed: guest: $1 ($((SECONDS - begin)) s)"
    else
        echo "failed: guest: $1"
        echo "$said"
        journalctl -q -u blkferry-agent -u blkferry-server -n 30 --no-pager
    fi
}

# no COMMAND...: it must fail; `! command` would not end a function under errexit.
no() {
    if "$@"; then return 1; fi
}

status() {
    blkferry status --json | jq -r ".$1"
}

is() {
    [ "$(status "$1")" = "$2" ]
}

# capabilities UNIT: the effective ones, and the user's name.
capabilities() {
    local pid
    pid=$(systemctl show -p MainPID --value "$1")
    echo "$(awk '/^CapEff/ { print $2 }' "/proc/$pid/status") $(stat -c %U "/proc/$pid")"
}

medium_hash() {
    dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d ' ' -f 1
}

unconfigured() {
    for unit in blkferry-agent blkferry-server; do
        [ "$(systemctl is-enabled $unit)" = enabled ]
        [ "$(systemctl show -p ActiveState --value $unit)" = inactive ]
        [ "$(systemctl show -p ConditionResult --value $unit)" = no ]
    done
    [ ! -d /sys/module/blkferry ]
}

server_starts() {
    blkferry pki init /etc/blkferry/pki
    blkferry pki issue /etc/blkferry/pki server backup1 --out /etc/blkferry
    blkferry pki issue /etc/blkferry/pki source web1 --out /etc/blkferry
    cp /etc/blkferry/pki/ca.pem /etc/blkferry/
    [ "$(stat -c '%U %a' /etc/blkferry/server-backup1.key)" = "blkferry 600" ]
    [ "$(stat -c '%U %a' /etc/blkferry/source-web1.key)" = "blkferry-agent 600" ]
    printf '%s\n' 'cert = "/etc/blkferry/server-backup1.pem"' 'key = "/etc/blkferry/server-backup1.key"' \
        'ca = "/etc/blkferry/ca.pem"' 'disk_reserve = "64MiB"' >/etc/blkferry/server.toml
    systemctl start blkferry-server
    [ "$(capabilities blkferry-server)" = "0000000000000000 blkferry" ]
    [ "$(stat -c '%U %a' /var/lib/blkferry/server)" = "blkferry 700" ]
    blkferry server status
    no sh -c "journalctl -q -u blkferry-server --no-pager | grep -E 'event=few-descriptors|level=error'"
}

agent_starts() {
    printf '%s\n' 'server = "127.0.0.1:1500"' 'source = "web1"' 'cert = "/etc/blkferry/source-web1.pem"' \
        'key = "/etc/blkferry/source-web1.key"' 'ca = "/etc/blkferry/ca.pem"' >/etc/blkferry/agent.toml
    systemctl start blkferry-agent
    [ -d /sys/module/blkferry ]
    # CAP_SYS_ADMIN alone
    [ "$(capabilities blkferry-agent)" = "0000000000200000 blkferry-agent" ]
    is state STOPPED
}

protects() {
    dd if=/dev/urandom of=/dev/vdb bs=1M count=32 conv=fsync
    blkferry disks
    blkferry protect /dev/vdb
    [ "$(stat -c '%U %a' /dev/blkferry/0)" = "blkferry-agent 600" ]
    until_true 1200 is state CONTINUOUS || { blkferry status; false; }
    dd if=/dev/urandom of=/dev/vdb bs=1M count=4 seek=100 oflag=direct
    blkferry mark --name first
}

# The knob by a reload alone; the connection stays.
reloads() {
    local pid
    pid=$(systemctl show -p MainPID --value blkferry-agent)
    echo 'bandwidth = "16mbit"' >>/etc/blkferry/agent.toml
    systemctl reload blkferry-agent
    until_true 60 is throttle.rate_bytes 2000000
    is counters.sessions 1
    [ "$(systemctl show -p MainPID --value blkferry-agent)" = "$pid" ]
    echo 'nonsense = 1' >>/etc/blkferry/agent.toml
    systemctl reload blkferry-agent
    until_true 60 sh -c 'journalctl -q -u blkferry-agent --no-pager | grep "agent.toml:7:"'
    is throttle.rate_bytes 2000000
    sed -i -e '/nonsense/d' -e '/bandwidth/d' /etc/blkferry/agent.toml
    systemctl reload blkferry-agent
    until_true 60 is throttle.rate_bytes 0
    systemctl reload blkferry-server
    [ "$(systemctl is-active blkferry-agent blkferry-server | sort -u)" = active ]
}

# Written while the agent is down; it goes on from the ring.
restarts() {
    systemctl stop blkferry-agent
    dd if=/dev/urandom of=/dev/vdb bs=1M count=3 seek=110 oflag=direct
    systemctl start blkferry-agent
    until_true 300 is state CONTINUOUS
    is counters.resync_bytes 0
    systemctl restart blkferry-server
    until_true 300 is connected true
    until_true 300 is state CONTINUOUS
    is counters.resync_bytes 0
}

# A daemon that is killed comes back by itself.
survives_kills() {
    systemctl kill -s KILL blkferry-agent blkferry-server
    dd if=/dev/urandom of=/dev/vdb bs=1M count=1 seek=120 oflag=direct
    until_true 300 is connected true
    until_true 300 is state CONTINUOUS
    is counters.resync_bytes 0
}

# The new packages; DKMS compiles the module in this guest.
upgrades() {
    local before
    before=$(systemctl show -p MainPID --value blkferry-agent)
    apt-get -qq update
    dd if=/dev/urandom of=/dev/vdb bs=1M count=2 seek=130 oflag=direct
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends upgrade
    dkms status -m blkferry -k "$(uname -r)" | grep ': installed'
    [ "$(systemctl show -p MainPID --value blkferry-agent)" != "$before" ]
    until_true 300 is connected true
    until_true 300 is state CONTINUOUS
    is counters.resync_bytes 0
}

equal() {
    blkferry mark --name last
    until_true 120 sh -c 'blkferry points | grep last'
    blkferry export --store /var/lib/blkferry/server web1/last /srv/last.img
    [ "$(medium_hash /dev/vdb)" = "$(sha256sum </srv/last.img | cut -d ' ' -f 1)" ]
    rm /srv/last.img
    # Reading the store as root must leave nothing in it that the server cannot write.
    [ -z "$(find /var/lib/blkferry/server ! -user blkferry)" ]
    systemctl restart blkferry-server
}

purged() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -y purge 'blkferry*' >/tmp/purge.log 2>&1 || { cat /tmp/purge.log; return 1; }
    cat /tmp/purge.log
    grep 'holds recovery points and stays' /tmp/purge.log
    [ ! -d /sys/module/blkferry ]
    [ ! -e /run/blkferry ]
    rm -r /var/lib/blkferry/server /etc/blkferry/pki
    rmdir /var/lib/blkferry
    find /etc /usr /lib /var/lib -name '*blkferry*' ! -name 'blkferry-test*' ! -path '/var/lib/systemd/*' \
        ! -path '/var/lib/dpkg/*' ! -path '/var/lib/apt/*' >/tmp/left
    cat /tmp/left
    [ ! -s /tmp/left ]
    no getent passwd blkferry-agent
}

check "nothing starts unconfigured" unconfigured
check "the server starts, without a capability" server_starts
check "the agent starts, with one capability" agent_starts
check "a disk is protected" protects
check "a reload moves the throttle and keeps the connection" reloads
check "a restart goes on where it was" restarts
check "killed daemons come back" survives_kills
check "an upgrade keeps the protection" upgrades
check "the recovery point equals the disk" equal
check "purge leaves nothing but the recovery points" purged
systemctl --failed --no-legend --plain
echo "guest: end"
