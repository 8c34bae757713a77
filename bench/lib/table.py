# SPDX-License-Identifier: Apache-2.0
"""Measured figures beside their goals: the table on standard output and build/bench.json."""

import dataclasses
import json
import sys
from pathlib import Path


@dataclasses.dataclass
class Figure:
    """One figure. most: the goal is an upper limit (else a lower one). goal None: told, not judged. note: what the reader
    must know; for a miss, its cause."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    most: bool = True
    note: str = ""

    @property
    def met(self) -> bool:
        if self.goal is None:
            return True
        return self.value <= self.goal if self.most else self.value >= self.goal


class Table:
    """Collects figures; every part adds its own."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.skipped: list[str] = []

    def add(self, name: str, value: float, unit: str, goal: float | None = None, most: bool = True, note: str = "") -> None:
        figure = Figure(name, value, unit, goal, most, note)
        self.figures.append(figure)
        print(self.line(figure), flush=True)

    def skip(self, what: str, why: str) -> None:
        """A figure that could not be measured here. It is listed, not hidden."""
        why = " ".join(why.split())
        self.skipped.append(f"{what}: {why}")
        print(f"not measured  {what}: {why}", flush=True)

    @staticmethod
    def line(figure: Figure) -> str:
        goal = "" if figure.goal is None else f"{'<=' if figure.most else '>='} {figure.goal:g}"
        verdict = "" if figure.goal is None else "met" if figure.met else "MISSED"
        return f"{figure.name:38} {figure.value:>12.5g} {figure.unit:14} {goal:>12} {verdict:7} {figure.note}".rstrip()

    def show(self) -> None:
        print(f"\n{'figure':38} {'value':>12} {'unit':14} {'goal':>12} {'verdict':7} note")
        for figure in self.figures:
            print(self.line(figure))
        judged = [figure for figure in self.figures if figure.goal is not None]
        met = sum(figure.met for figure in judged)
        for line in self.skipped:
            print(f"not measured  {line}")
        print(f"{met} goals met, {len(judged) - met} missed, {len(self.skipped)} parts not measured")

    def write(self, path: Path, keep_others: bool) -> None:
        """{"name": {"value", "unit", "goal", "met"}}: the judged figures. keep_others: of parts that did not run now."""
        values: dict[str, dict] = {}
        if keep_others and path.exists():
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                print(f"bench: {path} was no JSON and is replaced", file=sys.stderr)
        for figure in self.figures:
            if figure.goal is not None:
                values[figure.name] = {"value": round(figure.value, 4), "unit": figure.unit, "goal": figure.goal,
                                       "met": figure.met}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
