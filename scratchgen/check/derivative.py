"""Numeric derivatives of a function of a Parameters, compared with the gradient written by hand. gradcheck.py uses this.

The complex step, Im f(θ + ih)/h with h = 1e-20, contains no subtraction, so it is exact to machine precision (Squire &
Trapp 1998). But the forward pass must work on complex numbers. A central difference, (f(θ + h) - f(θ - h))/2h, works for
every forward pass, but its subtraction loses half of the digits. How many it loses depends on the step h, so several steps
are tried.
"""

import warnings
from dataclasses import replace

import numpy as np

from ..backend import to_host
from .report import GradReport, explain, place

COMPLEX, CENTRAL = "complex-step", "central"
TOLERANCE = {COMPLEX: 1e-10, CENTRAL: 1e-6}
H = {COMPLEX: 1e-20, CENTRAL: 6e-6}  # central: about the cube root of the machine precision
SINGLE_TOLERANCE, SINGLE_H = {COMPLEX: 1e-5, CENTRAL: 1e-3}, 5e-3  # where the value turns out to be rounded to float32
SINGLE_ERROR = 3e-7  # an error up to this size most likely comes from single precision
MOST_ENTRIES = 3000  # with more weights, random directions are tried instead of every entry
SINGLE = "it computes in single precision (float32 or less) on float64 inputs: make arrays with x.dtype, not np.float32"


class Check:
    """One comparison: objective() returns a number and leaves its analytic gradient in params.grad."""

    def __init__(self, objective, params, everything, name, seed):
        self.objective, self.params, self.everything, self.name, self.seed = objective, params, everything, name, seed
        self.rounded, self.notes = False, []
        self.start()

    def start(self):
        """Make the present weights and buffers the point at which derivatives are taken."""
        self.theta = self.params.theta.copy()
        self.buffers = [p.buffers.copy() for p in self.everything]
        size = np.abs(to_host(self.theta))
        self.stride = np.fmax(1, size / 100)  # 1e8 + 1e-6 would be 1e8; fmax: an unused input may be nan
        small = (size > 0) & (size < 0.01)  # log and sqrt end at 0, which steps of 6e-4 x do not reach
        self.near = np.where(small, 100 * size, self.stride)
        tiny = (size > 0) & (size < 1e-10)  # the complex step must also be small compared with x
        self.tiny = np.where(tiny, np.maximum(1e10 * size, 1e-280), 1.0)
        self.lost = 4 * np.finfo(float).eps * np.fmax.reduce(size, initial=1)  # rounding of x - mean(x), for large x

    def value(self, offset=None, left_over=0):
        """objective() at theta + offset. Before that, buffers are reset and the gradient is filled with left_over."""
        for p, buffers in zip(self.everything, self.buffers):
            p.buffers[...] = buffers
        self.params.theta[...] = self.theta if offset is None else self.theta + self.params.rng.xp.asarray(offset)
        self.params.changed()
        self.params.grad.fill(left_over)
        value = self.objective()
        self._refuse_all_but_one_number(value)
        self.rounded = self.rounded or is_single(value)
        return complex(value) if self.params.theta.dtype.kind == "c" else float(value)

    def _refuse_all_but_one_number(self, value):
        shape, what = getattr(value, "shape", ()), ""
        if is_torch(value):
            what = "a torch tensor"
        elif isinstance(value, (dict, tuple, list)):
            what = f"a {type(value).__name__}; return one of its entries"
        elif shape != ():
            what = f"an array of shape {shape}"
        elif not hasattr(value, "shape") and not isinstance(value, (int, float, complex)):
            what = repr(value)
        elif self.params.theta.dtype.kind != "c" and np.iscomplexobj(to_host(value)):
            what = f"the complex {value}"
        if what:
            raise ValueError(f"{self.name}: the objective must return one number, got {what}")

    def precondition(self):
        """Why a comparison would be meaningless, or "". It also sets the analytic gradient."""
        first = self.value()
        self.analytic, self.size = to_host(self.params.grad).copy(), abs(first)
        self.finite = bool(np.isfinite(first) and np.all(np.isfinite(self.analytic)))
        if not np.isfinite(first):
            return f"the value is {first}"
        if not self.finite:
            i = int(np.argmin(np.isfinite(self.analytic)))
            return f"the analytic gradient is not finite: {self.place(i)} is {self.analytic[i]}"
        again, gradient = self.value(), to_host(self.params.grad)
        if first == again and np.any(self.analytic) and np.allclose(gradient, 2 * self.analytic, rtol=1e-12, atol=0):
            return "the second call leaves twice the gradient of the first: zero_grad() is missing"
        if first != again or not np.array_equal(self.analytic, gradient):
            said = "two calls differ: make the Rng inside the objective, so that both draw the same noise"
            return getattr(self.objective, "why_calls_differ", lambda: said)()
        if not np.array_equal(to_host(self.theta), to_host(self.params.theta), equal_nan=True):
            said = "the objective changed the weights: it must not step an optimizer"
            return getattr(self.objective, "why_weights_change", lambda: said)()
        if not np.any(self.analytic):
            return "the analytic gradient is zero everywhere: there is nothing to compare"
        return ""

    def place(self, i):
        """The name and index of entry i of theta."""
        for name, where in self.params.slices().items():
            if where.start <= i < where.stop:
                return place(name, self.index(name, i - where.start))

    def index(self, name, i):
        return tuple(int(k) for k in np.unravel_index(i, self.params.named()[name].shape))

    def adds_to_what_is_there(self):
        """Whether the objective leaves an old gradient in place and adds its own to it."""
        self.value(left_over=1)
        return not np.array_equal(to_host(self.params.grad), self.analytic)

    def never_learns(self, start, data):
        """Names of the tensors whose gradient is 0 at the weights `start`, and stays 0 while the others learn.

        Their gradient at theta, which is `start` moved a little, is not 0. So two layers in a row that both start at 0 would
        pass the comparison. data: the slices of theta that are inputs, not weights.
        """
        offset = to_host(start) - to_host(self.theta)
        floor = 1e-6 * np.abs(self.analytic).max()
        stuck = {
            name: where
            for name, where in self.params.slices().items()
            if where not in data and np.any(np.abs(self.analytic[where]) > floor)
        }
        for _ in range(6):
            if not stuck or not np.isfinite(self.beside(offset)):
                return []
            gradient = to_host(self.params.grad).copy()
            stuck = {name: where for name, where in stuck.items() if not np.any(gradient[where])}
            for where in data:
                gradient[where] = 0
            offset -= 0.1 * gradient / (np.abs(gradient).max() or 1)
        zeros = [where for where in stuck.values() if not np.any(to_host(start)[where])]
        return list(stuck) if len(zeros) > 1 else []  # a single bias may have gradient 0 for a while

    # ---- derivatives along one direction, a NumPy vector as long as theta ----

    @property
    def single(self):
        """Whether the value is known to be rounded to single precision."""
        return self.rounded or getattr(self.objective, "single", False)

    def derivative(self, direction, method):
        """The numeric derivative along a direction, and an estimate of its error."""
        if method == CENTRAL:
            return self.central(direction)
        return self.value(1j * H[COMPLEX] * direction).imag / H[COMPLEX], 0.0

    def central(self, direction):
        """The central difference with the best step, and an estimate of its error.

        A short step suffers from rounding. A long step suffers from the curvature of the value, from a kink (ReLU, ...), or
        from the end of the domain (log, ...): half the step then gives a different number.
        """
        size = min(1, np.abs(direction).max())
        scale = max(np.linalg.norm(self.analytic * direction), np.abs(self.analytic).max() * size)
        longest, lengths, eps, good = H[CENTRAL], (1, 1e-2, 1e-4, 1e-6, 1e2, 1e4), np.finfo(np.float64).eps, 1e-7
        if self.single:
            longest, lengths, eps, good = SINGLE_H, (1, 0.1, 10), np.finfo(np.float32).eps, 1e-4
        best, doubt = np.nan, np.inf
        for length in lengths:
            h = length * longest
            coarse, fine = ((self.beside(s * direction) - self.beside(-s * direction)) / (2 * s) for s in (h, h / 2))
            off = abs(coarse - fine) + 4 * eps * self.size / h
            if off < doubt:
                best, doubt = coarse, off
            if doubt <= good * scale:
                break
        return best, doubt

    def along(self, signs, method):
        """The steps, the derivative along signs times steps, and an estimate of its error.

        If the ordinary steps give no clear number, central differences use shorter steps near 0.
        """
        if method == COMPLEX:
            return self.tiny, *self.derivative(signs * self.tiny, method)
        for steps in (self.stride, self.near):
            number, doubt = self.central(signs * steps)
            clear = doubt <= 1e-5 * np.linalg.norm(self.analytic * signs * steps)
            if clear or np.array_equal(self.stride, self.near):
                break
        return steps, number, doubt

    def beside(self, offset):
        """The value at theta + offset, or nan where it does not exist (such as log below 0)."""
        try:
            with np.errstate(all="ignore"):
                return self.value(offset).real
        except (ValueError, ArithmeticError, AssertionError, RuntimeWarning):
            return np.nan

    def kink(self, direction, scale):
        """The slopes before and after a kink at theta, or None if there is no kink."""
        here, slopes = self.value().real, []
        for h in (SINGLE_H,) if self.single else (1e-4, 1e-6):
            slopes.append(((here - self.beside(-h * direction)) / h, (self.beside(h * direction) - here) / h))
        far, near = (abs(slopes[i][1] - slopes[i][0]) for i in (0, -1))
        if self.single:  # too coarse to tell a kink here from a kink nearby
            return slopes[-1] if near > 0.05 * scale else None
        # Where the curve is smooth, the difference shrinks with h; at a jump it grows.
        return slopes[-1] if near > 1e-3 * scale and 0.5 * far < near < 2 * far else None

    def on_the_edge(self, i):
        """Whether entry i is at the end of the domain, or where the slope has no limit, such as that of p log p at 0."""
        unit, here, slopes = np.zeros_like(self.analytic), self.value().real, []
        unit[i] = self.near[i]
        for h in (1e-4, 1e-6):
            slopes.append(np.abs([(self.beside(s * h * unit) - here) / (h * unit[i]) for s in (1, -1)]))
        far, near = slopes
        if self.single or not np.all(np.isfinite(near)):
            return not self.single
        grows = (near > 1.1 * far) & (near > 1e-6 * np.abs(self.analytic).max())
        return bool(to_host(self.theta)[i] == 0 and np.any(grows))

    # ---- the comparison ----

    def compare(self, method, mode):
        """The GradReport of one method."""
        if method == CENTRAL:
            self.rounded = self.rounded or self._ignores_small_steps()
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
        found = list(self._entries(method) if mode == "entries" else self._directions(method))
        worst = max(found, key=lambda report: report.error / report.tolerance)
        wrong = tuple(report.parameter for report in found if not report.passed)
        right = tuple(report.parameter for report in found if report.passed)
        return replace(worst, passed=not wrong, wrong=wrong, right=right)

    def _tensor(self, method, a, b, doubt, scale):
        """A GradReport of one tensor (flat: analytic a, numeric b), its worst entry i, and which entries are wrong."""
        tolerance = max((SINGLE_TOLERANCE if self.single else TOLERANCE)[method], self.lost)
        scale = scale or 1.0  # 1 if the value never changes
        errors = np.abs(a - b) / scale
        errors[np.isnan(errors)] = np.inf
        allowed = tolerance + np.minimum(2 * doubt / scale, 0.01)
        i = int(np.argmax(errors / allowed))
        wrong = errors > allowed
        report = GradReport(self.name, method, float(errors[i]), float(allowed[i]), not wrong.any(), self.seed)
        report.analytic, report.numeric, report.n_wrong = float(a[i]), float(b[i]), int(wrong.sum())
        if wrong.any():
            report.clue = explain(a[wrong], b[wrong], tolerance * scale)
            if report.clue.startswith("analytic /") and method == COMPLEX and 1e-9 < report.error < SINGLE_ERROR:
                report.clue += "; rounding to float32 leaves such errors: is a part of the code or of the data float32?"
        return report, i, wrong

    def _entries(self, method):
        """A report for each tensor. Every entry is checked."""
        unit = np.zeros_like(self.analytic)
        numeric, doubt = np.full(unit.shape, np.nan), np.full(unit.shape, np.inf)
        for i in range(unit.size):
            for step in {self.stride[i], self.near[i]} if method == CENTRAL else {self.tiny[i]}:
                unit[i] = step
                number, off = (number / step for number in self.derivative(unit, method))
                if off < doubt[i]:
                    numeric[i], doubt[i] = number, off
            unit[i] = 0
        floor = 1e-3 * np.abs(self.analytic).max()  # a bias before BatchNorm has gradient 0, up to rounding
        left_over = self._left_over(numeric)
        for name, where in self.params.slices().items():
            a, b = self.analytic[where], numeric[where]
            if not a.size:
                continue
            scale = max(np.abs(a).max(), np.fmax.reduce(np.abs(b)), floor)
            unseen = (self.tiny[where] < 1) & np.isfinite(b) & (doubt[where] > 5e-3 * scale)
            if unseen.any():  # such as p log p at p = 1e-28 plus other terms, by central differences
                b[unseen] = a[unseen]
                self.notes.append(
                    f"{name}: {unseen.sum()} entries below 1e-10 are not checked: rounding hides their effect"
                )
            report, i, wrong = self._tensor(method, a, b, doubt[where], scale)
            kinks, clue = 0, ""
            while wrong.any():
                unit[where.start + i] = 1
                slopes = self.kink(unit, scale)
                unit[where.start + i] = 0
                if not slopes:
                    if self.on_the_edge(where.start + i):
                        clue = (
                            "it lies on the edge of the domain, or on a kink, and has no derivative: check it elsewhere"
                        )
                    break
                at = place(name, self.index(name, i))
                room = (1e-2 if self.single else 1e-3) * scale
                if not min(slopes) - room <= a[i] <= max(slopes) + room:
                    clue = f"it lies on a kink, with slope {slopes[0]:.6g} before it and {slopes[1]:.6g} after it"
                    break
                kinks, b[i] = kinks + 1, a[i]
                report, i, wrong = self._tensor(method, a, b, doubt[where], scale)
            if kinks:
                others = f", as do {kinks - 1} more entries" if kinks > 1 else ""
                self.notes.append(f"{at} lies on a kink{others}: any slope between those of its two sides passes there")
            report.parameter, report.index, report.n_entries = name, self.index(name, i), a.size
            report.clue = clue or (left_over if wrong.any() else "") or report.clue
            yield report

    def _left_over(self, numeric):
        """The clue if every entry of the gradient is off by the same number, or ""."""
        off = self.analytic - numeric
        same = off.size > 1 and np.ptp(off) <= 1e-5 * abs(off[0]) and abs(off[0]) > 1e-5 * np.abs(numeric).max()
        if not same or np.ptp(numeric) <= 1e-5 * np.abs(numeric).max():
            return ""
        return f"every entry is too large by {off[0]:.6g}: was zero_grad() forgotten?"

    def _directions(self, method):
        """A report for each tensor, along one random ±1 direction, and one for all tensors together.

        The number of calls does not depend on the number of weights. An error δ in one entry shows as δ / ‖g‖, which is far
        above rounding even among 100,000 entries.
        """
        rng = np.random.default_rng(self.seed)
        for name, where in [*self.params.slices().items(), ("all", slice(None))]:
            signs = np.zeros_like(self.analytic)
            signs[where] = rng.choice([-1.0, 1.0], signs[where].size)
            report, direction, scale = self._along(method, signs)
            if not report:  # ReLU and similar functions have kinks at 0, and pictures have zeros
                kink = self.kink(direction, scale)
                report.clue = "the direction crosses a kink" if kink else report.clue
                again, _, _ = self._along(method, np.where(to_host(self.theta) == 0, 0, signs))
                if again and kink:
                    report = again
                    self.notes.append(f"{name}: entries that are exactly 0 were left out, because they lie on a kink")
                elif again:
                    report.clue = (
                        "it is right without the entries that are exactly 0: perhaps one lies on the edge of a domain"
                    )
            report.parameter = name
            yield report

    def _along(self, method, signs):
        steps, b, doubt = self.along(signs, method)
        direction = signs * steps
        scale = max(np.linalg.norm(self.analytic * direction), 1e-3 * np.linalg.norm(self.analytic * steps))
        numbers = (np.array([number]) for number in (self.analytic @ direction, b, doubt))
        return self._tensor(method, *numbers, scale)[0], direction, scale

    def cross_check(self):
        """Whether a central difference over all weights agrees: "" if so, a message if not, None if it cannot decide.

        Up to eight directions are tried, because one that crosses a kink within the step decides nothing. Entries that are
        exactly 0, as in pictures, are not moved: ReLU and similar functions have their kinks there.
        """
        rng = np.random.default_rng(self.seed)
        told = None
        for _ in range(8):
            signs = rng.choice([-1.0, 1.0], self.analytic.size)
            signs[to_host(self.theta) == 0] = 0
            steps, b, doubt = self.along(signs, CENTRAL)
            direction = signs * steps
            a, scale = float(self.analytic @ direction), np.linalg.norm(self.analytic * direction)
            if abs(a - b) <= (1e-2 if self.single else 1e-5) * scale + min(2 * doubt, 1e-3 * scale):
                return ""
            if doubt < 1e-2 * scale and abs(a - b) > 4 * doubt and not self.kink(direction, scale):
                told = f"second opinion (a central difference along one random direction): numeric {b:.9g}, analytic {a:.9g}"
        return told

    def _ignores_small_steps(self):
        """Whether a step that double precision resolves leaves the value unchanged: then something rounds to float32."""
        i = int(np.argmax(np.abs(self.analytic) * self.stride))
        step = np.zeros_like(self.analytic)
        step[i] = 1e-10 * self.stride[i]
        here = self.value()
        visible = abs(self.analytic[i] * step[i]) > 20 * np.finfo(float).eps * self.size
        return bool(visible and self.beside(step) == here == self.beside(-step) and self.beside(1e8 * step) != here)


def is_single(array):
    """Whether an array (or NumPy number) has single precision or less."""
    dtype = getattr(array, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype in (np.float16, np.float32, np.complex64)


def is_torch(x):
    return type(x).__module__.partition(".")[0] == "torch"
