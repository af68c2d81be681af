"""The gradient checker: is a hand-written gradient the derivative of its own forward pass?

    check_layer(layer, x)          a layer: weights and input, learning and using
    check_loss(f, *arrays)         a loss that returns (value, gradient, ...)
    check_flow(layer, x)           a flow layer: also its inverse and its log-determinant; see flow.py
    gradcheck(objective, params)   anything that returns a value and leaves its gradient in params.grad

Each compares every entry with the complex step, good to about 1e-15, and guards that by one central difference, which
exposes operations that lose the imaginary part (abs, sign, var, linalg.norm); see derivative.py. What no gradient check
sees: a sampler that takes a variance for a standard deviation is the derivative of itself.
"""

import copy
import traceback
from contextlib import contextmanager, suppress

import numpy as np

from ..backend import Rng, to_host
from ..nn.layer import Layer, Weight
from ..nn.parameters import Parameters
from .derivative import CENTRAL, COMPLEX, SINGLE, SINGLE_ERROR, Check, GradReport, is_single, is_torch

# Streams of random numbers, one for each use: were w the same numbers as x, a normalising layer would have gradient 0.
MOVE, INPUT, OUTPUT = 1001, 1002, 1003

ON_SELF = (
    "backward uses what a later forward left on self: keep it in the closure (a name of forward, x rather than self.x), "
    "for a network may run on two batches before it learns from either"
)


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
    constants by up to 0.1; they stay where they are if the value does not exist there. All is put back afterwards. Returns
    a GradReport. Raises ValueError for unknown names.
    """
    with _moved(objective, params, together, seed, name) as (check, problem):
        report = _compare(check, problem, method, mode, cross_check)
        if report and check.adds_to_what_is_there():
            note = "the objective adds to what params.grad holds: call params.zero_grad() in it, or before each call"
            report.notes += (note,)
        return report


@contextmanager
def _moved(objective, params, together, seed, name, data=(), still=()):
    """A Check in double precision with its weights moved, and what makes a comparison worthless there, or "".

    data: slices of theta that are inputs rather than weights. still: those that stay as they are, as the caller gave them.
    All is put back afterwards.
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
        if problem is None:  # a weight that must be positive, say, may have left its domain
            put_back("float64")
            check.start()
            problem = check.precondition()
            check.notes += [] if problem else ["the weights stayed as they are: moved a little, they give no value"]
        else:
            start = kept[0][2].astype("float64")
            check.notes += [] if problem else _stuck(check.never_learns(start, data))
        check.value()
        yield check, problem
    finally:
        put_back()


def _first_look(check):
    """check.precondition() at the moved weights, or None where it fails or gives no finite numbers."""
    try:
        with np.errstate(all="ignore"):
            problem = check.precondition()
        return problem if check.finite else None
    except Exception:  # it is raised again, for the user to see, if it also happens at the weights as they are
        return None


def _stuck(names):
    """The remark on tensors that never learn."""
    if not names:
        return []
    who = f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} gradient 0 from the initial weights on"
    return [f"{who} and would never learn: do weights on the way all start at 0? Start some of them at random"]


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
        except Exception as error:  # whatever is raised where real numbers passed: complex ones are refused
            if method == COMPLEX:
                raise
            refused = f"{type(error).__name__}: {error}".splitlines()[0]
    if method == CENTRAL or refused:
        report = check.compare(CENTRAL, mode)
    if refused:
        report.problem = f"by central differences, as the complex step is not possible: {refused}"
    elif said:
        report.passed, report.problem = False, said
    elif said == "" and not report and report.error > SINGLE_ERROR:
        report.problem = (
            "but a central difference agrees with your gradient: does the forward pass use abs, sign, var, linalg.norm, "
            'slogdet, cholesky, svd or vdot? The complex step does not pass through these; check with method="central"'
        )
    if check.single:
        report.notes += (f"{SINGLE}; numbers are compared to {report.tolerance:.0e} only",)
    report.notes += tuple(check.notes)
    return report


# ---- layers ----


def check_layer(layer, x, *, seed=0, name=None, **options):
    """Check a layer's gradients for weights and input, learning and using, and that its backward keeps the contract.

    x: an array, a tuple of arrays (for layers like Concat), or shapes in their place, such as (4, 5), filled with N(0, 1).
    Arrays stay as they are given; arrays of whole numbers and plain numbers are held fixed, and the report says so. forward
    may return a tuple, such as (y, log_det); backward then gets one too, (dy, d_log_det).
    The layer must not be in a Parameters yet; copies of it are checked. options: see gradcheck. Returns the worse
    GradReport of the two modes.
    """
    name = name or type(layer).__name__
    if layer.params is not None:
        raise ValueError(f"{name} already belongs to a Parameters: check one fresh from its class")
    several, parts, filled = layer_inputs(x, seed)
    reports, notes = [], []
    for rng_seed, mode in ((seed, "learning"), (None, "using")):
        label = f"{name} ({mode})"
        try:
            trial = _Trial(copy.deepcopy(layer), several, parts, filled, rng_seed, seed)
            report = trial.check(label, **options)
        except _Broken as error:
            report = GradReport.failure(label, seed, str(error))
        reports.append(report)
        notes += [note for note in report.notes if note not in notes]
    worst = max(reports, key=lambda report: (not report.passed, report.error))
    worst.notes = tuple(notes if worst else worst.notes)
    return worst


def layer_inputs(x, seed):
    """What stands for x in a check: whether it is several, its parts (arrays and numbers), and which were shapes."""
    if _is_shape(x):
        return False, [Rng((seed, INPUT), "float64").normal(_shape(x))], [True]
    items = isinstance(x, (list, tuple)) and any(isinstance(item, (tuple, np.ndarray)) for item in x)
    if isinstance(x, tuple) or items:
        parts = [Rng((seed, INPUT, i), "float64").normal(_shape(p)) if _is_shape(p) else p for i, p in enumerate(x)]
        numbers = all(isinstance(part, (int, float)) for part in parts)
        if not numbers:
            parts = [p if isinstance(p, (int, float)) else as_array(p, f"x{i}") for i, p in enumerate(parts)]
            return True, parts, [_is_shape(part) for part in x]
    elif hasattr(x, "dtype") or isinstance(x, float) or (isinstance(x, list) and not _is_shape(tuple(x))):
        return False, [as_array(x, "x")], [False]
    raise ValueError(f"x is {x!r}: give an array, a shape such as (4, 5), or a tuple of arrays and shapes")


def _is_shape(x):
    return isinstance(x, tuple) and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in x)


def _shape(x):
    return tuple(int(n) for n in x)


def as_array(x, name):
    """x as a NumPy array, in double precision if it holds floats. Raises ValueError for what is no array of numbers."""
    if is_torch(x):
        raise ValueError(f"{name} is a torch tensor: give a NumPy array, {name}.numpy()")
    try:
        array = np.array(to_host(x))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} is no array of real numbers but {type(x).__name__} of {array.dtype}: give a NumPy array"
        )
    return array.astype("float64") if array.dtype.kind == "f" else array


def not_checked(name, part):
    """The remark on an input that has no gradient to check."""
    if not isinstance(part, np.ndarray):
        return f"{name} is not checked: a plain number ({type(part).__name__}); give np.array({part}) to check it"
    if not part.size:
        return f"{name} is not checked: it is empty, of shape {part.shape}"
    if part.dtype.kind == "b":
        return f"{name} is not checked: truth values (bool); give floats to check it"
    return f"{name} is not checked: whole numbers ({part.dtype}); give floats to check it"


class _Broken(Exception):
    """A backward that does not keep the contract of nn/layer.py."""


class _Inputs(Layer):
    """Holds arrays as weights x0, x1, ..., so that gradients with respect to inputs are checked like any other."""

    def __init__(self, arrays):
        for name, array in arrays.items():
            setattr(self, name, Weight(array.shape, lambda rng, shape, fan_in, array=array: rng.array(array)))


class _Trial:
    """A layer as an objective: the value Σ w y with fixed random weights w, whose gradient in y is w."""

    def __init__(self, layer, several, parts, filled, rng_seed, seed):
        self.layer, self.several, self.parts, self.rng_seed, self.seed = layer, several, parts, rng_seed, seed
        self.single = False  # whether outputs or dx turned out to have single precision where x had double
        floats = {f"x{i}": part for i, part in enumerate(parts) if getattr(part, "dtype", np.dtype(int)).kind == "f"}
        fixed = [i for i, part in enumerate(parts) if f"x{i}" not in floats or not part.size]
        self.notes = tuple(not_checked(f"x{i}", parts[i]) for i in fixed)
        self.inputs = _Inputs(floats)
        self.params = Parameters(Rng(seed, "float64"), layer=layer, input=self.inputs)
        self.data = [self.params.slices()[f"input.{name}"] for name in floats]
        self.still = [where for name, where in zip(floats, self.data) if not filled[int(name[1:])]]

    def check(self, label, method="auto", mode="auto", cross_check=True, together=()):
        """The GradReport of this mode: first the numbers, then the contract."""
        if not self.params.theta.size:
            reason = "; ".join(self.notes) or "the layer has no weights, and x no entries"
            return GradReport.failure(label, self.seed, f"there is nothing to check: {reason}")
        with _moved(self, self.params, together, self.seed, label, self.data, self.still) as (check, problem):
            report = _compare(check, problem, method, mode, cross_check)
            report.notes = self.notes + report.notes
            if report:
                broken = self.broken_contract()
                report.passed, report.problem = not broken, broken or report.problem
                report.notes += () if broken else self.in_single_precision()
            return report

    def __call__(self, learn=True, inputs=True):
        x = self.x()
        before = [np.copy(part) for part in x]
        outputs, backward = self.forward(x)
        w = self.d_outputs(outputs)
        if self.params.theta.dtype.kind != "c":  # the complex step needs the value alone
            for i, dx in self.backward(backward, w, x, learn, inputs):
                self.inputs.__dict__[f"dx{i}"] += dx
        if not all(map(unchanged, x, before)):
            raise _Broken("forward or backward changed x: it must leave x as it is")
        return sum((part * output).sum() for part, output in zip(w, outputs))

    def x(self):
        return [getattr(self.inputs, f"x{i}", part) for i, part in enumerate(self.parts)]

    def forward(self, x, stream=0):
        """The outputs, in a tuple even if there is one, and backward. stream: another one draws another dropout mask."""
        single = self.params.theta.dtype == np.float32
        rng = None
        if self.rng_seed is not None:
            rng = Rng((self.rng_seed, stream) if stream else self.rng_seed, "float32" if single else "float64")
        returned = self.layer.forward(tuple(x) if self.several else x[0], rng)
        if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
            raise _Broken("forward must return two things, the output and the function backward")
        y, backward = returned
        outputs = tuple(y) if isinstance(y, (tuple, list)) else (y,)
        for output in outputs:
            if not isinstance(output, (int, float, complex, np.generic, np.ndarray)):
                what = "a torch tensor" if is_torch(output) else type(output).__name__
                raise _Broken(f"forward must return a NumPy array, or a tuple of them, and returned {what}")
            if np.iscomplexobj(output) and self.params.theta.dtype.kind != "c":
                raise _Broken("forward returns complex numbers: return real and imaginary part as two arrays")
        self.single = self.single or (not single and any(map(is_single, outputs)))
        self.kind = tuple if isinstance(y, tuple) else list if isinstance(y, list) else None
        return outputs, backward

    def backward(self, backward, w, x, learn=True, inputs=True):
        """Runs backward on the gradients w of the outputs. Returns (i, dx) for each input that is checked."""
        dy = [part.copy() for part in w]
        try:
            dx = backward(self.kind(dy) if self.kind else dy[0], learn=learn, inputs=inputs)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error) or error.__traceback__.tb_next:
                raise
            raise _Broken("backward must take (dy, learn=True, inputs=True)") from error
        except ValueError as error:  # mostly shapes that do not fit, such as a sum over the batch left out
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise _Broken(f"backward failed in line {line.lineno} of {line.filename}: {error}") from error
        if not all(map(unchanged, dy, w)):
            raise _Broken("backward changed dy: it must leave dy as it is")
        if not inputs:
            return []
        if self.several and not isinstance(dx, (tuple, list)):
            raise _Broken(f"backward must return a tuple of {len(x)} gradients, one for each input")
        found = []
        for i, dx_part in enumerate(dx if self.several else (dx,)):
            if f"dx{i}" in self.inputs.__dict__:
                if dx_part is None and self.several:  # no gradient: then the output must not depend on it
                    dx_part = np.zeros_like(x[i])
                shape = None if dx_part is None else np.shape(dx_part)
                if shape != x[i].shape:
                    raise _Broken(f"backward returned dx of shape {shape} for x {x[i].shape}")
                if np.iscomplexobj(dx_part) and self.params.theta.dtype.kind != "c":
                    raise _Broken("backward returned complex numbers for a real x: take their real part")
                self.single = self.single or (is_single(dx_part) and not is_single(x[i]))
                found.append((i, dx_part))
        if len(found) < sum(f"dx{i}" in self.inputs.__dict__ for i in range(len(x))):
            raise _Broken(f"backward must return a tuple of {len(x)} gradients, one for each input")
        return found

    def d_outputs(self, outputs):
        rng = Rng((self.seed, OUTPUT), "float32" if self.params.theta.dtype == np.float32 else "float64")
        return [rng.normal(np.shape(output)) for output in outputs]

    def broken_contract(self):
        """What backward does wrong beside its numbers, or "": it must add to dW, and do nothing when not learning."""
        grad, buffers = self.params.grad, self.params.buffers
        before = buffers.copy()
        own = [where for name, where in self.params.slices().items() if name.startswith("layer.")]

        def run(left_over=0, **options):
            grad.fill(left_over)
            buffers[...] = before
            self(**options)
            return grad.copy()

        once = run()
        self()
        if not same(grad, 2 * once):
            return "backward overwrites dW: it must add (self.dW += ...), for a layer may run twice before a step"
        no_inputs = run(inputs=False)
        if not all(same(no_inputs[where], once[where]) for where in own):
            return "backward(inputs=False) gives another dW: only dx may be left out"
        frozen = run(learn=False)
        if any(np.any(frozen[where]) for where in own) or not unchanged(before, buffers):
            return "backward(learn=False) changes dW or a buffer: a frozen network must stay as it is"
        run(learn=False)
        return self.disturbed_by_another_run()

    def disturbed_by_another_run(self):
        """What is wrong if the layer runs on other data between a forward and its backward, or ""."""
        x, before = self.x(), self.params.buffers.copy()

        def run(between):
            self.params.buffers[...] = before
            outputs, backward = self.forward(x)
            kept = [np.copy(output) for output in outputs]
            later = between()
            if not all(map(unchanged, outputs, kept)):
                raise _Broken("a later forward changed the output of an earlier one: return a new array each time")
            self.params.grad.fill(0)
            dx = [part for _, part in self.backward(backward, self.d_outputs(outputs), x)]
            return self.params.grad.copy(), dx, later

        def other(data):
            with np.errstate(all="ignore"):
                try:
                    return self.forward(data, stream=1)
                except Exception:  # other data may not be to the layer's liking, its own are
                    return self.forward(x, stream=1)

        alone, dx_alone, _ = run(lambda: None)
        dx_alone = [np.copy(part) for part in dx_alone]
        for data in ([another(part) for part in x], [negative(part) for part in x]):
            try:
                disturbed, dx, (outputs, backward) = run(lambda: other(data))
            except _Broken as error:
                return ON_SELF if "dx of shape" in str(error) or "backward failed" in str(error) else str(error)
            except Exception:
                return ON_SELF
            if not same(alone, disturbed) or not all(map(same, dx_alone, dx)):
                return ON_SELF
            with np.errstate(all="ignore"), suppress(Exception):
                self.backward(backward, self.d_outputs(outputs), x)
            if not all(map(same, dx_alone, dx)):
                return "a later backward changed the dx of an earlier one: return a new array each time"
        return ""

    def in_single_precision(self):
        """Runs the layer in float32. Returns remarks, and raises _Broken if float64 comes out though all x were floats.

        A layer that draws its own noise when using, or that whole numbers or arrays of its maker make float64, is told so.
        """
        self.params.cast("float32")
        try:
            with np.errstate(all="ignore"):
                wide = self._returns_float64()
                held = self._cast_arrays() if wide else []
                without = self._returns_float64() if held else wide
        except Exception as error:
            return (f"it does not run in float32: {type(error).__name__}: {error}".splitlines()[0],)
        kinds = {part.dtype.kind for part in self.parts if isinstance(part, np.ndarray)}
        if not wide or not kinds & set("f"):  # whole numbers and float32 weights make float64 in any layer
            return ()
        said = f"{wide} returns float64 for float32 inputs: "
        if held and not without:
            return (f"{said}{', '.join(held)} kept float64; make it with the Rng's dtype, or as Weight(constant=True)",)
        said += (
            "a NumPy number such as np.sqrt(n), or an array made without dtype, widens it; use math.sqrt(n), and x.dtype "
            "for new arrays"
        )
        if self.rng_seed is None or kinds & set("iu"):
            return (said,)
        raise _Broken(said)

    def _returns_float64(self):
        """Which of forward and backward does, or ""."""
        x = self.x()
        outputs, backward = self.forward(x)
        dx = self.backward(backward, self.d_outputs(outputs), x)
        for who, arrays in (("forward", outputs), ("backward", [part for _, part in dx])):
            if any(getattr(part, "dtype", None) == np.float64 for part in arrays):
                return who
        return ""

    def _cast_arrays(self):
        """Casts the float64 arrays that the layer's maker gave it to float32. Returns their names."""
        names, layers = [], [self.layer]
        while layers:
            layer = layers.pop()
            layers += [child for _, child in layer.children()]
            for name, value in vars(layer).items():
                if isinstance(value, np.ndarray) and value.dtype == np.float64:
                    layer.__dict__[name] = value.astype(np.float32)
                    names.append(f"{type(layer).__name__}.{name}")
        return names


def another(part):
    """Other data from the same domain: rows taken twice and left out, so that neither entries nor statistics are kept."""
    if not isinstance(part, np.ndarray) or part.size == 0:
        return part
    if part.size == 1:
        return (0.75 * part).astype(part.dtype)
    if len(part) == 1:
        return another(part.reshape(-1)).reshape(part.shape)
    return part[[0, *range(len(part) - 1)]]


def negative(part):
    """The same with all signs changed, which changes every mask, even that of data all above 0."""
    return -part if isinstance(part, np.ndarray) and part.dtype.kind == "f" else part


def same(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-300, equal_nan=True)


def unchanged(a, b):
    return np.array_equal(a, b, equal_nan=True)


# ---- losses ----


def check_loss(f, *arrays, seed=0, name=None, **options):
    """Check f(*arrays) -> (value, gradient, ...), a gradient for each of the leading arrays. Returns a GradReport.

    The gradients may also come in a tuple of their own. Plain numbers and lists count as arrays; whole numbers that have a
    gradient are made floats. The arrays stay as they are given: they may be probabilities.
    """
    name = name or getattr(f, "__name__", "loss")
    arrays = [_loss_argument(array, i) for i, array in enumerate(arrays)]
    result = f(*arrays)
    if not isinstance(result, tuple) or len(result) < 2 or not 1 <= len(_gradients(result)) <= len(arrays):
        raise ValueError(f"{name}: expected a tuple (value, gradients of 1 to {len(arrays)} leading arrays)")
    checked, notes = {}, ()
    for i, gradient in enumerate(_gradients(result)):
        if gradient is None:
            notes += (f"x{i} is not checked: {name} returns None for its gradient",)
            continue
        array = as_array(arrays[i], f"array {i}")
        if np.shape(gradient) != array.shape:
            return GradReport.failure(
                name, seed, f"gradient {i} has shape {np.shape(gradient)}, its array {array.shape}"
            )
        if array.dtype.kind != "f":
            try:
                f(*arrays[:i], array.astype("float64"), *arrays[i + 1 :])
            except Exception:  # used as indices, say
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
