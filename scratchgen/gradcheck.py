"""The gradient checker: is a hand-written gradient the derivative of its own forward pass?

    check_layer(layer, x)          a layer: weights and input, learning and using
    check_loss(f, *arrays)         a loss that returns (value, gradient, ...)
    gradcheck(objective, params)   anything that returns a value and leaves its gradient in params.grad

Each compares every entry with the complex step, good to about 1e-15, and guards that by one central difference, which
exposes operations that lose the imaginary part (abs, sign, var, linalg.norm); see derivative.py. What no gradient check
sees: a sampler that takes a variance for a standard deviation is the derivative of itself.
"""

import copy
import traceback

import numpy as np

from .backend import Rng
from .derivative import CENTRAL, COMPLEX, Check, GradReport
from .layer import Layer, Weight
from .parameters import Parameters

# Streams of random numbers, one for each use: were w the same numbers as x, a normalising layer would have gradient 0.
MOVE, INPUT, OUTPUT = 1001, 1002, 1003


def gradcheck(
    objective, params, *, method="auto", mode="auto", cross_check=True, together=(), seed=0, name="objective"
):
    """Compare the gradient that objective() leaves in params.grad with numeric derivatives of the number it returns.

    objective: takes nothing and does the same at every call (it makes its Rng itself).
    params: the Parameters to differentiate. together: more Parameters that objective runs through; during the check they
        have the precision of params.
    method: "complex-step", "central", or "auto": complex step, or central where the forward pass refuses complex numbers.
    mode: "entries", "directions" (one random ±1 direction a tensor and one over all), or "auto": entries up to 3,000.
    cross_check=False leaves the central difference out: it does not see stop().

    Weights are moved by 0.1 · N(0, 1) during the check, since fresh zeros sit on the kinks of ReLU, and buffers that are no
    constants by up to 0.1; all is put back afterwards. Returns a GradReport. Raises ValueError for unknown names.
    """
    if method not in ("auto", COMPLEX, CENTRAL) or mode not in ("auto", "entries", "directions"):
        raise ValueError(f"gradcheck: unknown method {method!r} or mode {mode!r}")
    everything = list({id(p): p for p in (params, *together)}.values())
    kept = [(p.theta.dtype, p.theta.copy(), p.grad.copy(), p.buffers.copy()) for p in everything]
    try:
        for p in everything:
            rng = p.cast("float64").rng.like((seed, MOVE))
            p.theta += 0.1 * rng.normal(p.theta.shape)
            for where in p.moving_buffers():
                p.buffers[where] += 0.1 * rng.uniform(where.stop - where.start)  # upwards: a variance stays positive
        return _report(Check(objective, params, everything, name, seed), method, mode, cross_check and method == "auto")
    finally:
        for p, (dtype, theta, grad, buffers) in zip(everything, kept):
            p.cast(dtype)
            p.theta[...], p.grad[...], p.buffers[...] = theta, grad, buffers


def _report(check, method, mode, cross_check):
    problem = check.precondition()
    if problem:
        return GradReport.failure(check.name, check.seed, problem)
    contradiction = check.cross_check() if cross_check else ""
    try:
        report = check.compare(CENTRAL if method == CENTRAL else COMPLEX, mode)
    except (TypeError, np.exceptions.ComplexWarning) as error:  # some function of the forward pass takes no complex
        if method == COMPLEX:
            raise
        report = check.compare(CENTRAL, mode)
        report.problem = f"by central differences, as the complex step is not possible: {str(error).splitlines()[0]}"
        return report
    if contradiction:
        report.passed, report.problem = False, contradiction
    elif not report and cross_check:
        report.problem = "but a central difference agrees: does the forward pass use abs, sign, var or linalg.norm?"
    return report


def check_layer(layer, x, *, seed=0, name=None, **options):
    """Check a layer's gradients for weights and input, learning and using, and that its backward keeps the contract.

    x: an array, a tuple of arrays (for layers like Concat), or shapes in their place, such as (4, 5), filled with N(0, 1).
    Integer arrays are held fixed. The layer must not be in a Parameters yet; copies of it are checked. options: see
    gradcheck. Returns the worse GradReport of the two modes.
    """
    if isinstance(x, tuple) and all(isinstance(n, int) for n in x):
        x = Rng((seed, INPUT), "float64").normal(x)
    elif isinstance(x, tuple) and all(isinstance(part, tuple) for part in x):
        x = tuple(Rng((seed, INPUT, i), "float64").normal(shape) for i, shape in enumerate(x))
    name = name or type(layer).__name__
    if layer.params is not None:
        raise ValueError(f"{name} already belongs to a Parameters: check one fresh from its class")
    reports = []
    for rng_seed, mode in ((seed, "learning"), (None, "using")):
        try:
            trial = _Trial(copy.deepcopy(layer), x, rng_seed, seed)
            report = gradcheck(trial, trial.params, seed=seed, name=f"{name} ({mode})", **options)
            if report:
                broken = trial.broken_contract()
                report.passed, report.problem = not broken, broken or report.problem
        except _Broken as error:
            report = GradReport.failure(f"{name} ({mode})", seed, str(error))
        reports.append(report)
    return max(reports, key=lambda report: (not report.passed, report.error))


class _Broken(Exception):
    """A backward that does not keep the contract of layer.py."""


class _Inputs(Layer):
    """Holds arrays as weights x0, x1, ..., so that gradients with respect to inputs are checked like any other."""

    def __init__(self, arrays):
        for name, array in arrays.items():
            setattr(self, name, Weight(array.shape, lambda rng, shape, fan_in, array=array: rng.array(array)))


class _Trial:
    """A layer as an objective: the value Σ w y with fixed random weights w, whose gradient in y is w."""

    def __init__(self, layer, x, rng_seed, seed):
        self.layer, self.rng_seed, self.seed = layer, rng_seed, seed
        self.several = isinstance(x, tuple)
        self.parts = x if self.several else (x,)
        floats = {f"x{i}": part for i, part in enumerate(self.parts) if part.dtype.kind == "f"}
        self.inputs = _Inputs(floats)
        self.params = Parameters(Rng(seed, "float64"), layer=layer, input=self.inputs)

    def __call__(self, learn=True, inputs=True):
        x = [getattr(self.inputs, f"x{i}", part) for i, part in enumerate(self.parts)]
        before = [part.copy() for part in x]
        rng = None if self.rng_seed is None else Rng(self.rng_seed, "float64")
        returned = self.layer.forward(tuple(x) if self.several else x[0], rng)
        if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
            raise _Broken("forward must return two things, the output and the function backward")
        y, backward = returned
        outputs = y if isinstance(y, tuple) else (y,)
        w = self.d_outputs(outputs)
        try:
            dx = backward(tuple(w) if isinstance(y, tuple) else w[0], learn=learn, inputs=inputs)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise _Broken("backward must take (dy, learn=True, inputs=True)") from error
        except ValueError as error:  # mostly shapes that do not fit, such as a sum over the batch left out
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise _Broken(f"backward failed in line {line.lineno} of {line.filename}: {error}") from error
        if not all(map(np.array_equal, w, self.d_outputs(outputs))):
            raise _Broken("backward changed dy: it must leave dy as it is")
        if not all(map(np.array_equal, x, before)):
            raise _Broken("forward or backward changed x: it must leave x as it is")
        for i, (part, dx_part) in enumerate(zip(x, dx if self.several else (dx,)) if inputs else ()):
            if f"dx{i}" in self.inputs.__dict__:
                if getattr(dx_part, "shape", None) != part.shape:
                    raise _Broken(f"backward returned dx of shape {getattr(dx_part, 'shape', None)} for x {part.shape}")
                self.inputs.__dict__[f"dx{i}"] += dx_part
        return sum((part * output).sum() for part, output in zip(w, outputs))

    def d_outputs(self, outputs):
        rng = Rng((self.seed, OUTPUT), "float64")
        return [rng.normal(output.shape) for output in outputs]

    def broken_contract(self):
        """What backward does wrong beside its numbers, or "": it must add to dW, and do nothing when not learning."""
        grad, buffers = self.params.grad, self.params.buffers
        grad.fill(0)
        self()
        once = grad.copy()
        self()
        if not np.allclose(grad, 2 * once, rtol=1e-9, atol=1e-300):
            return "backward overwrites dW: it must add (self.dW += ...), for a layer may run twice before a step"
        own = [where for name, where in self.params.slices().items() if name.startswith("layer.")]
        grad.fill(0)
        self(inputs=False)
        if not all(np.allclose(grad[where], once[where], rtol=1e-9, atol=1e-300) for where in own):
            return "backward(inputs=False) gives another dW: only dx may be left out"
        grad.fill(0)
        before = buffers.copy()
        self(learn=False)
        if any(np.any(grad[where]) for where in own) or not np.array_equal(before, buffers):
            return "backward(learn=False) changes dW or a buffer: a frozen network must stay as it is"
        return ""


def check_loss(f, *arrays, seed=0, name=None, **options):
    """Check f(*arrays) -> (value, gradient, ...), a gradient for each of the leading arrays. Returns a GradReport."""
    name = name or getattr(f, "__name__", "loss")
    result = f(*arrays)
    if not isinstance(result, tuple) or not 2 <= len(result) <= len(arrays) + 1:
        raise ValueError(f"{name}: expected a tuple (value, gradients of 1 to {len(arrays)} leading arrays)")
    for i, gradient in enumerate(result[1:]):
        if gradient.shape != arrays[i].shape:
            return GradReport.failure(
                name, seed, f"gradient {i} has shape {gradient.shape}, its array {arrays[i].shape}"
            )
    n = len(result) - 1
    inputs = _Inputs({f"x{i}": array for i, array in enumerate(arrays[:n])})
    params = Parameters(Rng(seed, "float64"), input=inputs)

    def objective():
        value, *gradients = f(*(getattr(inputs, f"x{i}") for i in range(n)), *arrays[n:])
        for i, gradient in enumerate(gradients):
            inputs.__dict__[f"dx{i}"] += gradient
        return value

    return gradcheck(objective, params, seed=seed, name=name, **options)
