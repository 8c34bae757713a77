#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the test suites and closes with one line: N passed, N failed, N skipped.

    tests/suites.py            every suite, as `make test` does; guests beside the rest
    tests/suites.py unit vm    only these, one after the other

Each suite is a function that yields (name, outcome, detail); outcome is "passed", "failed" or "skipped".
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOBS = str(os.cpu_count() or 2)
KERNELS = os.environ.get("KERNELS", "6.1 6.12").split()
# What cppcheck looks for: errors, doubtful code, slow and unportable constructs.
CPPCHECK = ["--quiet", f"-j{JOBS}", "--std=c++20", "--enable=warning,performance,portability", "--inline-suppr", "--error-exitcode=1",
            "-Idaemon", "-Ikmod/uapi", "--template={file}:{line}: {id}: {message}",
            "--suppress=passedByValue",  # what is kept comes by value and is moved
            "--suppress=returnStdMoveLocal",  # it takes the front of a vector for the vector
            "--suppress=danglingTemporaryLifetime:tools/output.cpp",  # the text lives to the end of the call
            "--suppress=ignoredReturnValue:daemon/fold/folder.hpp"]  # it is the condition of ?:


def run(command, timeout_s=3600, **options):
    """Runs a command with its output merged and kept; returns (exit status, output)."""
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_s, check=False,
                              **options)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
        return 124, (output if isinstance(output, str) else output.decode(errors="replace")) + "\ntimed out"


def tail(text, lines=40):
    return "\n".join(text.strip().splitlines()[-lines:])


def said(detail, most=300):
    """The last line that says why, for the list of what did not pass."""
    lines = [line.strip() for line in detail.splitlines() if re.search(r"\w", line)]
    telling = [line for line in lines if re.search(r"fail|error|ERROR|what\(\)|expected|assert|timed out", line, re.IGNORECASE)]
    return f": {(telling or lines)[-1][:most]}" if lines else ""


def build(folder, *flags, environment=None, targets=()):
    """Configures and builds one tree, or some targets of it; returns None or the failure as a result row."""
    status, output = run(["cmake", "-S", ".", "-B", folder, "-G", "Ninja", *flags],
                         env={**os.environ, **(environment or {})})
    if status == 0:
        status, output = run(["nice", "ninja", "-C", folder, "-j", JOBS, *targets])
    return None if status == 0 else (f"build {folder}", "failed", tail(output))


def ctest(folder, label, timeout_s=2400):
    """Runs the ctest programs of one label; one row each."""
    report = ROOT / folder / f"junit-{label}.xml"
    report.unlink(missing_ok=True)
    run(["ctest", "--test-dir", folder, "-L", label, "--output-on-failure", "-j", JOBS if label == "unit" else "1",
         "--output-junit", str(report)], timeout_s=timeout_s,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"})
    if not report.exists():
        yield f"{folder} {label}", "failed", "ctest wrote no report"
        return
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    if not cases:
        yield f"{folder} {label}", "failed", "no test ran"
    for case in cases:
        output = case.findtext("system-out") or ""
        name = f"{folder} {case.get('name')} ({float(case.get('time') or 0):.1f} s)"
        if case.find("skipped") is not None or case.get("status") == "notrun":
            reason = re.search(r"SKIP: (.*)", output)
            yield name, "skipped", reason.group(1) if reason else tail(output, 3) or "no reason given"
        elif case.find("failure") is not None or case.get("status") == "fail":
            yield name, "failed", tail(output, 60)
        else:
            yield name, "passed", ""


def suite_lint():
    """Shell scripts pass shellcheck; every source names its licence; cppcheck finds nothing."""
    files = run(["git", "ls-files"])[1].split()
    scripts = [f for f in files if f.endswith(".sh") or (
        (ROOT / f).is_file() and (ROOT / f).read_bytes()[:64].startswith((b"#!/bin/sh", b"#!/bin/bash")))]
    status, output = run(["shellcheck", "-x", *scripts]) if scripts else (0, "")
    yield f"shellcheck over {len(scripts)} scripts", "passed" if status == 0 else "failed", tail(output)
    sources = [f for f in files if re.search(r"\.(c|h|cpp|hpp|py|sh)$", f) and (ROOT / f).stat().st_size > 0]
    bare = [f for f in sources if "SPDX-License-Identifier:" not in (ROOT / f).read_text(errors="replace")[:300]]
    yield f"licence line in {len(sources)} sources", "failed" if bare else "passed", " ".join(bare)
    code = [f for f in files if re.match(r"(daemon|tools|bench)/.*\.c(pp)?$", f) and not f.startswith("bench/guest/")
            and not f.endswith(".bpf.c")]  # clang compiles and the kernel verifies these; cppcheck cannot read their macros
    status, output = run(["nice", "cppcheck", *CPPCHECK, *code])
    yield f"cppcheck over {len(code)} sources", "passed" if status == 0 else "failed", tail(output)


def suite_unit():
    """Unit tests of the ordinary build."""
    failure = build("build")
    if failure:
        yield failure
        return
    yield "build with g++, warnings as errors", "passed", ""
    yield from ctest("build", "unit")


def suite_sanitize():
    """The second compiler, warnings as errors; the same unit tests under its address and undefined-behaviour sanitizers."""
    failure = build("build-asan", "-DBLKFERRY_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug",
                    environment={"CC": "clang-16", "CXX": "clang++-16"})
    if failure:
        yield failure
        return
    yield "build with clang, warnings as errors", "passed", ""
    yield from ctest("build-asan", "unit")


def suite_e2e():
    """Agent and server processes with a user-space ring producer."""
    failure = build("build")
    if failure:
        yield failure
        return
    yield from ctest("build", "e2e")


def suite_sim():
    """Agent and server in one thread and in virtual time, as many seeds as a minute takes; planted lies are found."""
    failure = build("build", targets=["blkferry-sim"])
    if failure:
        yield failure
        return
    program = "build/tests/blkferry-sim"
    lies = (("lose-sync", "was durable, now it is"), ("wrong-payload", "differs from the source"), ("assume-clean", "differs from"),
            ("lose-discard", "differs from the source"), ("lie-about-write", "differs from the source"), ("lose-names", ""),
            ("hide-rot", "differs from the source"), ("write-in-freeze", "frozen file systems"), ("dead-link", "did not come within"),
            ("leak-file", "files are open"), ("leak-memory", "bytes are taken"), ("orphan", "is left in the store"))
    for lie, said in lies:
        status, output = run([program, "--seeds", "1", "400", "--mutation", lie], timeout_s=600)
        found = status == 1 and said in output and "replay: " in output
        yield f"planted {lie} is found", "passed" if found else "failed", tail(output)
    # One process for each core, each with seeds of its own.
    seconds = float(os.environ.get("SIM_SECONDS", "60"))
    first = int(os.environ.get("SIM_SEED", "1"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        begins = [first + i * 1_000_000 for i in range(int(JOBS))]
        runs = list(pool.map(lambda b: run([program, "--seeds", str(b), "1000000", "--seconds", str(seconds)],
                                           timeout_s=seconds + 600), begins))
    for begin, (status, output) in zip(begins, runs):
        seeds = re.search(r"^(\d+) seeds passed", output, re.MULTILINE)
        passed = status == 0 and seeds is not None and int(seeds[1]) > 0
        if passed:
            print(tail(output, 1), flush=True)
        yield f"simulation, {seeds[1] if seeds else 'some'} seeds from {begin}", "passed" if passed else "failed", tail(output)


def suite_faults():
    """A slice of the fault suite: kills, bad links, a damaged or full store; `make test-faults` runs it at length."""
    failure = build("build")
    if failure:
        yield failure
        return
    yield from ctest("build", "faults", timeout_s=36000)


def suite_kmod():
    """The module builds clean for every kernel of the table, with W=1 and sparse."""
    for kernel in KERNELS:
        status, output = run(["tests/vm/build-kmod", kernel])
        yield f"module for {kernel}, W=1 and sparse", "passed" if status == 0 else "failed", tail(output)


def suite_harness():
    """The guest harness itself: what must fail is seen to fail."""
    status, output = run(["tests/vm/selftest/run"])
    yield "guest harness selftest", "passed" if status == 0 else "failed", tail(output)


def guests(kernels, patterns):
    """Runs guest cases; one row each, and one for the run if it broke."""
    # A kernel that the caller chose may be one with sanitizers.
    limit_s = 5000 if set(kernels) <= {"6.1", "6.12"} else 36000
    status, output = run(["tests/vm/run", "--kernel", ",".join(kernels), *patterns], timeout_s=limit_s)
    rows = re.findall(r"^(passed|failed|skipped): (\S+)(.*)$", output, re.MULTILINE)
    for outcome, name, detail in rows:
        yield f"guest {name}", outcome, detail.strip()
    if not rows or (status != 0 and not any(r[0] == "failed" for r in rows)):
        yield "guest suite", "failed", tail(output, 60)
    elif status != 0:
        print(tail(output, 120), flush=True)


def suite_vm():
    """Guests with Debian's stock kernels and the real module."""
    patterns = os.environ.get("CASES", "").split()
    if patterns:
        yield from guests(KERNELS, patterns)
        return
    yield from guests(KERNELS[:1], [])
    if KERNELS[1:]:
        # What tests the harness's disks and network alone needs no second kernel.
        yield from guests(KERNELS[1:], ["kmod", "capture", "chain"])


def suite_fuzz():
    """A short slice of every fuzz target, from its corpus; always the same one (FUZZ_SEED chooses another)."""
    status, output = run(["tests/fuzz/run.sh", os.environ.get("FUZZ_SECONDS", "10")],
                         env={"FUZZ_SEED": "1", **os.environ})
    yield "fuzz slice", "passed" if status == 0 else "failed", tail(output)


def rows_of(command, timeout_s):
    """Rows that a program of tests prints itself: "passed: name", "failed: name: reason"."""
    status, output = run(command, timeout_s=timeout_s)
    rows = re.findall(r"^(passed|failed|skipped): (.*)$", output, re.MULTILINE)
    for outcome, text in rows:
        yield text, outcome, ""
    if status != 0 or not rows:
        print(tail(output, 80), flush=True)
        if not any(outcome == "failed" for outcome, _ in rows):
            yield f"{command[0]}: status {status}, {len(rows)} results", "failed", ""


def suite_packages():
    """Debian packages: built, lintian-clean, complete; units sandboxed; configuration files and completions sound."""
    failure = build("build")
    if failure:
        yield failure
        return
    yield from rows_of(["tests/packages/built"], timeout_s=900)


def suite_installed():
    """The packages in a Debian root: installed, booted, upgraded, purged. Long; `make test-packages` runs it."""
    yield from rows_of(["tests/packages/installed"], timeout_s=7200)


SUITES = {name.removeprefix("suite_"): function for name, function in list(globals().items())
          if name.startswith("suite_")}


# Run by their names only.
LONG = {"installed"}


# Guests leave a processor idle half of the time: beside them goes everything else. Each suite keeps its own files; what both
# lanes need is built before they part.
GUEST_LANE = ("kmod", "vm", "harness")


class Report:
    """Counts and prints rows; lanes share one."""

    def __init__(self):
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.problems = []
        self.lock = threading.Lock()

    def row(self, suite, row, outcome, detail):
        with self.lock:
            self.counts[outcome] += 1
            print(f"{outcome}: {row}" + (f"\n{detail}" if detail and outcome != "passed" else ""), flush=True)
            if outcome != "passed":
                self.problems.append(f"{outcome}: {suite}: {row}{said(detail)}")

    def run(self, names):
        """Runs suites one after the other."""
        for name in names:
            begin = time.monotonic()
            print(f"== {name}: {SUITES[name].__doc__}", flush=True)
            for row in SUITES[name]():
                self.row(name, *row)
            print(f"== {name} took {time.monotonic() - begin:.0f} s", flush=True)

    def close(self):
        """The last lines, and the exit status."""
        for problem in self.problems:
            print(problem)
        print(f"{self.counts['passed']} passed, {self.counts['failed']} failed, {self.counts['skipped']} skipped")
        return 1 if self.counts["failed"] or not self.counts["passed"] else 0


def main(names):
    unknown = [n for n in names if n not in SUITES]
    if unknown:
        print(f"unknown suite: {' '.join(unknown)}; there are {' '.join(SUITES)}", file=sys.stderr)
        return 2
    report = Report()
    if names:
        report.run(names)
        return report.close()
    # A failure of it is the first row of the suite unit.
    build("build")
    others = [n for n in SUITES if n not in LONG and n not in GUEST_LANE]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for lane in [pool.submit(report.run, GUEST_LANE), pool.submit(report.run, others)]:
            lane.result()
    return report.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
