#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages of packaging/deps.txt, and those named, that are missing. Quiet and quick when nothing is.
# usage: deps.sh [PACKAGE...]
set -eu
list=$(dirname "$0")/../packaging/deps.txt
missing=
look() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed || missing="$missing $1"
}
while read -r package _; do
    case $package in '' | '#'*) continue ;; esac
    look "$package"
done <"$list"
for package; do
    look "$package"
done
[ -n "$missing" ] || exit 0
echo "Installing missing packages:$missing"
if [ "$(id -u)" -ne 0 ]; then
    echo "deps.sh: run as root, or install these yourself:$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words is meant
apt-get install -y -qq --no-install-recommends $missing >/dev/null
