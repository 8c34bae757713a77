# SPDX-License-Identifier: Apache-2.0
"""The console scanner: real lines of real kernels, good and bad."""

import unittest

from vmtest.console import scan

BAD = {
    "bug": ["[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "[   12.345678] kernel BUG at block/bio.c:100!",
            "[    3.100000] BUG: sleeping function called from invalid context at mm/page_alloc.c:5000",
            "[    3.100000] BUG: soft lockup - CPU#1 stuck for 130s! [fio:200]",
            "[    3.100000] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 300s!",
            "[    3.100000] BUG: KASAN: use-after-free in bf_probe+0x10/0x20 [blkferry]",
            "[    9.000001] BUG kmalloc-64 (Tainted: G    B      O      ): Redzone overwritten",
            "[    3.100000][  T123] BUG: scheduling while atomic: fio/200/0x00000002"],
    "warning": ["[    5.000000] WARNING: CPU: 0 PID: 77 at kernel/module.c:1 load+0x1/0x2 [blkferry]",
                "[    5.000000] WARNING: possible circular locking dependency detected",
                "+ dd if=/dev/zero of=/dev/vda[    5.000000] WARNING: CPU: 1 PID: 5 at mm/util.c:9 f+0x0/0x1"],
    "oops": ["[   12.345678] Oops: 0000 [#1] PREEMPT SMP PTI",
             "[   12.345678] invalid opcode: 0000 [#1] PREEMPT SMP"],
    "general protection": ["[    7.000000] general protection fault, probably for non-canonical address 0xdead: 0000"],
    "panic": ["[   12.345678] Kernel panic - not syncing: sysrq triggered crash"],
    "lockdep": ["[    4.000000] inconsistent lock state",
                "[    4.000000] BUG: MAX_LOCKDEP_ENTRIES too low!",
                "[    4.000000] ./include/linux/rcupdate.h:700 suspicious RCU usage!"],
    "hung task": ["[  242.000000] INFO: task fio:200 blocked for more than 120 seconds."],
    "stall": ["[   60.000000] rcu: INFO: rcu_preempt self-detected stall on CPU",
              "[   60.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
              "[   60.000000] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... }",
              "[   60.000000] rcu: rcu_preempt kthread starved for 5250 jiffies! g1 f0x0",
              "[   60.000000] watchdog: Watchdog detected hard LOCKUP on cpu 0"],
    "sanitizer": ["[    1.000000] UBSAN: array-index-out-of-bounds in kmod/ring.c:10:3",
                  "[    1.000000] BUG: KCSAN: data-race in bf_end [blkferry] / wake_up_all",
                  "[    1.000000] BUG: KCSAN: data-race in __d_lookup_rcu / bf_probe_bio_queue [blkferry]"],
    "kmemleak": ["[   99.000000] kmemleak: unreferenced object 0xffff888003c4a800 (size 512): bf_disk_alloc [blkferry]"],
    "call trace": ["[   12.345679] Call Trace:", "[   12.345679] RIP: 0010:bf_probe+0x10/0x20 [blkferry]"],
    "corruption": ["[    8.000000] refcount_t: underflow; use-after-free.",
                   "[    8.000000] list_add corruption. prev->next should be next",
                   "[    8.000000] Bad page state in process fio  pfn:00001"],
    "memory": ["[    8.000000] insmod: page allocation failure: order:9, mode:0xcc0(GFP_KERNEL)",
               "[    8.000000] fio invoked oom-killer: gfp_mask=0x100cca"],
    "interrupt": ["[    8.000000] irq 11: nobody cared (try booting with the \"irqpoll\" option)"],
    "program crash": ["[    8.000000] fio[200]: segfault at 0 ip 00007f sp 00007f error 4 in fio[55+1]",
                      "[    8.000000] traps: fio[200] trap invalid opcode ip:55 sp:7f error:0"],
}

GOOD = [
    "[    0.000000] Linux version 6.1.0-56-cloud-amd64 (gcc-12) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2",
    "[    0.100000] rcu: Preemptible hierarchical RCU implementation.",
    "[    0.100000] rcu: RCU debug extended QS entry/exit.",
    "[    0.100000] \tRCU CPU stall warnings timeout set to 300 (rcu_cpu_stall_timeout).",
    "[    0.100000] Kernel command line: panic=-1 rcupdate.rcu_cpu_stall_timeout=300",
    "[    0.500000] kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)",
    "[    0.500000] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
    "[    0.000000] ... MAX_LOCKDEP_SUBCLASSES:  8",
    "[    0.000000] ... MAX_LOCK_DEPTH:          48",
    "[    0.000000] rcu: \tRCU callback double-/use-after-free debug is enabled.",
    "[    0.500000] BUG: KCSAN: data-race in __d_lookup_rcu / dput",
    "[   99.000000] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "[    0.600000] mtrr: your CPUs had inconsistent fixed MTRR settings",
    "[    1.000000] blkferry: loading out-of-tree module taints kernel.",
    "[    1.000000] blkferry: module verification failed: signature and/or required key missing - tainting kernel",
    "[    2.000000] Buffer I/O error on dev dm-0, logical block 0, async page read",
    "[    2.000000] debug: unmapping init memory",
    "[    2.000000] process '/bin/busybox' started with executable stack",
    "[    2.000000] workqueue: blk_mq_run_work_fn hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
    "WARNING: a program prints this, the kernel does not",
    "mkfs.ext4: BUG: Call Trace: Oops",
    "",
]


class Scanner(unittest.TestCase):
    def test_each_bad_line_is_found_once(self):
        for name, lines in BAD.items():
            for line in lines:
                findings = scan([line])
                self.assertEqual(len(findings), 1, line)
                if "[" + name + "]" != "[stall]":
                    self.assertIn(findings[0].pattern, (name, "bug", "warning"), line)

    def test_good_lines_pass(self):
        for line in GOOD:
            self.assertEqual(scan([line]), [], line)

    def test_line_number_and_text(self):
        finding, = scan(GOOD[:3] + BAD["panic"] + GOOD)
        self.assertEqual((finding.pattern, finding.line), ("panic", 4))
        self.assertEqual(finding.text, "Kernel panic - not syncing: sysrq triggered crash")

    def test_allow_passes_only_what_it_names(self):
        lines = ["[    5.000000] WARNING: the first", "[    5.000001] WARNING: the second"]
        findings = scan(lines, allow=["WARNING: the first"])
        self.assertEqual([finding.text for finding in findings], ["WARNING: the second"])


if __name__ == "__main__":
    unittest.main()
