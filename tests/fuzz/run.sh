#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets with clang, AddressSanitizer and UndefinedBehaviorSanitizer, and runs each for SECONDS.
# usage: tests/fuzz/run.sh SECONDS [TARGET...]   (targets: the fuzz_* programs, e.g. "frame batch"; default: all)
# FUZZ_SEED=N: the same inputs in the same order each time, as far as the seconds go; default: a new seed, told in the log.
# What is found new stays in build-fuzz/corpus/TARGET, crashes in build-fuzz/crashes/TARGET-*; exit status 1 if any.
set -eu
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [TARGET...]}
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD_FUZZ:-$root/build-fuzz}

# clang 16 is the oldest that compiles std::expected of libstdc++.
for version in 19 18 17 16; do
    [ -n "${CXX:-}" ] && break
    if command -v "clang++-$version" >/dev/null; then
        CC=clang-$version CXX=clang++-$version
    fi
done

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER="${CC:-clang}" -DCMAKE_CXX_COMPILER="${CXX:-clang++}" \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBLKFERRY_FUZZ=ON >/dev/null
if [ $# -eq 0 ]; then
    # Every fuzz_* program that is a target (make_corpus is none).
    # shellcheck disable=SC2046 # names of targets
    set -- $(ninja -C "$build" -t targets all | sed -n 's/^fuzz_\([a-z_]*\): phony$/\1/p' | grep -v '^make_corpus$' | sort -u)
fi
[ $# -gt 0 ] || { echo "run.sh: no fuzz targets found in $build" >&2; exit 1; }

programs=
for target; do
    programs="$programs fuzz_$target"
done
# shellcheck disable=SC2086 # names of programs
nice ninja -C "$build" -j "${JOBS:-2}" $programs

mkdir -p "$build/crashes"
failed=
for target; do
    mkdir -p "$build/corpus/$target"
    echo "== $target, $seconds s"
    dictionary=
    [ ! -f "$root/tests/fuzz/dictionaries/$target.dict" ] || dictionary=-dict=$root/tests/fuzz/dictionaries/$target.dict
    # No single allocation is sized by the input: malloc_limit_mb holds all of them far below the memory limit.
    if ! "$build/tests/fuzz_$target" -max_total_time="$seconds" -seed="${FUZZ_SEED:-0}" -max_len=65536 -timeout=10 -rss_limit_mb=2048 \
        -malloc_limit_mb=256 ${dictionary:+"$dictionary"} -print_final_stats=1 -artifact_prefix="$build/crashes/$target-" "$build/corpus/$target" \
        "$root/tests/fuzz/corpus/$target" >"$build/crashes/$target.log" 2>&1; then
        failed="$failed $target"
        tail -40 "$build/crashes/$target.log"
        grep -h '^INFO: Seed' "$build/crashes/$target.log" || true
    fi
    grep -E '^stat::number_of_executed_units|^stat::new_units_added' "$build/crashes/$target.log" || true
done
[ -z "$failed" ] || { echo "run.sh: failed:$failed" >&2; exit 1; }
