# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# title: fio writes and verifies a virtio disk, with libaio and io_uring
# binaries: fio
# disk: data,size=64M
# timeout: 360

target=$(disk data)
expect_equal "size" "$(cat /sys/block/"${target##*/}"/size)" 131072
for engine in libaio io_uring; do
	fio --name=verify --filename="$target" --direct=1 --rw=randwrite --bs=4k --size=16M --ioengine="$engine" \
		--iodepth=16 --verify=crc32c --do_verify=1 --verify_fatal=1 --output="/tmp/fio-$engine.txt" ||
		fail "fio $engine: $(tail -n 3 "/tmp/fio-$engine.txt")"
	bf_send_file "/tmp/fio-$engine.txt"
done
