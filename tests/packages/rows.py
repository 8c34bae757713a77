# SPDX-License-Identifier: Apache-2.0
"""Checks that print one line each, as tests/suites.py reads them; a failed one does not stop the others."""
import subprocess
import sys
import traceback

FAILED = []


class Failure(Exception):
    """A check that does not hold; the text is the reason."""


def need(condition, reason):
    if not condition:
        raise Failure(reason)


def run(command, timeout_s=600, check=True, **options):
    """Runs a command; returns its output with standard error merged. A status other than 0 is a Failure if `check`."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=timeout_s, check=False, **options)
    if check and done.returncode != 0:
        end = "\n".join(done.stdout.strip().splitlines()[-40:])
        raise Failure(f"{' '.join(map(str, command))}: status {done.returncode}\n{end}")
    return done.stdout


def row(name, function, *arguments):
    """Calls a check; what it returns (a figure, or None) stands behind its name. True if it passed."""
    try:
        said = function(*arguments)
    except (Failure, OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        if not isinstance(error, Failure):
            traceback.print_exc(file=sys.stdout)
        reason = str(error).strip() or type(error).__name__
        print(f"failed: {name}: {reason.splitlines()[0]}", flush=True)
        print(reason, flush=True)
        FAILED.append(name)
        return False
    print(f"passed: {name}" + (f": {said}" if said else ""), flush=True)
    return True
