# SPDX-License-Identifier: Apache-2.0
"""Finds what a healthy kernel never prints. Pure: text in, findings out."""

import dataclasses
import re
from collections.abc import Iterable

# Kernel lines carry a time stamp (printk.time=1), so that the output of test programs cannot match. It is searched
# anywhere in the line: a kernel message may start in the middle of a line that a program is printing.
STAMP = re.compile(r"\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?(.*)")

PATTERNS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern) for name, pattern in {
        "bug": r"\bBUG:|kernel BUG at|\bBUG \S+ \(",
        "warning": r"\bWARNING:",
        "oops": r"\bOops\b|unable to handle (?:kernel|page)|Unable to handle|invalid opcode: \d|divide error: \d",
        "general protection": r"general protection fault",
        "panic": r"Kernel panic",
        "double fault": r"double fault|stack guard page was hit|stack-protector",
        "lockdep": r"possible (?:circular|recursive|irq lock)|inconsistent lock state|suspicious RCU usage|"
                   r"held lock freed|bad unlock balance|lock held when returning to user|"
                   r"still has locks held|lock(?:ing|dep) .*(?:bug|off)|MAX_LOCK(?:DEP|_DEPTH)\w* too low",
        "atomic sleep": r"scheduling while atomic|sleeping function called from invalid context|Illegal context switch",
        "hung task": r"blocked for more than \d+ seconds",
        "stall": r"\brcu\b.*\bstall|RCU stall|detected (?:expedited )?stalls?|self-detected stall|"
                 r"soft lockup|hard LOCKUP|workqueue lockup|rcu.* starved for",
        "sanitizer": r"\b(?:KASAN|KCSAN|KMSAN|UBSAN|KFENCE|KTSAN):",
        "kmemleak": r"unreferenced object",  # written by guest/init for those of our modules
        "call trace": r"\bCall Trace:|\bRIP: 0010:",
        "corruption": r"refcount_t:|list_(?:add|del) corruption|Bad page (?:state|map)|slab .*corrupt|"
                      r"Objects remaining|Poison overwritten|Redzone|Object padding overwritten|"
                      r"kernel memory (?:exposure|overwrite)|detected buffer overflow|double-free|(?<!double-/)use-after-free",
        "memory": r"page allocation failure|invoked oom-killer|Out of memory:",
        "interrupt": r"nobody cared",
        "program crash": r"segfault at|traps: .* trap |general protection (?:fault )?ip:",
        "vfree": r"Trying to vfree|nonexistent vm area|bad address",
    }.items()
}


# Data races of the kernel's own are known and many: those count that a function of our modules is part of
# (planted.ko is tests/kmod/planted, which shows that these reports come).
FOREIGN_RACE = re.compile(r"\bKCSAN:(?!.*\[(?:blkferry|planted)\])")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One bad line: which pattern, where (1-based), the line without its time stamp."""

    pattern: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.pattern}: line {self.line}: {self.text}"


def scan(lines: Iterable[str], allow: Iterable[str] = ()) -> list[Finding]:
    """Every kernel line that matches a pattern and none of the regular expressions in `allow`."""
    allowed = [re.compile(expression) for expression in allow]
    findings = []
    for number, line in enumerate(lines, 1):
        stamp = STAMP.search(line)
        if stamp is None:
            continue
        text = stamp.group(1).rstrip()
        if FOREIGN_RACE.search(text):
            continue
        for name, pattern in PATTERNS.items():
            if pattern.search(text):
                if not any(expression.search(text) for expression in allowed):
                    findings.append(Finding(name, number, text))
                break
    return findings
