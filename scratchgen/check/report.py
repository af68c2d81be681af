"""The result of a gradient check: passed or not, the worst error and where it is, and what the wrong entries suggest."""

from dataclasses import dataclass

import numpy as np


@dataclass
class GradReport:
    """The result of a check. It is true in a condition if the check passed. Printed, it says where the worst error is.

    error: max |analytic - numeric| over a tensor, divided by that tensor's max |gradient|; the worst tensor counts.
    problem: why the check could not be made, or what is wrong apart from the numbers. wrong, right: names of the tensors
    whose error is above or below the tolerance. n_wrong of the n_entries of the worst tensor are wrong (0 for a direction).
    clue: what the wrong entries have in common. notes: remarks that do not decide whether the check passes.
    """

    name: str
    method: str
    error: float
    tolerance: float
    passed: bool
    seed: int
    problem: str = ""
    parameter: str = ""
    index: tuple = ()
    analytic: float = 0.0
    numeric: float = 0.0
    wrong: tuple = ()
    right: tuple = ()
    n_entries: int = 0
    n_wrong: int = 0
    clue: str = ""
    notes: tuple = ()

    @classmethod
    def failure(cls, name, seed, problem):
        return cls(name, "none", np.inf, 0.0, False, seed, problem)

    def __bool__(self):
        return self.passed

    def hint(self):
        """What the wrong entries of the worst tensor have in common, and what that suggests."""
        return self.clue

    def __str__(self):
        verdict = f"{'ok  ' if self.passed else 'FAIL'} {self.name}"
        wrong_numbers = not self.passed and self.method != "none" and not self.error <= self.tolerance
        if not self.passed and not wrong_numbers:
            return "\n     ".join([f"{verdict}: {self.problem}", *self.notes])
        lines = [f"{verdict}: error {self.error:.1e} by {self.method}"]
        if wrong_numbers:
            where = place(self.parameter, self.index) if self.n_entries else f"along a direction in {self.parameter}"
            lines.append(f"{where}: analytic {self.analytic:.9g}, numeric {self.numeric:.9g}; {self.hint()}")
            count = f" ({self.n_wrong} of {self.n_entries} entries are wrong)" if self.n_entries else ""
            others = [name for name in self.wrong if name != self.parameter]
            lines.append(
                f"wrong: {', '.join([self.parameter + count, *others])}; right: {', '.join(self.right) or 'none'}"
            )
        lines += [self.problem] if self.problem else []
        lines += self.notes
        lines += [f"tolerance {self.tolerance:.0e}, seed {self.seed}"] if wrong_numbers else []
        return "\n     ".join(lines)


def place(name, index):
    """layer.W[0, 1], or the name alone if the tensor is one number."""
    return f"{name}{list(index)}" if index else name


def explain(analytic, numeric, slack):
    """What the wrong entries suggest. A factor is named only if every one of them is off by it, within slack."""
    if not np.any(analytic):
        return "the analytic gradient is 0 here: a path was forgotten"
    if not np.any(numeric):
        return "the numeric gradient is 0 here: the value does not depend on it, or loses its imaginary part"
    if not np.all(np.isfinite(numeric)):
        return "the numeric derivative is not a number: the value does not exist near these inputs and weights"
    i = int(np.argmax(np.abs(analytic - numeric)))
    if numeric[i] == 0 or analytic[i] == 0:
        return f"the {'numeric' if numeric[i] == 0 else 'analytic'} gradient is 0 at this entry, but not at every wrong one"

    ratio, known = analytic[i] / numeric[i], ""
    if not 1e-6 < abs(ratio) < 1e6:
        return f"analytic / numeric = {ratio:.9g}"
    whole = round(ratio) if abs(ratio) >= 1 else 1 / round(1 / ratio)  # 7 times or a seventh
    if whole == -1:
        known = "the sign is wrong"
    elif whole == 2:
        known = "twice too large: a ½ forgotten?"
    elif whole == 0.5:
        known = "half of it is missing"
    elif whole > 1:
        known = f"{whole} times too large: is it a sum over the batch where the value takes the mean?"
    elif 0 < whole < 1:
        known = f"{round(1 / whole)} times too small: is the mean over the batch taken twice?"

    def all_off_by(factor):
        return np.all(np.abs(analytic - factor * numeric) <= 1e-6 * np.abs(factor * numeric) + slack)

    if known and all_off_by(whole):
        return known
    return f"analytic / numeric = {ratio:.9g}" if all_off_by(ratio) else f"analytic / numeric varies; here {ratio:.9g}"
