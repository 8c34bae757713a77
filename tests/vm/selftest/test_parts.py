# SPDX-License-Identifier: Apache-2.0
"""The parts of the harness that need no guest."""

import dataclasses
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from vmtest.cases import discover, load, select, shell_case, sliced_off
from vmtest.image import split_file
from vmtest.initramfs import Cpio
from vmtest.kernel import Kernel, fetch, find_row, from_image, read_table, version_key
from vmtest.kmod import mirror, sources
from vmtest.modules import ModuleTree
from vmtest.paths import VM_DIR, VmError
from vmtest.runner import skip_by_kernel
from vmtest.spec import Case, Disk, Guest, parse_size, shell_environment
from vmtest.vm import PATIENCE, disk_device, scaled

DEP = """kernel/drivers/block/leaf-one.ko.xz: kernel/lib/middle.ko.xz kernel/lib/root.ko.xz
kernel/lib/middle.ko.xz: kernel/lib/root.ko.xz
kernel/lib/root.ko.xz:
kernel/crypto/sum_generic.ko.xz:
"""


class TemporaryCase(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.top = Path(holder.name)


class Sizes(unittest.TestCase):
    def test_units(self):
        self.assertEqual([parse_size(text) for text in ("7", "1K", "2M", "3G", "1T")],
                         [7, 1024, 2 << 20, 3 << 30, 1 << 40])

    def test_nonsense_is_refused(self):
        for text in ("", "M", "-1", "1.5G", "1KB", "1k"):
            with self.assertRaises(VmError, msg=text):
                parse_size(text)


class Disks(unittest.TestCase):
    def test_all_options(self):
        disk = Disk.parse("data,size=2G,block=4096,discard,readonly,cache=none,queues=4,snapshot,file=/x/y")
        self.assertEqual((disk.name, disk.size, disk.block, disk.discard, disk.readonly, disk.cache, disk.queues,
                          disk.snapshot, disk.file),
                         ("data", 2 << 30, 4096, True, True, "none", 4, True, "/x/y"))

    def test_mistakes_are_named(self):
        for text in ("", "0disk", "a b", "data,sise=1G", "data,size", "data,size=1G,size=2G", "data,name=x",
                     "averyveryverylongname"):
            with self.assertRaises(VmError, msg=text):
                Disk.parse(text)

    def test_two_disks_of_one_name(self):
        with self.assertRaises(VmError):
            Guest(disks=[Disk("a"), Disk("a")])


class Environment(unittest.TestCase):
    def test_a_shell_reads_values_back(self):
        values = {"A": "it's", "B": '"$HOME" `id` \\', "C": "two\nlines"}
        script = shell_environment(values) + 'printf "%s|%s|%s" "$A" "$B" "$C"'
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "|".join(values.values()))

    def test_bad_names(self):
        for name in ("1A", "A-B", "", "A B"):
            with self.assertRaises(VmError):
                shell_environment({name: "x"})


class Modules(TemporaryCase):
    def setUp(self):
        super().setUp()
        (self.top / "modules.dep").write_text(DEP, encoding="utf-8")
        (self.top / "modules.builtin").write_text("kernel/fs/inside.ko\n", encoding="utf-8")
        (self.top / "modules.alias").write_text("alias crypto-sum sum_generic\n", encoding="utf-8")
        (self.top / "modules.softdep").write_text("softdep leaf_one pre: crypto-sum post: nothing\n", encoding="utf-8")
        self.tree = ModuleTree(self.top)

    def test_dependencies_come_first(self):
        self.assertEqual(self.tree.closure(["leaf-one"]), ["sum_generic", "root", "middle", "leaf_one"])

    def test_builtin_counts_as_present_and_is_not_packed(self):
        self.assertEqual(self.tree.closure(["inside"]), [])

    def test_unknown_is_an_error(self):
        with self.assertRaises(VmError):
            self.tree.closure(["absent"])

    def test_index_names_decompressed_files(self):
        text = self.tree.index_files(["root", "middle"])["modules.dep"]
        self.assertEqual(text, "kernel/lib/root.ko: \nkernel/lib/middle.ko: kernel/lib/root.ko\n")


class Archive(TemporaryCase):
    def test_cpio_tool_reads_it(self):
        source = self.top / "source"
        source.write_bytes(b"x" * 4097)
        source.chmod(0o755)
        cpio = Cpio()
        cpio.data("a/b/text", b"hello")
        cpio.file("a/copy", source)
        cpio.link("l", "a/b/text")
        cpio.directory("a/b")
        cpio.write(self.top / "x.cpio")
        where = self.top / "unpacked"
        where.mkdir()
        with open(self.top / "x.cpio", "rb") as archive:
            subprocess.run(["cpio", "-i", "--quiet"], stdin=archive, cwd=where, check=True)
        self.assertEqual((where / "l").read_text(encoding="utf-8"), "hello")
        self.assertEqual((where / "a/copy").read_bytes(), b"x" * 4097)
        self.assertTrue(os.access(where / "a/copy", os.X_OK))


class Mirror(TemporaryCase):
    def test_sources_only_and_gone_files_leave(self):
        top, target = self.top / "kmod", self.top / "copy"
        (top / "core").mkdir(parents=True)
        for name in ("main.c", "core/ring.h", "Kbuild", "main.mod.c", "main.o", "compat_config.h", "old.c"):
            (top / name).write_text(name, encoding="utf-8")
        target.mkdir()
        mirror(top, target)
        self.assertEqual([str(path) for path in sources(target)], ["Kbuild", "core/ring.h", "main.c", "old.c"])
        (target / "compat_config.h").write_text("generated here", encoding="utf-8")
        (top / "old.c").unlink()
        (top / "main.c").write_text("changed", encoding="utf-8")
        os.utime(top / "main.c", ns=(1, 1))
        mirror(top, target)
        self.assertFalse((target / "old.c").exists())
        self.assertEqual((target / "main.c").read_text(encoding="utf-8"), "changed")
        self.assertEqual((target / "compat_config.h").read_text(encoding="utf-8"), "generated here")


class Cases(TemporaryCase):
    def case(self, text):
        return shell_case("# SPDX-License-Identifier: Apache-2.0\n# shellcheck shell=sh\n" + text, Path("x.sh"))

    def test_header(self):
        case = self.case("# title: words here\n# kernels: 6.1\n# modules: a b\n# modules: c\n# disk: d,size=1M\n"
                         "# memory: 256\n# network: yes\n# allow: WARNING: x\n# env: K=a=b\n\ntrue\n# timeout: 5\n")
        self.assertEqual((case.title, list(case.kernels), case.guest.modules, case.guest.memory, case.guest.network,
                          case.allow, case.guest.env, case.guest.timeout),
                         ("words here", ["6.1"], ["a", "b", "c"], 256, True, ["WARNING: x"], {"K": "a=b"}, 120))

    def test_mistakes_are_errors(self):
        for text in ("true\n", "# title: x\n# modles: a\n", "# title: x\n# title: y\n", "# title: x\n# memory: lots\n",
                     "# title: x\n# network: maybe\n", "# title: x\n# disk: d,wrong=1\n"):
            with self.assertRaises(VmError, msg=text):
                self.case(text)

    def test_names_and_selection(self):
        names = ["boot/001-a", "disk/001-b", "disk/002-c"]
        self.assertEqual(select(names, []), names)
        self.assertEqual(select(names, ["disk"]), names[1:])
        self.assertEqual(select(names, ["disk/002", "boot/001-a"]), [names[0], names[2]])
        self.assertEqual(select(names, ["*/001-*"]), names[:2])
        with self.assertRaises(VmError):
            select(names, ["nothing"])

    def test_slice_of_a_group(self):
        files = {name: self.top / f"{name}.sh" for name in ("long/001-a", "long/002-b", "short/001-c")}
        (self.top / "long").mkdir()
        (self.top / "long/slice").write_text("# why\n002-b\n", encoding="utf-8")
        self.assertEqual(sliced_off(files), {"long/001-a"})
        self.assertEqual(select(list(files), [], sliced_off(files)), ["long/002-b", "short/001-c"])
        self.assertEqual(select(list(files), ["long"], sliced_off(files)), ["long/001-a", "long/002-b"])
        (self.top / "long/slice").write_text("003-gone\n", encoding="utf-8")
        with self.assertRaises(VmError):
            sliced_off(files)

    def test_misnamed_file_is_an_error(self):
        (self.top / "g").mkdir()
        (self.top / "g/01-short.sh").write_text("# title: x\n", encoding="utf-8")
        with self.assertRaises(VmError):
            discover(self.top)

    def test_python_case_errors(self):
        path = self.top / "x.py"
        for text in ("pass\n", "CASE = 7\n", "1/0\n", "import no_such_module\n"):
            path.write_text(text, encoding="utf-8")
            with self.assertRaises(VmError, msg=text):
                load("g/001-x", path)

    def test_every_case_of_the_tree_loads(self):
        for top in (VM_DIR / "cases", VM_DIR / "selftest/cases"):
            for name, path in discover(top).items():
                self.assertTrue(load(name, path).title)

    def test_file_specs(self):
        self.assertEqual(split_file("build:daemon/x"), ("build:daemon/x", "opt/blkferry/x"))
        self.assertEqual(split_file("kmod:blkferry.ko:root/b.ko"), ("kmod:blkferry.ko", "root/b.ko"))


class Table(unittest.TestCase):
    def test_the_table_reads(self):
        self.assertLessEqual({"6.1", "6.12"}, set(read_table()))

    def test_an_image_package_needs_no_line(self):
        self.assertEqual(find_row("linux-image-6.1.0-40-amd64").image, ("linux-image-6.1.0-40-amd64",))
        for name in ("6.99", "linux-image", "linux-image-;x", "bash"):
            with self.assertRaises(VmError, msg=name):
                find_row(name)

    def test_versions_are_numbers(self):
        self.assertGreater(version_key("linux-image-6.12.117+deb12-cloud-amd64"),
                           version_key("linux-image-6.12.99+deb12-cloud-amd64"))


class Images(TemporaryCase):
    """Kernels of the user's own, and what their configuration means for a guest."""

    def image(self, words: bytes = b"6.9.1-mine (me) #1") -> Path:
        head = bytearray(0x400)
        head[0x202:0x206] = b"HdrS"
        head[0x20E:0x210] = (0x100).to_bytes(2, "little")
        path = self.top / "boot/bzImage"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(head[:0x300]) + words + b"\0")
        return path

    def test_modules_beside_the_image(self):
        image = self.image()
        with self.assertRaisesRegex(VmError, "modules_install"):
            fetch(str(image))
        modules = self.top / "lib/modules/6.9.1-mine"
        modules.mkdir(parents=True)
        (modules / "modules.dep").touch()
        kernel = fetch(str(image))
        self.assertEqual((kernel.name, kernel.series, kernel.vmlinuz, kernel.modules_dir),
                         ("image-6.9.1-mine", "6.9", image, modules))
        self.assertEqual(kernel.sanitizers(), [])

    def test_what_is_no_image(self):
        image = self.image(words=b"")
        with self.assertRaisesRegex(VmError, "no bootable"):
            from_image(image)
        image.write_bytes(b"#!/bin/sh\n")
        with self.assertRaisesRegex(VmError, "no bootable"):
            from_image(image)

    def test_sanitizers_make_deadlines_longer(self):
        kernel = Kernel("debug-x", "6.1.5-debug-x", self.top, (), ())
        (self.top / "boot").mkdir()
        kernel.config.write_text("CONFIG_HAVE_ARCH_KASAN=y\nCONFIG_KASAN=y\n# CONFIG_KCSAN is not set\n")
        self.assertEqual(kernel.sanitizers(), ["KASAN"])
        guest = Guest(timeout=100, memory=512)
        self.assertEqual(scaled(guest, 1), dataclasses.replace(guest, timeout=100 * PATIENCE))
        self.assertGreater(scaled(guest, 4).memory, 512)
        self.assertEqual(scaled(guest, 4).timeout, 400 * PATIENCE)
        self.assertIn("KASAN", skip_by_kernel(Case("t", Guest(icount=True)), kernel))
        self.assertEqual(skip_by_kernel(Case("t", guest, kernels=["6.1"]), kernel), "")
        self.assertIn("only for", skip_by_kernel(Case("t", guest, kernels=["6.12"]), kernel))

    def test_disks_can_be_unplugged_on_either_machine(self):
        for disk in (Disk("one"), Disk("one", bus="nvme")):
            self.assertNotIn("bus=", disk_device(disk, "pc", 0)[-1])
            port, device = disk_device(disk, "q35", 4)[1::2]
            self.assertEqual(port, "pcie-root-port,id=port-one,chassis=5,slot=5")
            self.assertTrue(device.endswith(",bus=port-one") or ",bus=port-one," in device)
        self.assertIn("bus=scsi0.0", disk_device(Disk("one", bus="scsi"), "q35", 0)[-1])


if __name__ == "__main__":
    unittest.main()
