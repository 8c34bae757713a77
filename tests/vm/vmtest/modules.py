# SPDX-License-Identifier: Apache-2.0
"""Kernel modules of an unpacked kernel: names, dependencies, and what of them goes into a guest."""

import fnmatch
import lzma
import re
from pathlib import Path

from .paths import VmError


def canonical(name: str) -> str:
    """Module names are compared with underscores."""
    return name.replace("-", "_")


def module_name(path: str) -> str:
    """Canonical module name of a file such as kernel/drivers/md/dm-delay.ko.xz."""
    return canonical(re.sub(r"\.ko(\.\w+)?$", "", path.rsplit("/", 1)[-1]))


class ModuleTree:
    """The module indices of one kernel, as depmod wrote them. Read-only."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.files: dict[str, str] = {}
        self.depends: dict[str, list[str]] = {}
        for line in self._lines("modules.dep"):
            path, _, rest = line.partition(":")
            self.files[module_name(path)] = path
            self.depends[module_name(path)] = [module_name(item) for item in rest.split()]
        self.builtin = {module_name(line) for line in self._lines("modules.builtin")}
        self.aliases = [line.split()[1:3] for line in self._lines("modules.alias") if line.startswith("alias ")]
        self.softdeps = {canonical(line.split()[1]): line.split()[2:]
                         for line in self._lines("modules.softdep") if line.startswith("softdep ")}

    def _lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    def has(self, name: str) -> bool:
        """True if the kernel has `name`, as a module or built in."""
        return canonical(name) in self.files or canonical(name) in self.builtin

    def _by_alias(self, alias: str) -> list[str]:
        return [canonical(module) for pattern, module in self.aliases if fnmatch.fnmatchcase(alias, pattern)]

    def _soft_pre(self, name: str) -> list[str]:
        """Modules wanted before `name` although it does not link to them (xfs: crc32c)."""
        wanted, pre = [], False
        for word in self.softdeps.get(name, []):
            if word in ("pre:", "post:"):
                pre = word == "pre:"
            elif pre:
                found = [canonical(word)] if self.has(word) else self._by_alias(word)
                wanted += [item for item in found if item in self.files]
        return wanted

    def closure(self, names: list[str]) -> list[str]:
        """`names` and all that they need, dependencies first; built-in ones are left out, unknown ones an error."""
        order: list[str] = []
        visiting: set[str] = set()

        def visit(name: str) -> None:
            if name in visiting or name not in self.files:
                return
            visiting.add(name)
            for other in self._soft_pre(name) + list(reversed(self.depends[name])):
                visit(other)
            order.append(name)

        for name in names:
            if not self.has(name):
                raise VmError(f"kernel {self.directory.name} has no module {name}")
            visit(canonical(name))
        return order

    def content(self, name: str) -> bytes:
        """The module's ELF image, decompressed: what busybox insmod can load."""
        path = self.directory / self.files[name]
        data = path.read_bytes()
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix != ".ko":
            raise VmError(f"{path}: compression {path.suffix} is not supported")
        return data

    def guest_path(self, name: str) -> str:
        """Where the module lies in the guest, relative to its module directory."""
        return re.sub(r"\.ko\.\w+$", ".ko", self.files[name])

    def index_files(self, names: list[str]) -> dict[str, str]:
        """modules.dep, modules.alias and modules.softdep reduced to `names`, for busybox modprobe."""
        chosen = set(names)
        dep = [f"{self.guest_path(name)}: " + " ".join(self.guest_path(item) for item in self.depends[name])
               for name in names]
        alias = [f"alias {pattern} {module}" for pattern, module in self.aliases if canonical(module) in chosen]
        soft = [f"softdep {name} " + " ".join(words) for name, words in self.softdeps.items() if name in chosen]
        return {"modules.dep": "\n".join(dep) + "\n", "modules.alias": "\n".join(alias) + "\n",
                "modules.softdep": "\n".join(soft) + "\n", "modules.symbols": "",
                "modules.builtin": "\n".join(self._lines("modules.builtin")) + "\n"}
