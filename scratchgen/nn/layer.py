"""What every layer must do.

A layer's forward(x, rng) returns its output and a function, backward(dy), that is written inside forward so that it can use
all of forward's variables. backward adds the gradients of the weights to dW, db, ... and returns the gradient of the input.
There is no tape and no graph: a model itself calls these functions in reverse order. parameters.py makes the arrays that
hold the weights.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..backend import Array, Rng
from ..kernels import operation, watched
from .initialisers import zeros

Backward = Callable[..., Any]  # backward(dy, learn=True, inputs=True) -> dx
F = TypeVar("F", bound=Callable[..., Any])


class Weight:
    """The declaration of a weight, made in a layer's __init__: self.W = Weight((n_in, n_out), he).

    init: makes its initial values (initialisers.py); zeros by default. fan_in: how many inputs each output adds up; by
    default, the length of the first axis. learned=False makes it a buffer, which is saved with the weights but never trained
    (running statistics). constant=True: nothing ever changes it (masks, frequencies), and a gradient check does not either.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        init: Callable[[Rng, tuple[int, ...], int], Array] = zeros,
        fan_in: int | None = None,
        learned: bool = True,
        constant: bool = False,
    ):
        self.shape, self.init = tuple(map(int, shape)), init  # products of NumPy's small integers overflow
        self.learned, self.constant = learned and not constant, constant
        self.fan_in = int(fan_in or (self.shape[0] if self.shape else 1))


def check_width(layer, x, n):
    """Raise ValueError unless x is (B, n)."""
    if x.ndim != 2 or x.shape[1] != n:
        raise ValueError(f"{layer!r} got an input of shape {x.shape}, expected (B, {n})")


def same_shape(name: str, **arrays: Array) -> None:
    """Raise ValueError unless all shapes agree. A silent broadcast is the most common mistake in a loss."""
    (first, a), *others = arrays.items()
    for other, b in others:
        if a.shape != b.shape:
            raise ValueError(f"{name}: {first} has shape {a.shape} and {other} {b.shape}; both must be equal")


def example(make: Callable[[Rng], Any], **choices: Any) -> Callable[[F], F]:
    """A decorator: the function can be `watched`, and the gradient check tries it with the arrays that make(rng) returns.

    choices: an option of the function and all its values to try, such as kind=["hinge", ...].
    """

    def mark(function):
        marked: Any = watched(function)
        marked.example = make
        marked.options = [{name: value} for name, values in choices.items() for value in values] or [{}]
        return marked

    return mark


class Layer:
    """Base of all layers. A subclass declares its weights in __init__ and defines

        forward(x, rng) -> y, backward          rng: an Rng while learning (dropout, batch statistics), None while using
        backward(dy, learn=True, inputs=True) -> dx

    learn=False: the network is frozen, so dW stays as it is. inputs=False: the caller does not need dx, and the return value
    is undefined. backward adds to dW and never overwrites it; it changes neither dy nor x.
    """

    params = None  # the Parameters that holds this layer's weights

    def forward(self, x: Any, rng: Rng | None) -> tuple[Any, Backward]:
        raise TypeError(f"{type(self).__name__} must define forward(self, x, rng)")

    def forward_twice(self, x):
        """y, backward and gradient, which a penalty on the gradient of the input needs: see double_backward.py."""
        raise ValueError(
            f"{type(self).__name__} has no forward_twice, so no gradient penalty can pass through it: "
            "use Linear, Maxout, Residual, Dropout and activations"
        )

    def __call__(self, x: Any, rng: Rng | None = None) -> Any:
        """The output alone."""
        return self.forward(x, rng)[0]

    def __setattr__(self, name, value):
        if isinstance(value, Weight):
            if hasattr(Layer, name):
                raise AttributeError(
                    f"{type(self).__name__}.{name}: every layer has an attribute of this name; rename the weight"
                )
            self.__dict__.setdefault("_weights", {})[name] = value
        elif self._is_view(name) and value is not self.__dict__.get(name):
            # layer.dW += ... comes here too, with the very array that is there already, and is allowed.
            remedy = "[...] = value to change what it holds" if name in self.__dict__["_weights"] else " += value"
            raise AttributeError(
                f"{type(self).__name__}.{name} is a view into the flat vector of its Parameters; write layer.{name}{remedy}"
            )
        else:
            # A rate that is an np.float64 would raise the precision of float32 arrays.
            object.__setattr__(self, name, value.item() if isinstance(value, np.generic) else value)

    def __getattr__(self, name: str) -> Any:
        if self._is_view(name):
            raise AttributeError(
                f"{type(self).__name__}.{name} has no values yet: make Parameters(rng, name=layer) first"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _is_view(self, name):
        """Whether this is the name of a declared weight, W, or of its gradient, dW."""
        weights = self.__dict__.get("_weights", {})
        return name in weights or (name[:1] == "d" and name[1:] in weights)

    def __getstate__(self):
        """The attributes that are copied and pickled: all except the views. The copy's Parameters makes new views."""
        return {name: value for name, value in vars(self).items() if not self._is_view(name)}

    def __repr__(self):
        weights = ", ".join(f"{name} {weight.shape}" for name, weight in self.__dict__.get("_weights", {}).items())
        inside = ", ".join(repr(child) for _, child in self.children())
        return f"{type(self).__name__}({', '.join(filter(None, [weights, inside]))})"

    def children(self):
        """The layers inside this one, as (name, layer) pairs, including those in nested lists, tuples and dicts."""
        for name, value in self.__dict__.items():
            yield from layers_in(name, value)


def layers_in(name, value):
    """(name, layer) of a layer, or of each layer in a list, tuple or dict, named like blocks.0.1."""
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, (Layer, list, tuple, dict)):
                yield from layers_in(f"{name}.{key}", item)


class Sequential(Layer):
    """Layers one after the other. backward runs through them in reverse.

    backward raises RuntimeError if the weights have changed since forward, because dx = dy Wᵀ would silently use the new W.
    """

    def __init__(self, *layers: "Layer"):
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                remedy = "; write Sequential(*layers)" if isinstance(layer, (list, tuple)) else ""
                remedy = f"; write {layer.__name__}(...)" if isinstance(layer, type) else remedy
                raise ValueError(f"Sequential takes layers, but number {i} is {layer!r}{remedy}")
        self.layers = layers

    @operation
    def forward(self, x, rng):
        check, backs = self.same_weights(), []
        for layer in self.layers:
            x, back = layer.forward(x, rng)
            if isinstance(x, (tuple, list)):
                raise ValueError(
                    f"Sequential cannot chain {layer!r}: it returned {len(x)} arrays, but Sequential passes on only one; "
                    "write a layer of your own that calls it and uses each array"
                )
            backs.append(back)
        return x, chained(backs, x, check)

    def forward_twice(self, x):  # its four sweeps: see double_backward.py
        check, backs, gradients, x_0 = self.same_weights(), [], [], x
        for layer in self.layers:
            x, back, layer_gradient = layer.forward_twice(x)
            backs.append(back)
            gradients.append(layer_gradient)
        y = x

        def gradient(u):  # backwards
            check(y, u)
            doubles = []
            for layer_gradient in reversed(gradients):
                u, double = layer_gradient(u)
                doubles.insert(0, double)

            def double_backward(v, learn=True, inputs=True):
                check(x_0, v)
                curved = []
                for i, double in enumerate(doubles):  # forwards, with v in the place of x
                    v, dx = double(v, learn, inputs or i > 0)
                    curved.append(dx)
                d = None
                for i in reversed(range(len(backs))):  # backwards once more, for the f″ term of each layer
                    if d is not None:
                        d = backs[i](d, learn, inputs or i > 0)
                    if curved[i] is not None:
                        d = curved[i] if d is None else d + curved[i]
                return v, d

            return u, double_backward

        return y, chained(backs, y, check), gradient

    def same_weights(self):
        """check(y, dy), which backward calls first: it raises an error if the weights have changed or dy does not fit y."""
        params, version = self.params, self.params and self.params.version

        def check(y, dy):
            if params and params.version != version:
                raise RuntimeError("the weights have changed since forward: call forward again before backward")
            if dy.shape != y.shape:
                raise ValueError(f"backward got dy of shape {dy.shape} for an output of shape {y.shape}")

        return check

    def children(self):
        return [(str(i), layer) for i, layer in enumerate(self.layers)]


def chained(backs, y, check):
    """The backward of several layers in a row, made from the backward of each."""

    def backward(dy, learn=True, inputs=True):
        check(y, dy)
        for i in reversed(range(len(backs))):
            dy = backs[i](dy, learn, inputs or i > 0)
        return dy

    return backward
