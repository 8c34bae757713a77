# SPDX-License-Identifier: Apache-2.0
"""A protected disk is pulled while it is written and followed."""

from vmtest.spec import Case, Disk, Guest

SCRIPT = r"""
insmod /opt/blkferry/blkferry.ko
data=$(disk data)
id=$(bft attach "$data" 4194304 | sed -n 's/^disk=\([0-9]*\) .*/\1/p')
bft follow "$id" "$data" "$(disk copy)" >/tmp/follow.txt 2>&1 &
follower=$!
# Once the node is gone dd would make a file of its name, which newer kernels write with O_DIRECT too.
(while [ -b "$data" ] && dd if=/dev/urandom of="$data" bs=64k count=64 oflag=direct; do :; done) >/dev/null 2>&1 &
writer=$!
retry 60 sh -c "bft get $id | grep -q ' done=[1-9]'" || fail "no write was captured"
sync_host unplug
retry 30 test ! -e "/sys/block/${data##*/}" || fail "the disk is still there"
wait "$writer"
status=0
wait "$follower" || status=$?
cat /tmp/follow.txt
expect_equal "the consumer's end" "$status" 3
bft get "$id" >/tmp/answer || true
cat /tmp/answer
bft detach "$id" || true
rmmod blkferry || fail "the module does not unload"
must_fail grep -i blkferry /proc/vmallocinfo
"""


def host(vm):
    vm.expect("unplug")
    vm.unplug("data")
    vm.reply()


CASE = Case("hot-unplug of an attached disk under writes",
            Guest(script=SCRIPT, files=["kmod:blkferry.ko", "cc:tests/kmod/guest/bft"],
                  disks=[Disk("data", "64M"), Disk("copy", "64M")], timeout=180), host=host)
