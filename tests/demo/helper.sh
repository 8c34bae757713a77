# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# The helper guest of the demo: checks and mounts recovery points, which the server's own kernel never does.
set +x
mkdir -p /mnt
for point in final underload; do
	image=$(disk $point)
	mount -t ext4 "$image" /mnt
	[ "$(cat /mnt/early.txt)" = "written before replication began" ] || fail "$point: early.txt differs"
	if [ $point = final ]; then
		report late "$(cat /mnt/late.txt)"
		for sum in /mnt/file*.sum; do
			[ "$(cut -d' ' -f1 <"$sum")" = "$(sha256sum "${sum%.sum}" | cut -d' ' -f1)" ] || fail "${sum%.sum} differs"
		done
		report files "$(find /mnt -name 'file*.sum' | wc -l)"
	fi
	umount /mnt
	e2fsck -f -n "$image" >/tmp/fsck.log 2>&1 || fail "$point: e2fsck: $(tail -n 3 /tmp/fsck.log)"
	echo "demo:   $point: ext4 mounts, its files read, e2fsck -f is clean"
done
