"""Prints the marks of an exercise. Every file that `scratchgen exercise` writes ends with a call of `mark`.

A check is a GradReport of the gradient checker, or a Finding: a comparison of numbers, for what no gradient check can see.
"""

import sys
import traceback
from dataclasses import dataclass, replace

import numpy as np

from ...check.report import GradReport
from ...check.trial import TOO_WIDE


@dataclass
class Finding:
    """The result of a check that is no gradient check. It is true in a condition if the check passed."""

    name: str
    passed: bool
    said: str = ""

    def __bool__(self):
        return bool(self.passed)  # a NumPy bool is none

    def __str__(self):
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}" + (f": {self.said}" if self.said else "")


def close(name, found, wanted, tolerance=1e-9, hint=""):
    """A Finding: whether the numbers found differ from those wanted by at most the tolerance. If not, it gives the hint."""
    if not isinstance(found, (int, float, np.generic, np.ndarray)):
        return Finding(name, False, f"got {found!r}, expected numbers")
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape:
        return Finding(name, False, f"got an array of shape {found.shape}, expected {wanted.shape}")
    errors = np.asarray(np.abs(found - wanted))
    errors = np.where(np.isnan(errors), np.inf, errors)
    worst = np.unravel_index(errors.argmax(), errors.shape)
    if errors[worst] <= tolerance:
        return Finding(name, True)
    place = f"at {list(map(int, worst))} " if worst else ""
    return Finding(name, False, f"{place}got {found[worst]:.6g}, expected {wanted[worst]:.6g}" + (hint and f"; {hint}"))


NAMES = "layer.W stands for dW, and input.x0, input.x1, ... for the gradients of the first input, the second, ..."


def mark(name, checks, then=""):
    """The exit code: 0 if every check passes. Prints each check, and what to do next.

    name: that of the exercise. checks: a generator that yields reports. then: the name of the next exercise.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack Greek letters
    failed = []
    for report in results(name, checks):
        print(report, flush=True)
        failed += [] if report else [str(report)]
    if not failed:
        print(f"{name}: solved." + (f" Next: scratchgen exercise {then} -o {then}.py" if then else ""))
        return 0
    if any("wrong: " in said for said in failed):
        print(f"     {NAMES}")
    print(f"{name}: not solved yet. Change the file and run it again; ours: scratchgen exercise {name} --solution")
    return 1


def results(name, checks):
    """Yields the reports of a generator. An error in the exercise ends them, with a Finding that says what is missing."""
    try:
        for report in checks:
            yield forgiven(report)
    except Exception as error:
        yield Finding(name, False, explained(error, checks.gi_code.co_filename))


def forgiven(report):
    """The report. If all that is wrong are results more precise than they need be, it passes, and says this in a remark."""
    if isinstance(report, GradReport) and TOO_WIDE in report.problem and report.error <= report.tolerance:
        return replace(report, passed=True, problem="", notes=(*report.notes, report.problem))
    return report


def explained(error, file):
    """What an error in the exercise means, and in which line of its file it was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, NotImplementedError):
        return f"{where}still missing: {error}"
    if isinstance(error, NameError):
        return f"{where}{error.name} is missing: nothing has this name yet"
    return f"{where}{type(error).__name__}: {error}"
