# SPDX-License-Identifier: Apache-2.0
"""The runner as a command, with real guests: what must pass passes, what must fail fails, for the right reason."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from vmtest.paths import VM_DIR

KERNEL = os.environ.get("BLKFERRY_SELFTEST_KERNEL", "6.1")
BAD = {
    "bad/001-exit-status": r"exit status 1",
    "bad/002-says-why": r"sum: got '2', wanted '3'",
    "bad/003-timeout": r"no end within 8 s, killed",
    "bad/004-console-warning": r"1 bad console lines, first: warning",
    "bad/005-panic": r"bad console lines, first: .*(sysrq triggered crash|panic)",
    "bad/006-host-part": r"the host part disagrees",
    "bad/007-sync-never-comes": r"guest main ended before 'sync ready'",
    "bad/008-hung-task": r"bad console lines, first: hung task",
    "bad/010-crash-under-host-part": r"ended before 'sync ready'.*bad console lines, first: .*(crash|panic)",
    "bad/009-check-after": r"the guest sent 'wrong\\n'",
}


class Runner(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.holder.cleanup)

    def run_cases(self, *arguments, **environment):
        command = [str(VM_DIR / "run"), "--kernel", KERNEL, "--cases", str(VM_DIR / "selftest/cases"),
                   "--results", self.holder.name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})

    def result(self, case):
        return json.loads((Path(self.holder.name) / KERNEL / case / "result.json").read_text(encoding="utf-8"))

    def test_good(self):
        done = self.run_cases("good")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue(done.stdout.endswith("2 passed, 0 failed, 2 skipped\n"), done.stdout)
        self.assertRegex(done.stdout, rf"(?m)^passed: {KERNEL}/good/001-passes ")
        self.assertRegex(done.stdout, rf"(?m)^skipped: {KERNEL}/good/002-skips .*: not today")
        self.assertRegex(done.stdout, r"(?m)^skipped: .*needs module no-such-module .*, program no-such-program")
        self.assertEqual(self.result("good/001-passes")["reports"], {"answer": "42"})

    def test_strict_makes_skips_fail(self):
        done = self.run_cases("--strict", "good/003")
        self.assertEqual(done.returncode, 1, done.stdout)

    def test_bad(self):
        done = self.run_cases("bad")
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stdout.endswith(f"0 passed, {len(BAD)} failed, 0 skipped\n"), done.stdout)
        for case, reason in BAD.items():
            line = re.search(rf"(?m)^failed: {KERNEL}/{case} .*$", done.stdout)
            self.assertIsNotNone(line, f"{case} is not in the output:\n{done.stdout}")
            self.assertRegex(line.group(0), reason)
            self.assertEqual(self.result(case)["verdict"], "failed")

    def test_a_boot_that_hangs_is_repeated(self):
        done = self.run_cases("hung", BLKFERRY_VM_BOOT="4")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.count(f"again: {KERNEL}/hung/001-boot: the kernel hung in its boot"), 2, done.stdout)
        self.assertRegex(done.stdout, r"failed: .*/hung/001-boot .*: the kernel did not come up within \d+ s, killed")

    def test_no_case_matches(self):
        done = self.run_cases("nothing-of-this-name")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no case matches", done.stderr)

    def test_nothing_is_left_behind(self):
        command = [str(VM_DIR / "run"), "--kernel", KERNEL, "--cases", str(VM_DIR / "selftest/cases"),
                   "--results", self.holder.name, "good/001", "bad/003"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:
            self.assertEqual(runner.wait(), 1)
        self.assertEqual(list(Path("/tmp").glob(f"bf-vm-{runner.pid}-*")), [])
        self.assertEqual(list(Path(self.holder.name).rglob("initramfs.cpio")), [])


if __name__ == "__main__":
    unittest.main()
