# SPDX-License-Identifier: Apache-2.0
"""The commands of README.md as a reader finds them: which machine they are for, in their order, to the letter."""
import dataclasses
import re

from debian import ROOT
from rows import need


@dataclasses.dataclass(frozen=True)
class Command:
    """A line of a code block, without its remark."""

    machine: str  # "server" or "source": what the text before the block says
    line: str


def commands(section, text=None):
    """The commands of a section's sh blocks. Blocks before which no machine is named are not for a machine that is protected."""
    text = (ROOT / "README.md").read_text(encoding="utf-8") if text is None else text
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    need(found, f"README.md has no section {section!r}")
    rows = []
    prose = ""
    for number, part in enumerate(re.split(r"^```(?:sh)?\n", found[1], flags=re.MULTILINE)):
        if number % 2 == 0:
            prose = part
            continue
        names = re.findall(r"\bon (?:the|each) (server|source)\b", prose, re.IGNORECASE)
        need(names, f"README.md, {section}: the text before a block does not say for which machine it is:\n{part}")
        rows += [Command(names[-1], line.partition(" #")[0].rstrip()) for line in part.splitlines() if line.strip()]
    need(rows, f"README.md, {section}: no commands")
    return [row for row in rows if row.line]
