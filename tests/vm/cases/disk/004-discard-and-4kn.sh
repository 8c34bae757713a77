# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: 4Kn disks refuse 512-byte writes, discard and write-zeroes reach the disk, partitions appear
# binaries: blkdiscard blockdev sfdisk partx
# disk: native,size=64M,block=4096,discard
# disk: parts,size=64M
# timeout: 120

native=$(disk native)
expect_equal "logical block" "$(blockdev --getss "$native")" 4096
must_fail dd if=/dev/zero of="$native" bs=512 count=1 oflag=direct
dd if=/dev/urandom of="$native" bs=4096 count=256 oflag=direct
blkdiscard --offset 0 --length 524288 "$native"
blkdiscard --zeroout --offset 524288 --length 524288 "$native"
[ "$(dd if="$native" bs=4096 skip=128 count=128 iflag=direct | tr -d '\0' | wc -c)" = 0 ] ||
	fail "the zeroed range is not zero"

parts=$(disk parts)
printf 'label: gpt\n,16M\n,16M\n' | sfdisk -q --no-reread "$parts"
blockdev --rereadpt "$parts" || partx --add "$parts"
expect_equal "partitions" "$(grep -c "${parts##*/}[0-9]" /proc/partitions)" 2
