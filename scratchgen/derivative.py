"""Numeric derivatives of a function of a Parameters, compared with the gradient written by hand. gradcheck.py uses this.

The complex step, Im f(θ + ih)/h with h = 1e-20, subtracts nothing and so is exact to machine precision (Squire & Trapp
1998); it asks that the forward pass survive complex numbers. A central difference, (f(θ + h) - f(θ - h))/2h, loses half
of the digits to subtraction, and asks nothing.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from .backend import to_host

COMPLEX, CENTRAL = "complex-step", "central"
TOLERANCE = {COMPLEX: 1e-10, CENTRAL: 1e-6}
H = {COMPLEX: 1e-20, CENTRAL: 6e-6}  # central: about the cube root of the machine precision
MOST_ENTRIES = 3000  # with more weights, random directions are tried instead of every entry


@dataclass
class GradReport:
    """What a check found. True in a condition if it passed; printed, it says where the worst error sits.

    error: max |analytic - numeric| over a tensor, divided by that tensor's max |gradient|; the worst tensor counts.
    problem: why the check could not be made, or what was wrong beside the numbers. wrong, right: names of the tensors whose
    error is above the tolerance, and below.
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

    @classmethod
    def failure(cls, name, seed, problem):
        return cls(name, "none", np.inf, 0.0, False, seed, problem)

    def __bool__(self):
        return self.passed

    def hint(self):
        """What the ratio of a wrong gradient to the right one suggests."""
        if self.analytic == 0:
            return "the analytic gradient is 0 here: a path was forgotten"
        if self.numeric == 0:
            return "the numeric gradient is 0 here: the value does not use this, or loses its imaginary part"
        ratio = self.analytic / self.numeric
        known = {-1: "the sign is wrong", 2: "twice too large: a ½ forgotten?", 0.5: "half of it is missing"}
        for k, words in known.items():
            if abs(ratio - k) < 1e-6:
                return words
        if ratio > 1.5 and abs(ratio - round(ratio)) < 1e-6:
            return f"{round(ratio)} times too large: summed over the batch where the value takes the mean?"
        if 0 < ratio < 0.6 and abs(1 / ratio - round(1 / ratio)) < 1e-6:
            return f"{round(1 / ratio)} times too small: a mean over the batch too many?"
        return f"analytic / numeric = {ratio:.6g}"

    def __str__(self):
        verdict = f"{'ok  ' if self.passed else 'FAIL'} {self.name}"
        if not self.passed and self.error <= self.tolerance:  # the numbers are right, something else is not
            return f"{verdict}: {self.problem}"
        if self.method == "none":
            return f"{verdict}: {self.problem}"
        lines = [f"{verdict}: error {self.error:.1e} by {self.method}"]
        if not self.passed:
            place = f"{self.parameter}{list(self.index)}" if self.index else f"along a direction in {self.parameter}"
            lines.append(f"{place}: analytic {self.analytic:.9g}, numeric {self.numeric:.9g}; {self.hint()}")
            lines.append(f"wrong: {', '.join(self.wrong)}; right: {', '.join(self.right) or 'none'}")
        lines += [self.problem] if self.problem else []
        lines += [] if self.passed else [f"tolerance {self.tolerance:.0e}, seed {self.seed}"]
        return "\n     ".join(lines)


class Check:
    """One comparison: objective() returns a number and leaves its analytic gradient in params.grad."""

    def __init__(self, objective, params, everything, name, seed):
        self.objective, self.params, self.everything, self.name, self.seed = objective, params, everything, name, seed
        self.theta = params.theta.copy()
        self.buffers = [p.buffers.copy() for p in everything]

    def value(self, offset=None):
        """objective() at theta + offset, every buffer as it was at the start."""
        for p, buffers in zip(self.everything, self.buffers):
            p.buffers[...] = buffers
        self.params.theta[...] = self.theta if offset is None else self.theta + offset
        self.params.changed()
        self.params.zero_grad()
        value = self.objective()
        if isinstance(value, dict):
            raise ValueError(
                f"{self.name}: the objective must return one number, got a dict; return one of its entries"
            )
        if getattr(value, "shape", ()) != ():
            raise ValueError(f"{self.name}: the objective must return one number, got an array of shape {value.shape}")
        return complex(value) if self.params.theta.dtype.kind == "c" else float(value)

    def precondition(self):
        """Sets the analytic gradient. Returns what makes a comparison worthless, or ""."""
        first = self.value()
        self.analytic = to_host(self.params.grad).copy()
        if not np.isfinite(first):
            return f"the value is {first}"
        if not np.all(np.isfinite(self.analytic)):
            return "the analytic gradient is not finite"
        again = self.value()
        if first != again or not np.array_equal(self.analytic, to_host(self.params.grad)):
            return "two calls differ: make the Rng inside the objective, so that both draw the same noise"
        if not np.array_equal(to_host(self.theta), to_host(self.params.theta)):
            return "the objective changed the weights: it must not step an optimizer"
        if not np.any(self.analytic):
            return "the analytic gradient is zero everywhere: there is nothing to compare"
        return ""

    def derivative(self, direction, method):
        """The numeric derivative along a direction, a NumPy vector as long as theta."""
        step = self.params.rng.xp.asarray(direction) * H[method]
        if method == COMPLEX:
            return self.value(1j * step).imag / H[method]
        coarse, fine = ((self.value(s * step) - self.value(-s * step)) / (2 * s * H[method]) for s in (1, 0.5))
        scale = max(np.linalg.norm(self.analytic * direction), np.abs(self.analytic).max())
        if abs(coarse - fine) < 1e-6 * scale:
            return coarse
        return (self.value(0.01 * step) - self.value(-0.01 * step)) / (0.02 * H[method])  # a kink lay within the step

    def compare(self, method, mode):
        """The GradReport of one method."""
        if method == CENTRAL:
            return self._compare(method, mode)
        for p in self.everything:
            p.cast("complex128")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                return self._compare(method, mode)
        finally:
            for p in self.everything:
                p.cast("float64")

    def _compare(self, method, mode):
        if mode == "auto":
            mode = "entries" if self.analytic.size <= MOST_ENTRIES else "directions"
        report = GradReport(self.name, method, -1.0, TOLERANCE[method], False, self.seed)
        for error, *where in self._entries(method) if mode == "entries" else self._directions(method):
            error = np.inf if np.isnan(error) else float(error)
            if error <= report.tolerance:
                report.right += (where[0],)
            else:
                report.wrong += (where[0],)
            if error > report.error:
                report.error, (report.parameter, report.index, report.analytic, report.numeric) = error, where
        report.passed = report.error <= report.tolerance
        return report

    def _entries(self, method):
        """For each tensor (error, name, index, analytic, numeric) of its worst entry, every entry tried."""
        unit, numeric = np.zeros_like(self.analytic), np.zeros_like(self.analytic)
        for i in range(unit.size):
            unit[i] = 1
            numeric[i] = self.derivative(unit, method)
            unit[i] = 0
        floor = 1e-3 * np.abs(self.analytic).max()  # a bias before BatchNorm has gradient 0, up to rounding
        for name, where in self.params.slices().items():
            a, b = self.analytic[where], numeric[where]
            if not a.size:
                continue
            errors = np.abs(a - b) / max(np.abs(a).max(), np.abs(b).max(), floor)
            i = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
            index = tuple(int(k) for k in np.unravel_index(i, self.params.named()[name].shape))
            yield errors[i], name, index, float(a[i]), float(b[i])

    def _directions(self, method):
        """The same along one random ±1 direction for each tensor and one over all, whatever the number of weights.

        An entry that is wrong by δ shows as δ / ‖g‖, far above rounding even among 100,000 entries.
        """
        rng = np.random.default_rng(self.seed)
        floor = 1e-3 * np.linalg.norm(self.analytic)
        for name, where in [*self.params.slices().items(), ("all", slice(None))]:
            direction = np.zeros_like(self.analytic)
            direction[where] = rng.choice([-1.0, 1.0], direction[where].size)
            a, b = float(self.analytic @ direction), self.derivative(direction, method)
            yield abs(a - b) / max(np.linalg.norm(self.analytic[where]), floor), name, (), a, b

    def cross_check(self):
        """One central difference over all weights. Returns what it says against the analytic gradient, or "".

        Up to eight directions are tried, as one with a kink (of ReLU, ...) within the step says nothing.
        """
        rng = np.random.default_rng(self.seed)
        rounding = 4 * np.finfo(float).eps * abs(self.value()) / H[CENTRAL]
        tolerance = 1e-5 * np.linalg.norm(self.analytic) + rounding
        for _ in range(8):
            direction = rng.choice([-1.0, 1.0], self.analytic.size)
            a, b = float(self.analytic @ direction), self.derivative(direction, CENTRAL)
            if abs(a - b) <= tolerance:
                return ""
        return f"along a random direction a central difference is {b:.9g}, the analytic gradient {a:.9g}"
