"""The gradient checker: is a hand-written gradient the derivative of its own forward pass?

Two numeric derivatives are compared with the analytic one. The complex step, Im f(θ + ih)/h with h = 1e-20, subtracts
nothing and so is exact to machine precision (Squire & Trapp 1998); it asks that the forward pass survive complex numbers.
A central difference, (f(θ + h) - f(θ - h))/2h, is good to about 1e-9 and asks nothing, so one random direction of it
guards the complex step against operations that lose the imaginary part (abs, sign, var, linalg.norm).

    check_layer(layer, x)          a layer: weights and input, learning and using
    check_loss(f, *arrays)         a loss that returns (value, gradient, ...)
    gradcheck(objective, params)   anything that returns a value and leaves its gradient in params.grad

None of them sees a sampler that takes a variance for a standard deviation: such a sampler is consistent with itself.
"""

import copy
import warnings
from dataclasses import dataclass

import numpy as np

from .backend import Rng, to_host
from .layer import Layer, Parameters, Weight

COMPLEX, CENTRAL = "complex-step", "central"
TOLERANCE = {COMPLEX: 1e-10, CENTRAL: 1e-6}
H = {COMPLEX: 1e-20, CENTRAL: 6e-6}


@dataclass
class GradReport:
    """What a check found. True in a condition if it passed; printed, it says where the worst error sits.

    error: max |analytic - numeric| over a tensor, divided by that tensor's max |gradient|; the worst tensor counts.
    """

    name: str
    method: str
    error: float
    tolerance: float
    passed: bool
    seed: int
    problem: str = ""  # why the check could not even be made, or what was wrong beside the numbers
    parameter: str = ""
    index: tuple = ()
    analytic: float = 0.0
    numeric: float = 0.0

    def __bool__(self):
        return self.passed

    def hint(self):
        """What a wrong gradient's ratio to the right one suggests."""
        if self.analytic == 0:
            return "the analytic gradient is 0 here: a path was forgotten"
        if self.numeric == 0:
            return "the numeric gradient is 0 here: the value does not use this, or loses its imaginary part"
        ratio = self.analytic / self.numeric
        for k in (-1, 2, 0.5):
            if abs(ratio - k) < 1e-6:
                return {-1: "the sign is wrong", 2: "twice too large: a ½ forgotten?", 0.5: "half of it is missing"}[k]
        for size, words in (
            (ratio, "too large: a sum where the loss takes a mean?"),
            (1 / ratio, "too small: averaged twice?"),
        ):
            if size > 1.5 and abs(size - round(size)) < 1e-6:
                return f"{round(size)} times {words}"
        return f"analytic / numeric = {ratio:.6g}"

    def __str__(self):
        line = f"{'ok  ' if self.passed else 'FAIL'} {self.name}: error {self.error:.1e} by {self.method} (tolerance {self.tolerance:.0e})"
        if self.passed:
            return line
        if self.parameter and self.error > self.tolerance:
            line += f"\n     {self.parameter}{list(self.index)}: analytic {self.analytic:.9g}, numeric {self.numeric:.9g}; {self.hint()}"
        return line + (f"\n     {self.problem}" if self.problem else "") + f"\n     seed {self.seed}"


def gradcheck(
    objective, params, *, method="auto", mode="auto", cross_check=True, together=(), seed=0, name="objective"
):
    """Check the gradient that objective() leaves in params.grad against numeric derivatives of the value it returns.

    objective: takes nothing, returns one number; must do the same at every call (make its Rng inside).
    params: the Parameters to differentiate. together: further Parameters that objective runs through; theirs is the
        precision of params during the check, and nothing else.
    method: "complex-step", "central", or "auto": complex step, central where the forward pass refuses complex numbers.
    mode: "entries", "directions" (one random ±1 direction per tensor and one over all), or "auto": entries up to 3,000.
    cross_check=False leaves out the one central difference: for values that contain stop(), which it does not see.

    Weights and buffers are moved by 0.1 · N(0, 1) while checking, since fresh zeros sit on the kinks of ReLU; all is put
    back afterwards. Returns a GradReport.
    """
    everything = list({id(p): p for p in (params, *together)}.values())
    kept = [(p.theta.dtype, p.theta.copy(), p.grad.copy(), p.buffers.copy()) for p in everything]
    try:
        for p in everything:
            p.cast("float64")
            rng = p.rng.like(seed)
            p.theta += 0.1 * rng.normal(p.theta.shape)
            p.buffers += 0.1 * rng.normal(p.buffers.shape)
        return _Check(objective, params, everything, name, seed).report(method, mode, cross_check)
    finally:
        for p, (dtype, theta, grad, buffers) in zip(everything, kept):
            p.cast(dtype)
            p.theta[...], p.grad[...], p.buffers[...] = theta, grad, buffers


class _Check:
    def __init__(self, objective, params, everything, name, seed):
        self.objective, self.params, self.everything, self.name, self.seed = objective, params, everything, name, seed
        self.theta = params.theta.copy()
        self.buffers = [p.buffers.copy() for p in everything]

    def value(self, offset=None):
        """The objective at theta + offset, buffers as at the start."""
        for p, buffers in zip(self.everything, self.buffers):
            p.buffers[...] = buffers
        self.params.theta[...] = self.theta if offset is None else self.theta + offset
        self.params.changed()
        self.params.zero_grad()
        value = self.objective()
        if getattr(value, "shape", ()) != ():
            raise ValueError(f"{self.name}: the objective must return one number, got shape {value.shape}")
        return value[()] if hasattr(value, "shape") else value

    def report(self, method, mode, cross_check):
        first = self.value()
        self.analytic = to_host(self.params.grad).copy()
        again = self.value()
        problem = self.precondition(first, again)
        if problem:
            return GradReport(self.name, "none", np.inf, 0.0, False, self.seed, problem)
        note = self.cross_check() if cross_check and method == "auto" else ""
        if method in ("auto", COMPLEX):
            try:
                found = self.complex_step(mode)
            except (
                TypeError,
                np.exceptions.ComplexWarning,
            ) as error:  # a ufunc without complex version, a lost imaginary part
                if method == COMPLEX:
                    raise
                found = self.compare(CENTRAL, mode)
                found.problem = f"complex step not possible ({str(error).splitlines()[0]}); central differences used"
                return found
        else:
            found = self.compare(CENTRAL, mode)
        if note:
            found.passed, found.problem = False, note
        elif not found.passed and cross_check and method == "auto":
            found.problem = "a central difference agrees with the analytic gradient: is the forward pass complex-safe (no abs, sign, var)?"
        return found

    def precondition(self, first, again):
        if not np.isfinite(float(first)):
            return f"the value is {float(first)}"
        if float(first) != float(again) or not np.array_equal(self.analytic, to_host(self.params.grad)):
            return "two calls differ: make the Rng inside the objective, so that the noise is the same"
        if not np.array_equal(to_host(self.theta), to_host(self.params.theta)):
            return "the objective changed the weights: it must not step an optimizer"
        if not np.all(np.isfinite(self.analytic)):
            return "the analytic gradient is not finite"
        if not np.any(self.analytic):
            return "the analytic gradient is all zero: nothing was checked"
        return ""

    def directional(self, direction, method):
        """The derivative along a direction (the size of theta)."""
        d, h = self.params.rng.array(direction), H[method]
        d = d.real.astype("float64")
        if method == COMPLEX:
            return float(self.value(1j * h * d).imag) / h
        return float(self.value(h * d) - self.value(-h * d)) / (2 * h)

    def complex_step(self, mode):
        for p in self.everything:
            p.cast("complex128")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                return self.compare(COMPLEX, mode)
        finally:
            for p in self.everything:
                p.cast("float64")

    def compare(self, method, mode):
        n = self.analytic.size
        whole = mode == "entries" or (mode == "auto" and n <= 3000)
        places = self.params.slices()
        if not whole:
            return self.compare_directions(method, places)
        unit = np.eye(1, n)[0]
        numeric = np.array([self.directional(np.roll(unit, i), method) for i in range(n)])
        floor = 1e-3 * np.abs(self.analytic).max()  # a bias before BatchNorm has gradient 0 up to rounding
        worst = GradReport(self.name, method, -1.0, TOLERANCE[method], False, self.seed)
        for parameter, where in places.items():
            a, b = self.analytic[where], numeric[where]
            difference = np.abs(a - b) / max(np.abs(a).max(), np.abs(b).max(), floor)
            i = int(np.nanargmax(np.where(np.isnan(difference), np.inf, difference)))
            if not difference[i] <= worst.error:
                worst.error, worst.parameter, worst.analytic, worst.numeric = (
                    float(difference[i]),
                    parameter,
                    float(a[i]),
                    float(b[i]),
                )
                worst.index = tuple(int(k) for k in np.unravel_index(i, self.params.named()[parameter].shape))
        worst.passed = worst.error <= worst.tolerance
        return worst

    def compare_directions(self, method, places):
        rng = np.random.default_rng(self.seed)
        worst = GradReport(self.name, method, -1.0, TOLERANCE[method], False, self.seed)
        floor = 1e-3 * np.linalg.norm(self.analytic)
        for parameter, where in [*places.items(), ("all", slice(None))]:
            direction = np.zeros(self.analytic.size)
            direction[where] = rng.choice([-1.0, 1.0], direction[where].size)
            a, b = float(self.analytic @ direction), self.directional(direction, method)
            error = abs(a - b) / max(np.linalg.norm(self.analytic[where]), floor)
            if not error <= worst.error:
                worst.error, worst.parameter, worst.analytic, worst.numeric = error, parameter, a, b
        worst.passed = worst.error <= worst.tolerance
        return worst

    def cross_check(self):
        """One central difference over all weights; where two step sizes disagree, a kink lies between: try again."""
        rng = np.random.default_rng(self.seed)
        scale = np.linalg.norm(self.analytic)
        for _ in range(8):
            direction = rng.choice([-1.0, 1.0], self.analytic.size)
            a = float(self.analytic @ direction)
            b, halved = self.directional(direction, CENTRAL), self.directional(direction / 2, CENTRAL) * 2
            if abs(b - halved) <= 1e-6 * scale:
                break
        if abs(a - b) > max(1e-5 * scale, 10 * abs(b - halved)):
            return f"a central difference along a random direction gives {b:.9g}, the analytic gradient {a:.9g}"
        return ""


class _Inputs(Layer):
    """Holds arrays as weights, so that gradients with respect to inputs are checked like any other."""

    def __init__(self, arrays):
        for name, array in arrays.items():
            setattr(self, name, Weight(array.shape, lambda rng, shape, fan_in, array=array: rng.array(array)))


def _is_float(array):
    return hasattr(array, "dtype") and array.dtype.kind == "f"


def check_layer(layer, x, *, seed=0, name=None, **options):
    """Check a layer's weights and its input, learning and using, and that its backward keeps the contract of layer.py.

    x: an array, a tuple of arrays (for layers like Concat), or a shape such as (4, 5), filled with N(0, 1). Integer
    arrays are held fixed. The layer must not belong to a Parameters yet; a copy of it is checked. Returns the worse
    GradReport of the two modes. options: see gradcheck.
    """
    name = name or type(layer).__name__
    if isinstance(x, tuple) and all(isinstance(n, int) for n in x):
        x = Rng(seed, "float64").normal(x)
    parts = x if isinstance(x, tuple) else (x,)
    reports = []
    for learning in (True, False):
        copied = copy.deepcopy(layer)
        inputs = _Inputs({f"x{i}": part for i, part in enumerate(parts) if _is_float(part)})
        params = Parameters(Rng(seed, "float64"), layer=copied, input=inputs)

        def run(learn=True, copied=copied, inputs=inputs, params=params, learning=learning):
            """Returns the value Σ w y for fixed random w; leaves its gradient in params.grad."""
            values = [getattr(inputs, f"x{i}", part) for i, part in enumerate(parts)]
            y, backward = copied.forward(
                tuple(values) if isinstance(x, tuple) else values[0], Rng(seed, "float64") if learning else None
            )
            outputs = y if isinstance(y, tuple) else (y,)
            rng = Rng((seed, 1), "float64")
            w = [rng.normal(output.shape) for output in outputs]
            dx = backward(tuple(w) if isinstance(y, tuple) else w[0], learn=learn)
            rng = Rng((seed, 1), "float64")
            if not all(np.array_equal(part, rng.normal(part.shape)) for part in w):
                raise ValueError(f"{name}: backward changed dy; it must leave dy as it is")
            gradients = dx if isinstance(x, tuple) else (dx,)
            for i, (value, gradient) in enumerate(zip(values, gradients)):
                if hasattr(inputs, f"x{i}"):
                    if gradient is None or gradient.shape != value.shape:
                        found = None if gradient is None else gradient.shape
                        raise ValueError(f"{name}: dx has shape {found}, but x {value.shape}")
                    inputs.__dict__[f"dx{i}"] += gradient
            return sum((part * output).sum() for part, output in zip(w, outputs))

        mode = "learning" if learning else "using"
        try:
            report = gradcheck(run, params, seed=seed, name=f"{name} ({mode})", **options)
        except ValueError as error:
            report = GradReport(f"{name} ({mode})", "none", np.inf, 0.0, False, seed, str(error))
        reports.append(report)
        if report:
            report.problem = _contract(run, params)
            report.passed = not report.problem
    return max(reports, key=lambda report: (not report.passed, report.error))


def _contract(run, params):
    """What backward does to dW beside its value: add, never overwrite; nothing when it must not learn."""
    own = [where for name, where in params.slices().items() if not name.startswith("input.")]
    params.zero_grad()
    run()
    once = params.grad.copy()
    run()
    if not np.allclose(params.grad, 2 * once, rtol=1e-12, atol=1e-300):
        return "backward overwrites dW: it must add to it (self.dW += ...), for a layer may be used twice"
    buffers = params.buffers.copy()
    params.zero_grad()
    run(learn=False)
    if any(np.any(params.grad[where]) for where in own):
        return "backward(learn=False) still adds to dW: a frozen network would learn"
    if not np.array_equal(buffers, params.buffers):
        return "backward(learn=False) moves a buffer: a frozen network must stay as it is"
    return ""


def check_loss(f, *arrays, seed=0, name=None, **options):
    """Check f(*arrays) -> (value, gradient, ...): one gradient for each of the leading arrays. Returns a GradReport."""
    name = name or getattr(f, "__name__", "loss")
    probe = f(*arrays)
    if not isinstance(probe, tuple) or not 2 <= len(probe) <= len(arrays) + 1:
        raise ValueError(
            f"{name}: expected (value, gradient of each leading array), for {len(arrays)} arrays at most that many"
        )
    n = len(probe) - 1
    inputs = _Inputs({f"x{i}": array for i, array in enumerate(arrays[:n])})
    params = Parameters(Rng(seed, "float64"), input=inputs)

    def objective():
        value, *gradients = f(*(getattr(inputs, f"x{i}") for i in range(n)), *arrays[n:])
        for i, gradient in enumerate(gradients):
            if gradient.shape != arrays[i].shape:
                raise ValueError(f"{name}: gradient {i} has shape {gradient.shape}, its array {arrays[i].shape}")
            inputs.__dict__[f"dx{i}"] += gradient
        return value

    return gradcheck(objective, params, seed=seed, name=name, **options)
