#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# blkferry-agent's command line: version, help, and exit status 2 for wrong usage or configuration.
set -eu
agent=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAIL: $*"; exit 1; }
status() { set +e; "$@" >"$dir/out" 2>"$dir/err"; rc=$?; set -e; echo "$rc"; }

[ "$(status "$agent" --version)" = 0 ] || fail "--version"
grep -q '^blkferry-agent [0-9]' "$dir/out" || fail "--version does not tell a version"
[ "$(status "$agent" --help)" = 0 ] || fail "--help"
for option in --config --tracker --opener --check --version; do
    grep -q -- "$option" "$dir/out" || fail "--help does not mention $option"
done
[ "$(status "$agent" --no-such-option)" = 2 ] || fail "an unknown option is accepted"
[ "$(status "$agent" --config "$dir/missing.toml")" = 2 ] || fail "a missing configuration is accepted"
grep -q 'missing.toml' "$dir/err" || fail "the error does not name the file"
printf 'server = "127.0.0.1"\nsource = "a"\nnonsense = 1\n' >"$dir/bad.toml"
[ "$(status "$agent" --config "$dir/bad.toml" --check)" = 2 ] || fail "an unknown key is accepted"
grep -q 'nonsense' "$dir/err" || fail "the error does not name the key"
printf 'server = "127.0.0.1"\nsource = "a"\n' >"$dir/good.toml"
[ "$(status "$agent" --config "$dir/good.toml" --check)" = 0 ] || fail "a good configuration is refused: $(cat "$dir/err")"
[ "$(status "$agent" --config "$dir/good.toml" --tracker nonsense)" = 2 ] || fail "a wrong tracker is accepted"
