# SPDX-License-Identifier: Apache-2.0
"""Finds and reads test cases: cases/<group>/<NNN-slug>.sh or .py."""

import fnmatch
import importlib.util
import re
import sys
from pathlib import Path

from .paths import VmError
from .spec import Case, Disk, Guest

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*/\d{3}-[a-z0-9]+(?:-[a-z0-9]+)*")
NUMBERS = {"memory", "cpus", "timeout"}
SWITCHES = {"network", "icount"}
WORDS = {"modules", "binaries", "files", "kernels", "forwards"}
TEXTS = {"cmdline"}


def discover(top: Path) -> dict[str, Path]:
    """Case files by name, sorted; a file whose name breaks the pattern is an error, it would never run."""
    found: dict[str, Path] = {}
    for path in sorted([*top.glob("*/*.sh"), *top.glob("*/*.py")]):
        name = f"{path.parent.name}/{path.stem}"
        if not NAME.fullmatch(name):
            raise VmError(f"{path}: case names are <group>/<NNN-slug>, lower case letters, digits and dashes")
        if name in found:
            raise VmError(f"case {name} exists twice: {found[name]} and {path}")
        found[name] = path
    return found


def sliced_off(files: dict[str, Path]) -> set[str]:
    """Cases of a group with a file `slice` that does not list them; "#" starts a comment there."""
    listed: dict[Path, list[str]] = {}
    for group in {path.parent for path in files.values()}:
        if (group / "slice").is_file():
            text = (group / "slice").read_text(encoding="utf-8")
            listed[group] = [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]
            for slug in listed[group]:
                if f"{group.name}/{slug}" not in files:
                    raise VmError(f"{group / 'slice'}: there is no case {group.name}/{slug}")
    return {name for name, path in files.items() if path.parent in listed and path.stem not in listed[path.parent]}


def select(names: list[str], patterns: list[str], unasked: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """Names that match a pattern: a whole name, a group, a number (boot/001), a shell pattern. All but `unasked` if none is given."""
    if not patterns:
        return [name for name in names if name not in unasked]
    chosen = []
    for pattern in patterns:
        matches = [name for name in names
                   if fnmatch.fnmatchcase(name, pattern) or name.split("/")[0] == pattern.rstrip("/")
                   or name.startswith(pattern + "-")]
        if not matches:
            raise VmError(f"no case matches '{pattern}'")
        chosen += matches
    return [name for name in names if name in chosen]


def header(text: str, path: Path) -> tuple[dict[str, list[str]], int]:
    """The "# key: value" lines of a shell case's leading comment block, and the line number after the block."""
    values: dict[str, list[str]] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith("#"):
            return values, number
        found = re.fullmatch(r"# ([a-z]+): +(.*\S)\s*", line)
        if found:
            key, value = found.groups()
            if key not in {"title", "disk", "allow", "env"} | NUMBERS | SWITCHES | WORDS | TEXTS:
                if key == "shellcheck":
                    continue
                raise VmError(f"{path}:{number}: unknown key '{key}'")
            if key in values and key not in {"disk", "allow", "env"} | WORDS:
                raise VmError(f"{path}:{number}: '{key}' is given twice")
            values.setdefault(key, []).append(value)
    return values, len(lines) + 1


def shell_case(text: str, path: Path) -> Case:
    """A case from a shell file; its body is the guest script."""
    values, _ = header(text, path)
    if "title" not in values:
        raise VmError(f"{path}: no '# title: ...' line")
    options: dict = {}
    for key in values:
        value = values[key][0]
        if key in NUMBERS:
            if not value.isdigit():
                raise VmError(f"{path}: {key} is '{value}', not a number")
            options[key] = int(value)
        elif key in SWITCHES:
            if value not in ("yes", "no"):
                raise VmError(f"{path}: {key} is '{value}', it can be yes or no")
            options[key] = value == "yes"
        elif key in WORDS and key != "kernels":
            words = [word for line in values[key] for word in line.split()]
            options[key] = [int(word) for word in words] if key == "forwards" else words
        elif key in TEXTS:
            options[key] = value
    options["disks"] = [Disk.parse(line) for line in values.get("disk", [])]
    options["env"] = dict(line.partition("=")[::2] for line in values.get("env", []))
    kernels = [word for line in values.get("kernels", []) for word in line.split()]
    return Case(values["title"][0], Guest(script=text, **options), kernels=kernels, allow=values.get("allow", []))


def python_case(path: Path, name: str) -> Case:
    """The CASE of a Python file."""
    spec = importlib.util.spec_from_file_location("vmcase_" + re.sub(r"\W", "_", name), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except VmError:
        raise
    except Exception as error:
        raise VmError(f"{path}: {type(error).__name__}: {error}") from error
    case = getattr(module, "CASE", None)
    if not isinstance(case, Case):
        raise VmError(f"{path}: defines no CASE = Case(...)")
    return case


def load(name: str, path: Path) -> Case:
    """Read one case; every mistake in it is a VmError that names the file."""
    if path.suffix == ".sh":
        case = shell_case(path.read_text(encoding="utf-8"), path)
    else:
        case = python_case(path, name)
    for expression in case.allow:
        try:
            re.compile(expression)
        except re.error as error:
            raise VmError(f"{path}: allow '{expression}' is no regular expression: {error}") from error
    case.name = name
    return case
