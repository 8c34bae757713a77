# SPDX-License-Identifier: Apache-2.0
"""Runs cases and judges them."""

import contextlib
import dataclasses
import fnmatch
import json
import time
import traceback
from pathlib import Path

from .console import scan
from .image import Missing
from .kernel import Kernel
from .paths import VmError, machine_lock
from .spec import Case
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


def run_guests(case: Case, context: Context, env: dict[str, str], acceleration: str, keep: bool) -> None:
    """Start every guest, run the host part, wait for all; outcomes go into the context."""
    vms: dict[str, Vm] = {}
    wires = wire(case, context.directory)
    try:
        for name, guest in reversed(case.guests().items()):
            lan = {"BF_LAN_ADDRESS": guest.lan} if guest.lan else {}
            vms[name] = Vm(guest, context.kernel, context.directory / name, {**env, **lan, "BF_GUEST": name},
                           acceleration, wires[name], name)
            vms[name].start()
        main = vms["main"]
        main.peers = {name: vm for name, vm in vms.items() if name != "main"}
        if case.host is not None:
            case.host(main)
        for name in case.guests():
            context.outcomes[name] = vms[name].wait()
            if name == "main" and not main.ended_well():
                for vm in main.peers.values():
                    vm.abandon("ended because guest main failed")
    finally:
        for vm in vms.values():
            vm.close(keep)
        for ends in wires.values():
            for path in ends or ():
                path.unlink(missing_ok=True)


def judge(case: Case, context: Context) -> tuple[str, str, list[str]]:
    """Verdict, reason and console findings from the guests' outcomes."""
    findings = []
    reasons = []
    skipped = ""
    for name, outcome in context.outcomes.items():
        prefix = "" if name == "main" else f"guest {name}: "
        lines = outcome.directory / "console.log"
        text = lines.read_text(encoding="utf-8", errors="replace").splitlines()
        dmesg = outcome.directory / "out/dmesg.txt"
        if dmesg.is_file():
            text += dmesg.read_text(encoding="utf-8", errors="replace").splitlines()
        findings += [f"{prefix}{finding}" for finding in scan(text, case.allow)]
        if outcome.skipped:
            skipped = skipped or prefix + (outcome.reason or "the guest says skip")
        elif outcome.status != 0 or outcome.reason:
            reasons.append(prefix + outcome.reason)
    if findings:
        reasons.append(f"{len(findings)} bad console lines, first: {findings[0]}")
    if reasons:
        return FAIL, "; ".join(reasons), findings
    return (SKIP, skipped, findings) if skipped else (PASS, "", findings)


def run_case(case: Case, kernel: Kernel, results: Path, acceleration: str = "tcg", keep: bool = False) -> Result:
    """Run one case on one kernel. Never raises for what the case does; artefacts are under results/kernel/case."""
    directory = (results / kernel.name / case.name).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    host_log = directory / "host.log"
    host_log.unlink(missing_ok=True)
    context = Context(kernel, directory)
    started = time.monotonic()
    findings: list[str] = []
    try:
        services = case.services(context) if case.services else contextlib.nullcontext({})
        with services as env:
            run_guests(case, context, env or {}, acceleration, keep)
        verdict, reason, findings = judge(case, context)
        if verdict == PASS and case.check is not None:
            case.check(context)
    except Missing as error:
        verdict, reason = SKIP, str(error)
    except Exception as error:  # whatever a case's host part raises is that case's failure
        host_log.write_text(traceback.format_exc(), encoding="utf-8")
        kind = "" if isinstance(error, VmError | AssertionError) else f"{type(error).__name__}: "
        verdict, reason = FAIL, f"{kind}{error} (see {host_log})"
    main = context.outcomes.get("main")
    result = Result(case.name, kernel.name, verdict, reason, time.monotonic() - started,
                    main.boot_seconds if main else None, main.reports if main else {}, findings)
    (directory / "result.json").write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def skip_by_kernel(case: Case, kernel: Kernel) -> str:
    """Reason why the case is not for this kernel, or nothing."""
    if case.kernels and not any(fnmatch.fnmatchcase(kernel.name, pattern) for pattern in case.kernels):
        return f"only for kernel {' '.join(case.kernels)}"
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
                    with machine_lock():
                        kvm = kvm_works(kernel, results / "kvm-trial")
                        result = run_case(case, kernel, results, "kvm" if kvm else "tcg", keep)
                collected.append(result)
                show(result)
                if result.verdict == SKIP:
                    break
    return collected
