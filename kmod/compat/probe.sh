#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Finds out by compiling which variant of each kernel interface this kernel
# has.  usage: probe.sh OUT.h PROBES.c COMPILER FLAGS...
# A feature of which no known variant compiles stops the build with its name.
set -u

out=$1
probes=$2
shift 2
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# feature: variants, the newest first
features="
tp_bio_queue: bio q_bio
tp_bio_complete: q_bio q_bio_int
tp_rq_complete: status int
tp_rq_issue: rq q_rq
bio_disk: bi_bdev bi_disk
rq_disk: queue rq
disk_gone: gd_dead up
disk_part0: pointer embedded
nr_sectors: bdev inode
dax: macro queue
partition: helper contains
bdev_open: file get_by_dev_holder get_by_dev
freeze: bdev_freeze freeze_bdev freeze_bdev_sb
class_create: name owner
devnode: const plain
vm_flags: clear direct
copy_bvec: memcpy_from_bvec kmap_atomic
"

guard() {
	echo "/* made by compat/probe.sh; one line per interface probed */"
	echo "#ifndef BF_COMPAT_CONFIG_H"
	echo "#define BF_COMPAT_CONFIG_H"
}

try() { # name
	n=$1
	shift
	"$@" -Werror -DBF_PROBE -DBF_PROBE_"$n" -c -o "$tmp/$n.o" "$probes" >"$tmp/$n.log" 2>&1
}

guard >"$tmp/config.h"
echo "$features" | while IFS=: read -r feature variants; do
	[ -n "$feature" ] || continue
	found=
	for v in $variants; do
		# the list of flags holds -Wp,-MMD,FILE; a probe must not write there
		if try "${feature}_$v" "$@"; then
			found=$v
			break
		fi
	done
	if [ -z "$found" ]; then
		{
			echo "blkferry: no known variant of '$feature' compiles against this kernel (tried: $variants)"
			for v in $variants; do
				echo "--- $feature $v"
				head -n 20 "$tmp/${feature}_$v.log"
			done
		} >&2
		exit 1
	fi
	echo "#define BF_$(echo "${feature}_$found" | tr '[:lower:]' '[:upper:]') 1" >>"$tmp/config.h"
done || exit 1
echo "#endif" >>"$tmp/config.h"
mv "$tmp/config.h" "$out"
