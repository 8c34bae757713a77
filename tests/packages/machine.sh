# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Before every command that a test machine runs (machine.py).

# until_true SECONDS COMMAND...: repeats it until it succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "not within its time: $*"; return 1; }
        sleep 1
    done
}

# no COMMAND...: it must fail; `! command` would not end a script under errexit.
no() {
    if "$@"; then return 1; fi
}

# status MEMBER: of the agent's status, as jq names it without the first dot.
status() {
    blkferry status --json | jq -r ".$1"
}

is() {
    [ "$(status "$1")" = "$2" ]
}

# in_step: connected, and every disk is replicated continuously.
in_step() {
    until_true "${1:-600}" is state CONTINUOUS || { blkferry status; return 1; }
    is connected true
}

pid_of() {
    systemctl show -p MainPID --value "$1"
}

# capabilities UNIT: the effective ones, and the user's name.
capabilities() {
    echo "$(awk '/^CapEff/ { print $2 }' "/proc/$(pid_of "$1")/status") $(stat -c %U "/proc/$(pid_of "$1")")"
}

medium_hash() {
    dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d ' ' -f 1
}

# left_behind: files with our name that no package command should leave.
left_behind() {
    find /etc /usr /lib/modules /var/lib /run -name '*blkferry*' ! -name 'blkferry-test*' ! -path '/var/lib/systemd/*' \
        ! -path '/var/lib/dpkg/*' ! -path '/var/lib/apt/*' ! -path '/run/systemd/*' ! -path '/run/udev/*'
}
