# SPDX-License-Identifier: Apache-2.0
"""Runs cases and judges them."""

import contextlib
import dataclasses
import fnmatch
import json
import time
import traceback
from pathlib import Path

from . import accel
from .image import Missing, build_files
from .kernel import Kernel
from .paths import UEFI_VARIABLES, VmError, machine_lock
from .spec import Case, Guest
from .vm import Outcome, Vm, kvm_works

PASS, FAIL, SKIP = "passed", "failed", "skipped"


@dataclasses.dataclass
class Context:
    """What services() and check() get: the kernel, where artefacts go, and after the run the guests' outcomes."""

    kernel: Kernel
    directory: Path
    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)

    @property
    def reports(self) -> dict[str, str]:
        """Reports of the main guest."""
        return self.outcomes["main"].reports


@dataclasses.dataclass
class Result:
    """Verdict on one case on one kernel."""

    case: str
    kernel: str
    verdict: str
    reason: str
    seconds: float
    boot_seconds: float | None = None
    reports: dict[str, str] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)
    emulator_fault: str = ""

    def line(self) -> str:
        """One line for people and for tests/suites.py: "passed: 6.1/boot/001-clean-boot 2.7 s"."""
        text = f"{self.verdict}: {self.kernel}/{self.case} {self.seconds:.1f} s"
        if self.reason:
            text += f": {self.reason}"
        elif self.boot_seconds is not None:
            text += f" (script after {self.boot_seconds:.1f} s)"
        return text


def wire(case: Case, directory: Path) -> dict[str, tuple[Path, Path] | None]:
    """Socket paths of the wire between two guests that ask for a lan."""
    members = [name for name, guest in case.guests().items() if guest.lan]
    ends: dict[str, tuple[Path, Path] | None] = dict.fromkeys(case.guests())
    if members:
        if len(members) != 2:
            raise VmError(f"a lan joins exactly two guests, this case has {len(members)}")
        paths = [Path(f"/tmp/bf-lan-{abs(hash(str(directory))):x}-{index}") for index in range(2)]
        for path in paths:
            path.unlink(missing_ok=True)
        ends[members[0]] = (paths[0], paths[1])
        ends[members[1]] = (paths[1], paths[0])
    return ends


class Session:
    """The guests of one running case. Used by one thread."""

    def __init__(self, case: Case, context: Context, env: dict[str, str], acceleration: str):
        self.case, self.context, self.env, self.acceleration = case, context, env, acceleration
        self.vms: dict[str, Vm] = {}
        self.wires = wire(case, context.directory)

    def spawn(self, name: str, guest: Guest) -> Vm:
        """Start a guest; a host part calls this (as vm.spawn) to boot a machine again, with the same disk files."""
        if name in self.vms:
            raise VmError(f"case {self.case.name} has a guest {name} already")
        env = {**self.env, "BF_GUEST": name}
        if guest.lan:
            env["BF_LAN_ADDRESS"] = guest.lan
        vm = Vm(guest, self.context.kernel, self.context.directory / name, env, self.acceleration,
                self.wires.get(name), name, self.case.allow)
        vm.spawn, vm.context = self.spawn, self.context
        self.vms[name] = vm
        vm.start()
        return vm

    def run(self) -> None:
        """Start all guests, peers first, run the host part, wait for all ends; outcomes go into the context."""
        for name, guest in reversed(self.case.guests().items()):
            self.spawn(name, guest)
        main = self.vms["main"]
        main.peers = {name: vm for name, vm in self.vms.items() if name != "main"}
        try:
            if self.case.host is not None:
                self.case.host(main)
            self._collect(main)
        except Exception:
            # The guests' own words (a crash, a failed check) are the better half of the reason.
            for name, vm in self.vms.items():
                if vm.process is None:  # it never started, that is the reason
                    continue
                vm.abandon(grace=2.0)
                self.context.outcomes[name] = vm.wait()
            raise

    def _collect(self, main: Vm) -> None:
        """Wait for each guest; once the main one failed the others have nothing to wait for."""
        self.context.outcomes["main"] = main.wait()
        for name, vm in self.vms.items():
            if name != "main":
                if not main.ended_well():
                    vm.abandon()
                self.context.outcomes[name] = vm.wait()

    def close(self, keep: bool) -> None:
        """End what still runs and remove sockets, and disks unless `keep`."""
        for vm in self.vms.values():
            vm.close(keep)
        for ends in self.wires.values():
            for path in ends or ():
                path.unlink(missing_ok=True)


def judge(context: Context) -> tuple[str, str, list[str]]:
    """Verdict, reason and console findings from the guests' outcomes."""
    findings = []
    reasons = []
    skipped = ""
    for name, outcome in context.outcomes.items():
        prefix = "" if name == "main" else f"guest {name}: "
        findings += [f"{prefix}{finding}" for finding in outcome.findings]
        if outcome.skipped:
            skipped = skipped or prefix + (outcome.reason or "the guest says skip")
        elif not outcome.abandoned and (outcome.status != 0 or outcome.reason):
            reasons.append(prefix + outcome.reason)
    if findings:
        reasons.append(f"{len(findings)} bad console lines, first: {findings[0]}")
    if reasons:
        return FAIL, "; ".join(reasons), findings
    return (SKIP, skipped, findings) if skipped else (PASS, "", findings)


def emulator_fault(context: Context, findings: list[str]) -> str:
    """The fault of the emulator that a failed case died of, or nothing: no code of ours has a part in these.

    Stale code: accel.runs_stale_code(). A kernel that stops in its boot, before our init and with a console that complains
    of nothing, was seen once in some ten thousand boots on a loaded host (6.1, two CPUs, one second into the boot).
    """
    if any(accel.STALE_CODE in finding for finding in findings) and accel.runs_stale_code():
        return accel.STALE_CODE
    if not findings and any(outcome.hung_in_boot for outcome in context.outcomes.values()):
        return accel.HUNG_IN_BOOT
    return ""


def run_case(case: Case, kernel: Kernel, results: Path, acceleration: str = "tcg", keep: bool = False) -> Result:
    """Run one case on one kernel. Never raises for what the case does; artefacts are under results/kernel/case."""
    directory = (results / kernel.name / case.name).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    host_log = directory / "host.log"
    host_log.unlink(missing_ok=True)
    (directory / UEFI_VARIABLES).unlink(missing_ok=True)
    context = Context(kernel, directory)
    started = time.monotonic()
    findings: list[str] = []
    try:
        services = case.services(context) if case.services else contextlib.nullcontext({})
        with services as env:
            session = Session(case, context, env or {}, acceleration)
            try:
                session.run()
                verdict, reason, findings = judge(context)
                if verdict == PASS and case.check is not None:
                    case.check(context)
            finally:
                session.close(keep)
    except Missing as error:
        verdict, reason = SKIP, str(error)
    except Exception as error:  # whatever a case's host part raises is that case's failure
        host_log.write_text(traceback.format_exc(), encoding="utf-8")
        kind = "" if isinstance(error, VmError | AssertionError) else f"{type(error).__name__}: "
        _, words, findings = judge(context)
        verdict, reason = FAIL, "; ".join(filter(None, [f"{kind}{error}", words]))
    main = context.outcomes.get("main")
    result = Result(case.name, kernel.name, verdict, reason, time.monotonic() - started,
                    main.boot_seconds if main else None, main.reports if main else {}, findings)
    if verdict == FAIL and acceleration != "kvm":
        result.emulator_fault = emulator_fault(context, findings)
    (directory / "result.json").write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def run_emulated(case: Case, kernel: Kernel, results: Path, acceleration: str, keep: bool) -> Result:
    """run_case(), once or twice more if the guest died of the emulator's own fault (emulator_fault)."""
    for again in range(3):
        result = run_case(case, kernel, results, acceleration, keep)
        if not result.emulator_fault:
            break
        if again < 2:
            print(f"again: {kernel.name}/{case.name}: {result.emulator_fault}, a fault of this QEMU", flush=True)
    return result


def skip_by_kernel(case: Case, kernel: Kernel) -> str:
    """Reason why the case is not for this kernel, or nothing."""
    names = (kernel.name, kernel.series)
    if case.kernels and not any(fnmatch.fnmatchcase(name, pattern) for pattern in case.kernels for name in names):
        return f"only for kernel {' '.join(case.kernels)}"
    if kernel.sanitizers() and any(guest.icount for guest in case.guests().values()):
        return f"counts instructions: means nothing with {' '.join(kernel.sanitizers())}"
    return ""


def run_all(cases: list[Case], kernels: list[Kernel], results: Path, show, keep: bool = False,
            repeat: int = 1) -> list[Result]:
    """Run every case on every kernel, one after the other; show(result) is called after each."""
    collected = []
    for kernel in kernels:
        for case in cases:
            for _ in range(repeat):
                reason = skip_by_kernel(case, kernel)
                if reason:
                    result = Result(case.name, kernel.name, SKIP, reason, 0.0)
                else:
                    for guest in case.guests().values():
                        build_files(guest, kernel)
                    with machine_lock():
                        kvm = kvm_works(kernel, results / "kvm-trial")
                        result = run_emulated(case, kernel, results, "kvm" if kvm else "tcg", keep)
                collected.append(result)
                show(result)
                if result.verdict == SKIP:
                    break
    return collected
