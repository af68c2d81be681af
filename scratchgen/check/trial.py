"""A layer as an objective for the gradient check, and a test of the contract in nn/layer.py.

gradcheck.py compares the numbers. This file runs the layer, and describes what else it does wrong.
"""

import copy
import traceback
from contextlib import suppress

import numpy as np

from ..backend import Rng, to_host
from ..nn.layer import Layer, Weight
from ..nn.parameters import Parameters
from .derivative import is_single, is_torch

# Streams of random numbers, one for each use. If w and x came from the same one, a normalising layer would have gradient 0.
MOVE, INPUT, OUTPUT = 1001, 1002, 1003

ON_SELF = (
    "backward uses what a later forward left on self: keep it in the closure (a local variable of forward, x and not "
    "self.x), because a network may run on two batches before it learns from either"
)
TOO_WIDE = "returns float64 for float32 inputs"


def layer_inputs(x, seed):
    """Whether x is several inputs, the list of its parts (arrays and numbers), and which of them were given as shapes."""
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
    """x as a NumPy array, in double precision if it holds floats. Raises ValueError if it is not an array of numbers."""
    if is_torch(x):
        raise ValueError(f"{name} is a torch tensor: give a NumPy array, {name}.numpy()")
    try:
        array = np.array(to_host(x))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} is not an array of real numbers but {type(x).__name__} of {array.dtype}: give a NumPy array"
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


class Broken(Exception):
    """Raised for a layer that does not keep the contract of nn/layer.py."""


class _Inputs(Layer):
    """Holds arrays as weights x0, x1, ..., so that gradients with respect to inputs are checked like any other."""

    def __init__(self, arrays):
        for name, array in arrays.items():
            setattr(self, name, Weight(array.shape, lambda rng, shape, fan_in, array=array: rng.array(array)))


class Trial:
    """A layer as an objective: the value Σ w y with fixed random weights w. Its gradient with respect to y is w."""

    def __init__(self, layer, several, parts, filled, rng_seed, seed):
        self.layer, self.several, self.parts, self.rng_seed, self.seed = layer, several, parts, rng_seed, seed
        self.single = False  # whether outputs or dx have single precision although x has double
        floats = {f"x{i}": part for i, part in enumerate(parts) if getattr(part, "dtype", np.dtype(int)).kind == "f"}
        fixed = [i for i, part in enumerate(parts) if f"x{i}" not in floats or not part.size]
        self.notes = tuple(not_checked(f"x{i}", parts[i]) for i in fixed)
        self.inputs = _Inputs(floats)
        self.params = Parameters(Rng(seed, "float64"), layer=layer, input=self.inputs)
        self.data = [self.params.slices()[f"input.{name}"] for name in floats]
        self.still = [where for name, where in zip(floats, self.data) if not filled[int(name[1:])]]

    def nothing_to_check(self):
        """Why there is nothing to check, or ""."""
        if self.params.theta.size:
            return ""
        return f"there is nothing to check: {'; '.join(self.notes) or 'the layer has no weights, and x has no entries'}"

    def first_call(self):
        """Run the layer once, because the first batch may set weights (ActNorm), before anything is compared."""
        with np.errstate(all="ignore"), suppress(Exception):
            first = copy.deepcopy(self)
            first.forward([np.copy(part) if isinstance(part, np.ndarray) else part for part in self.x()])
            now, then = first.params, self.params
            if not (unchanged(now.theta, then.theta) and unchanged(now.buffers, then.buffers)):
                vars(self).update(vars(first))

    def __call__(self, learn=True, inputs=True):
        x = self.x()
        before = [np.copy(part) for part in x]
        outputs, backward = self.forward(x)
        w = self.d_outputs(outputs)
        if self.params.theta.dtype.kind != "c":  # the complex step needs only the value
            for i, dx in self.backward(backward, w, x, learn, inputs):
                self.inputs.__dict__[f"dx{i}"] += dx
        if not all(map(unchanged, x, before)):
            raise Broken("forward or backward changed x: it must leave x as it is")
        return sum((part * output).sum() for part, output in zip(w, outputs))

    def x(self):
        return [getattr(self.inputs, f"x{i}", part) for i, part in enumerate(self.parts)]

    def forward(self, x, stream=0):
        """A tuple of the outputs, even if there is only one, and backward. Another stream draws another dropout mask."""
        single = self.params.theta.dtype == np.float32
        rng = None
        if self.rng_seed is not None:
            rng = Rng((self.rng_seed, stream) if stream else self.rng_seed, "float32" if single else "float64")
        returned = self.layer.forward(tuple(x) if self.several else x[0], rng)
        if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
            raise Broken("forward must return two things, the output and the function backward")
        y, backward = returned
        outputs = tuple(y) if isinstance(y, (tuple, list)) else (y,)
        for output in outputs:
            if not isinstance(output, (int, float, complex, np.generic, np.ndarray)):
                what = "a torch tensor" if is_torch(output) else type(output).__name__
                raise Broken(f"forward must return a NumPy array, or a tuple of them, but it returned {what}")
            if np.iscomplexobj(output) and self.params.theta.dtype.kind != "c":
                raise Broken("forward returns complex numbers: return real and imaginary part as two arrays")
        self.single = self.single or (not single and any(map(is_single, outputs)))
        self.kind = tuple if isinstance(y, tuple) else list if isinstance(y, list) else None
        return outputs, backward

    def backward(self, backward, w, x, learn=True, inputs=True):
        """(i, dx) for each input that is checked, from backward on the gradients w of the outputs."""
        dy = [part.copy() for part in w]
        try:
            dx = backward(self.kind(dy) if self.kind else dy[0], learn=learn, inputs=inputs)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error) or error.__traceback__.tb_next:
                raise
            raise Broken("backward must take (dy, learn=True, inputs=True)") from error
        except ValueError as error:  # mostly wrong shapes, such as after a missing sum over the batch
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise Broken(f"backward failed in line {line.lineno} of {line.filename}: {error}") from error
        if not all(map(unchanged, dy, w)):
            raise Broken("backward changed dy: it must leave dy as it is")
        if not inputs:
            return []
        if self.several and not isinstance(dx, (tuple, list)):
            raise Broken(f"backward must return a tuple of {len(x)} gradients, one for each input")
        found = []
        for i, dx_part in enumerate(dx if self.several else (dx,)):
            if f"dx{i}" in self.inputs.__dict__:
                if dx_part is None and self.several:  # no gradient: then the output must not depend on it
                    dx_part = np.zeros_like(x[i])
                shape = None if dx_part is None else np.shape(dx_part)
                if shape != x[i].shape:
                    raise Broken(f"backward returned dx of shape {shape} for x {x[i].shape}")
                if np.iscomplexobj(dx_part) and self.params.theta.dtype.kind != "c":
                    raise Broken("backward returned complex numbers for a real x: take their real part")
                self.single = self.single or (is_single(dx_part) and not is_single(x[i]))
                found.append((i, dx_part))
        if len(found) < sum(f"dx{i}" in self.inputs.__dict__ for i in range(len(x))):
            raise Broken(f"backward must return a tuple of {len(x)} gradients, one for each input")
        return found

    def why_calls_differ(self):
        """Why two calls of forward on the same data, with equal rngs, differ."""
        with np.errstate(all="ignore"):
            try:
                global_noise = np.random.get_state()[1:3]  # noqa: NPY002
                twins = copy.deepcopy(self), copy.deepcopy(self)
                first, second = (twin.forward(twin.x())[0] for twin in twins)
                after = np.random.get_state()[1:3]  # noqa: NPY002
                names = _differences(self.layer, twins[0].layer)
            except Exception:  # something that cannot be copied, such as a lock
                return "two calls of forward differ: draw all noise from its rng, and keep nothing on self"
        if global_noise[1] != after[1] or not np.array_equal(global_noise[0], after[0]):
            return "two calls of forward differ: it draws from np.random; draw from the rng that forward gets"
        if not all(map(unchanged, first, second)):
            return "two calls of forward differ: it draws noise of its own; draw from the rng that forward gets"
        what = ", ".join(names) or "something on self"
        return (
            f"two calls of forward differ: it changes {what}, which the next call uses; make a state an input and an "
            "output instead"
        )

    def why_weights_change(self):
        return (
            "forward changes the weights: only an optimizer may change them (or forward, once, for its first batch, with a "
            "flag on self that says so)"
        )

    def d_outputs(self, outputs):
        rng = Rng((self.seed, OUTPUT), "float32" if self.params.theta.dtype == np.float32 else "float64")
        return [rng.normal(np.shape(output)) for output in outputs]

    def broken_contract(self):
        """What backward does wrong apart from its numbers, or "". It must add to dW, and with learn=False change nothing."""
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
            return "backward overwrites dW: it must add (self.dW += ...), because a layer may run twice before a step"
        no_inputs = run(inputs=False)
        if not all(same(no_inputs[where], once[where]) for where in own):
            return "backward(inputs=False) gives a different dW: it may leave out only dx"
        buffers[...] = before
        self.forward(self.x())
        moved = [name for name, where in self.buffer_slices() if not unchanged(before[where], buffers[where])]
        if moved:
            return f"forward changes {', '.join(moved)} (learned=False): update it in backward, under `if learn:`"
        frozen = run(learn=False)
        if any(np.any(frozen[where]) for where in own) or not unchanged(before, buffers):
            return "backward(learn=False) changes dW or a buffer: a frozen network must not change"
        run(learn=False)
        return self.disturbed_by_another_run()

    def buffer_slices(self):
        places = self.params._places
        return [(name.removeprefix("layer."), where) for name, _, _, weight, where in places if not weight.learned]

    def disturbed_by_another_run(self):
        """What is wrong if the layer runs on other data between a forward and its backward, or ""."""
        x, before = self.x(), self.params.buffers.copy()

        def run(between):
            self.params.buffers[...] = before
            outputs, backward = self.forward(x)
            kept = [np.copy(output) for output in outputs]
            later = between()
            if not all(map(unchanged, outputs, kept)):
                raise Broken("a later forward changed the output of an earlier one: return a new array each time")
            self.params.grad.fill(0)
            dx = [part for _, part in self.backward(backward, self.d_outputs(outputs), x)]
            return self.params.grad.copy(), dx, later

        def other(data):
            with np.errstate(all="ignore"):
                try:
                    return self.forward(data, stream=1)
                except Exception:  # the layer may refuse other data, but not its own
                    return self.forward(x, stream=1)

        alone, dx_alone, _ = run(lambda: None)
        dx_alone = [np.copy(part) for part in dx_alone]
        for data in self.other_data(x):
            try:
                disturbed, dx, (outputs, backward) = run(lambda: other(data))
            except Broken as error:
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

    def other_data(self, x):
        """Other inputs that the layer may be run on: other rows, other signs, other numbers, fewer rows and more."""
        rng = np.random.default_rng(self.seed)
        yield [another(part) for part in x]
        yield [negative(part) for part in x]
        yield [fresh(part, rng) for part in x]
        sizes = {len(part) for part in x if np.ndim(part)}
        for rows in (np.arange(max(sizes, default=0) // 2), np.arange(2 * max(sizes, default=0)) // 2):
            if len(sizes) == 1 and len(rows):
                yield [part[rows] if np.ndim(part) else part for part in x]

    def in_single_precision(self):
        """Remarks on a run in float32. Raises Broken if the layer returns float64.

        It is only a remark if whole numbers in x or arrays given to the layer may be the reason, or if the layer is used
        (rng None) and may draw noise of its own.
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
        said = f"{wide} {TOO_WIDE}: "
        if held and not without:
            return (f"{said}{', '.join(held)} is float64; make it with the Rng's dtype, or as Weight(constant=True)",)
        said += (
            "a NumPy number such as np.sqrt(n), or an array made without dtype, widens it; use math.sqrt(n), and x.dtype "
            "for new arrays"
        )
        if self.rng_seed is None or kinds & set("iu"):
            return (said,)
        raise Broken(said)

    def _returns_float64(self):
        """ "forward" or "backward" if it returns float64, else ""."""
        x = self.x()
        outputs, backward = self.forward(x)
        dx = self.backward(backward, self.d_outputs(outputs), x)
        for who, arrays in (("forward", outputs), ("backward", [part for _, part in dx])):
            if any(getattr(part, "dtype", None) == np.float64 for part in arrays):
                return who
        return ""

    def _cast_arrays(self):
        """Names of the float64 arrays that were given to the layer. They are cast to float32."""
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
    """Other data from the same domain: the first row twice and no last one, so entries and statistics change."""
    if not isinstance(part, np.ndarray) or part.size == 0:
        return part
    if part.size == 1:
        return (0.75 * part).astype(part.dtype)
    if len(part) == 1:
        return another(part.reshape(-1)).reshape(part.shape)
    return part[[0, *range(len(part) - 1)]]


def negative(part):
    """The same numbers with all signs changed. This changes every mask, even if all numbers are above 0."""
    return -part if isinstance(part, np.ndarray) and part.dtype.kind == "f" else part


def fresh(part, rng):
    """Other numbers of the same kind and between the same limits. If all are equal: smaller ones, or 1 instead of 0."""
    if not isinstance(part, np.ndarray) or part.size == 0:
        return part
    if part.dtype.kind == "b":
        return ~part if part.all() or not part.any() else rng.permuted(part)
    if not np.isfinite(part).all():
        return part
    low, high = part.min(), part.max()
    if part.dtype.kind == "f":
        u = rng.uniform(0.1, 0.9, part.shape)
        return low + u * (high - low) if low < high else low * (0.5 + u / 2) if low else u
    if low == high:
        low, high = (1, 1) if low == 0 else (0, low - 1) if low > 0 else (low + 1, 0)
    return rng.integers(int(low), int(high), part.shape, endpoint=True).astype(part.dtype)


def _differences(a, b, path=""):
    """Names of what differs in two copies of a layer: weights, buffers, and anything else on self."""
    names = [f"self.{path}{name}" for name in vars(b) if name not in vars(a)]
    for name, value in vars(a).items():
        gradient = a._is_view(name) and name not in a.__dict__["_weights"]
        if name not in ("params", "_weights") and not gradient and not isinstance(value, Layer):
            with suppress(Exception):
                names += [] if unchanged(value, vars(b).get(name)) else [f"self.{path}{name}"]
    for (name, child), (_, other) in zip(a.children(), b.children()):
        names += _differences(child, other, f"{path}{name}.")
    return names


def same(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-300, equal_nan=True)


def unchanged(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")
