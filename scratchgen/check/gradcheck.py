"""The gradient checker: is a hand-written gradient the derivative of its own forward pass?

    check_layer(layer, x)          a layer: weights and input, learning and using
    check_loss(f, *arrays)         a loss that returns (value, gradient, ...)
    check_flow(layer, x)           a flow layer: also its inverse and its log-determinant; see flow.py
    gradcheck(objective, params)   anything that returns a value and leaves its gradient in params.grad

Each compares every entry with the complex step, which is accurate to about 1e-15. One central difference is a second
opinion: it exposes operations that lose the imaginary part (abs, sign, var, linalg.norm); see derivative.py. No gradient
check can see a wrong forward pass: a sampler that scales its noise by σ² instead of σ passes.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..backend import Rng
from ..nn.layer import Layer
from ..nn.parameters import Parameters
from .derivative import CENTRAL, COMPLEX, SINGLE, SINGLE_ERROR, Check, is_single, is_torch
from .report import GradReport
from .trial import MOVE, Broken, Trial, _Inputs, as_array, layer_inputs, not_checked, unchanged


def gradcheck(
    objective: Callable[[], Any],
    params: Parameters,
    *,
    method: str = "auto",
    mode: str = "auto",
    cross_check: bool = True,
    together: Sequence[Parameters] = (),
    seed: int = 0,
    name: str = "objective",
) -> GradReport:
    """A GradReport of objective(): the gradient that it leaves in params.grad against derivatives of its value.

    objective: takes no arguments and does the same in every call (so it makes its own Rng).
    params: the Parameters to differentiate. together: other Parameters that objective uses; during the check they have the
        precision of params.
    method: "complex-step", "central", or "auto": complex step, or central if the forward pass fails on complex numbers.
    mode: "entries", "directions" (one random ±1 direction per tensor and one for all), or "auto": entries up to 3,000.
    cross_check=False leaves out the central difference, for objectives with stop(), which it does not see.

    During the check, weights are moved by 0.1 · N(0, 1), because initial zeros lie on the kinks of ReLU. Buffers that are
    not constant are moved by up to 0.1. Nothing is moved if the value would not exist there. All is put back afterwards.
    Raises ValueError for an unknown method or mode.
    """
    with _moved(objective, params, together, seed, name) as (check, problem):
        report = _compare(check, problem, method, mode, cross_check)
        if report and check.adds_to_what_is_there():
            note = "the objective adds to what is in params.grad: call params.zero_grad() in it, or before each call"
            report.notes += (note,)
        return report


@contextmanager
def _moved(objective, params, together, seed, name, data=(), still=()):
    """A Check in double precision with moved weights, and why a comparison there would be meaningless, or "".

    data: slices of theta that are inputs, not weights. still: slices that are not moved, because the caller chose their
    values. All is put back afterwards.
    """
    everything = list({id(p): p for p in (params, *together)}.values())
    kept = [(p, p.theta.dtype, p.theta.copy(), p.grad.copy(), p.buffers.copy()) for p in everything]

    def put_back(dtype=None):
        for p, own, theta, grad, buffers in kept:
            p.cast(dtype or own)
            p.theta[...], p.grad[...], p.buffers[...] = theta, grad, buffers

    try:
        put_back("float64")
        for p in everything:
            rng = p.rng.like((seed, MOVE))
            step = 0.1 * rng.normal(p.theta.shape)
            for where in still if p is params else ():
                step[where] = 0
            p.theta += step
            for where in p.moving_buffers():
                p.buffers[where] += 0.1 * rng.uniform(where.stop - where.start)  # upwards: a variance stays positive
        check = Check(objective, params, everything, name, seed)
        problem = _first_look(check)
        if problem is None:  # a weight that must be positive may have left its domain
            put_back("float64")
            check.start()
            problem = check.precondition()
            check.notes += [] if problem else ["the weights were not moved: a small move leaves the domain"]
        else:
            start = kept[0][2].astype("float64")
            check.notes += [] if problem else _stuck(check.never_learns(start, data))
        check.value()
        yield check, problem
    finally:
        put_back()


def _first_look(check):
    """check.precondition() at the moved weights, or None if it fails or gives numbers that are not finite."""
    try:
        with np.errstate(all="ignore"):
            problem = check.precondition()
        return problem if check.finite else None
    except Exception:  # if the original weights raise it too, the user will see it
        return None


def _stuck(names):
    """The remark on tensors that never learn, in a list, which is empty if there are none."""
    if not names:
        return []
    who = f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} gradient 0 at the initial weights"
    return [f"{who} and while the others learn: if several weights in a row start at 0, start some of them at random"]


def _compare(check, problem, method="auto", mode="auto", cross_check=True):
    """The GradReport of a Check."""
    if method not in ("auto", COMPLEX, CENTRAL) or mode not in ("auto", "entries", "directions"):
        raise ValueError(f"gradcheck: unknown method {method!r} or mode {mode!r}")
    if problem:
        return GradReport.failure(check.name, check.seed, problem)
    said = check.cross_check() if cross_check and method == "auto" else None
    refused = None
    if method != CENTRAL:
        try:
            report = check.compare(COMPLEX, mode)
        except Exception as error:  # real numbers passed, so complex ones caused this
            if method == COMPLEX:
                raise
            refused = f"{type(error).__name__}: {error}".splitlines()[0]
    if method == CENTRAL or refused:
        report = check.compare(CENTRAL, mode)
    if refused:
        report.problem = f"checked by central differences, because the complex step is not possible: {refused}"
    elif said:
        report.passed, report.problem = False, said
    elif said == "" and not report and report.error > SINGLE_ERROR and "lies on" not in report.clue:
        report.problem = (
            "but a central difference agrees with your gradient: does the forward pass use abs, sign, var, linalg.norm, "
            'slogdet, cholesky, svd or vdot? The complex step is wrong for these; check with method="central"'
        )
    if check.single:
        report.notes += (f"{SINGLE}; the tolerance is only {report.tolerance:.0e}",)
    report.notes += tuple(check.notes)
    return report


# ---- layers ----


def check_layer(layer: Layer, x: Any, *, seed: int = 0, name: str | None = None, **options: Any) -> GradReport:
    """A GradReport of a layer: the gradients of weights and input, learning and using, and the contract of backward.

    x: an array, a tuple of arrays (for layers like Concat), or shapes instead, such as (4, 5), which are filled with
    N(0, 1). Arrays keep their values. Arrays of whole numbers and plain numbers are not checked, and the report says so.
    forward may return a tuple, such as (y, log_det); backward then gets one too, (dy, d_log_det).
    The layer must not be in a Parameters yet; copies of it are checked. options: see gradcheck. Of the two modes, learning
    and using, the worse GradReport is returned.
    """
    if isinstance(layer, type):
        raise ValueError(f"layer is the class {layer.__name__}: give a layer, {layer.__name__}(...)")
    if not isinstance(layer, Layer):
        what = getattr(layer, "__name__", repr(layer))
        raise ValueError(
            f"layer is {what}, not a Layer: give an instance of a subclass of Layer; check_loss checks functions"
        )
    name = name or type(layer).__name__
    if layer.params is not None:
        raise ValueError(f"{name} already belongs to a Parameters: check a newly made layer")
    several, parts, filled = layer_inputs(x, seed)
    reports, notes = [], []
    for rng_seed, mode in ((seed, "learning"), (None, "using")):
        label = f"{name} ({mode})"
        try:
            trial = Trial(copy.deepcopy(layer), several, parts, filled, rng_seed, seed)
            report = _check_trial(trial, label, **options)
        except Broken as error:
            report = GradReport.failure(label, seed, str(error))
        reports.append(report)
        notes += [note for note in report.notes if note not in notes]
    worst = max(reports, key=lambda report: (not report.passed, report.error))
    worst.notes = tuple(notes if worst else worst.notes)
    return worst


def _check_trial(trial, label, method="auto", mode="auto", cross_check=True, together=()):
    """The GradReport of a layer in one mode: first the numbers, then the contract."""
    nothing = trial.nothing_to_check()
    if nothing:
        return GradReport.failure(label, trial.seed, nothing)
    trial.first_call()
    with _moved(trial, trial.params, together, trial.seed, label, trial.data, trial.still) as (check, problem):
        report = _compare(check, problem, method, mode, cross_check)
        report.notes = trial.notes + report.notes
        if report:
            broken = trial.broken_contract()
            report.passed, report.problem = not broken, broken or report.problem
            try:
                report.notes += () if broken else trial.in_single_precision()
            except Broken as error:  # the numbers are right all the same
                report.passed, report.problem = False, str(error)
        return report


# ---- losses ----


def check_loss(
    f: Callable[..., Any], *arrays: Any, seed: int = 0, name: str | None = None, **options: Any
) -> GradReport:
    """A GradReport of a loss f(*arrays) -> (value, gradient, ...), with a gradient for each of the leading arrays.

    The gradients may also be in a tuple of their own. Plain numbers and lists count as arrays. Whole numbers that have a
    gradient become floats. The arrays keep their values, because they may be probabilities.
    """
    name = name or getattr(f, "__name__", "loss")
    arrays = tuple(_loss_argument(array, i) for i, array in enumerate(arrays))
    kept = copy.deepcopy(arrays)
    result = f(*arrays)
    changed = [
        f"x{i}" for i, (a, b) in enumerate(zip(arrays, kept)) if isinstance(a, np.ndarray) and not unchanged(a, b)
    ]
    if changed:
        return GradReport.failure(
            name, seed, f"the loss changes its argument {', '.join(changed)}: write x = x - 1, not x -= 1"
        )
    if not isinstance(result, tuple) or len(result) < 2 or not 1 <= len(_gradients(result)) <= len(arrays):
        raise ValueError(f"{name} must return a tuple (value, gradients of 1 to {len(arrays)} leading arrays)")
    checked: dict[int, np.ndarray] = {}
    notes: tuple[str, ...] = ()
    for i, gradient in enumerate(_gradients(result)):
        if gradient is None:
            notes += (f"x{i} is not checked: {name} returns None for its gradient",)
            continue
        array = as_array(arrays[i], f"array {i}")
        if np.shape(gradient) != array.shape:
            return GradReport.failure(
                name, seed, f"gradient {i} has shape {np.shape(gradient)}, but its array has {array.shape}"
            )
        if array.dtype.kind != "f":
            try:
                f(*arrays[:i], array.astype("float64"), *arrays[i + 1 :])
            except Exception:  # such as indices
                notes += (not_checked(f"x{i}", array),)
                continue
            notes += (f"x{i} is made of whole numbers ({array.dtype}), and checked as floats",)
        checked[i] = array
    objective = _Loss(f, arrays, checked, seed)
    if not objective.params.theta.size:
        return GradReport.failure(
            name, seed, "there is nothing to check: " + ("; ".join(notes) or "the arrays are empty")
        )
    data = list(objective.params.slices().values())
    together = options.pop("together", ())
    with _moved(objective, objective.params, together, seed, name, data, data) as (check, problem):
        report = _compare(check, problem, **options)
        report.notes = notes + report.notes
        return report


class _Loss:
    """A loss as an objective: its arrays are the weights."""

    def __init__(self, f, arrays, checked, seed):
        self.f, self.arrays, self.checked, self.single = f, arrays, checked, False
        self.inputs = _Inputs({f"x{i}": array for i, array in checked.items()})
        self.params = Parameters(Rng(seed, "float64"), input=self.inputs)

    def __call__(self):
        result = self.f(*(getattr(self.inputs, f"x{i}", array) for i, array in enumerate(self.arrays)))
        gradients = _gradients(result)
        for i in self.checked:
            self.inputs.__dict__[f"dx{i}"] += gradients[i]
            self.single = self.single or is_single(gradients[i])
        return result[0]


def _gradients(result):
    """The gradients of (value, g1, g2) or (value, (g1, g2)), as a list."""
    inner = result[1]
    nested = len(result) == 2 and isinstance(inner, (tuple, list))
    if nested and (isinstance(inner, tuple) or any(isinstance(g, np.ndarray) for g in inner)):
        return list(inner)
    return list(result[1:])


def _loss_argument(x, i):
    """An argument of a loss: arrays and lists of floats in double precision, anything else as it is."""
    if is_torch(x):
        raise ValueError(f"array {i} is a torch tensor: give a NumPy array")
    if isinstance(x, list):
        return as_array(x, f"array {i}")
    return x.astype("float64") if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
