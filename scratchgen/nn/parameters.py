"""All weights of a network in one vector theta, all gradients in a second one, grad, and all buffers in a third.

A layer's W and dW are views into these vectors. So an optimizer, a checkpoint or a gradient check handles only one
vector, for any network.
"""

import math
from typing import Any

from ..backend import Array, Rng, keep_freed_memory


class Parameters:
    """All weights of some layers as flat vectors: theta, grad (both of the same length) and buffers.

        params = Parameters(rng, encoder=encoder, decoder=decoder)

    Each layer's W, dW, ... become views into them. A layer that is used twice has one set of weights. Raises ValueError for
    a layer that already belongs to another Parameters. Code that changes theta calls `changed()`.
    """

    def __init__(self, rng: Rng, **layers: Any):
        keep_freed_memory()
        self.rng, self.version = rng, 0
        self._places = []  # (full name, layer, attribute, Weight, slice of theta or buffers)
        sizes = {True: 0, False: 0}
        found = list(self._walk(layers.items(), set()))
        for path, layer in found:
            layer.params = self
            for name, weight in layer.__dict__.get("_weights", {}).items():
                start, size = sizes[weight.learned], math.prod(weight.shape)
                sizes[weight.learned] += size
                self._places.append((f"{path}.{name}", layer, name, weight, slice(start, start + size)))
        self.theta, self.grad, self.buffers = rng.zeros(sizes[True]), rng.zeros(sizes[True]), rng.zeros(sizes[False])
        self._bind()
        for _, layer, name, weight, _ in self._places:
            getattr(layer, name)[...] = weight.init(rng, weight.shape, weight.fan_in)
            weight.init = None  # no longer needed, and a function inside another cannot be pickled

    def __setstate__(self, state):
        """Give the layers of a copy views into the copy's own vectors (Layer.__getstate__ left the old views out)."""
        vars(self).update(state)
        self._bind()

    def _walk(self, named, seen):
        for name, layer in named:
            if id(layer) in seen:
                continue
            if layer.params is not None:
                raise ValueError(f"{name}: {layer!r} already belongs to another Parameters")
            seen.add(id(layer))
            yield name, layer
            yield from ((f"{name}.{below}", child) for below, child in self._walk(layer.children(), seen))

    def _bind(self):
        for _, layer, name, weight, where in self._places:
            views = {name: self.theta, "d" + name: self.grad} if weight.learned else {name: self.buffers}
            for attribute, vector in views.items():
                layer.__dict__[attribute] = vector[where].reshape(weight.shape)

    def named(self) -> dict[str, Array]:
        """{full name: view} of every learned weight, in the order of theta."""
        return {full: getattr(layer, name) for full, layer, name, weight, _ in self._places if weight.learned}

    def named_grads(self) -> dict[str, Array]:
        """{full name: view} of the gradient of every learned weight, in the order of grad."""
        return {full: getattr(layer, "d" + name) for full, layer, name, weight, _ in self._places if weight.learned}

    def slices(self) -> dict[str, slice]:
        """{full name: slice of theta} of every learned weight."""
        return {full: where for full, _, _, weight, where in self._places if weight.learned}

    def zero_grad(self) -> None:
        self.grad.fill(0)

    def changed(self) -> None:
        """Record that theta has new values. A backward from an earlier forward will then raise RuntimeError."""
        self.version += 1

    def cast(self, dtype: Any) -> "Parameters":
        """Change the precision of everything (float64, complex128 for checks) and rebind the views. Returns self.

        An optimizer that exists already keeps the precision of its own vectors.
        """
        dtype = self.rng.xp.dtype(dtype)
        for name in ("theta", "grad", "buffers"):
            vector = getattr(self, name)
            setattr(self, name, (vector if dtype.kind == "c" else vector.real).astype(dtype))
        self.rng = self.rng.like(0, dtype)
        self._bind()
        self.changed()
        return self

    def moving_buffers(self):
        """The slices of the buffers that are not constants."""
        return [where for _, _, _, weight, where in self._places if not weight.learned and not weight.constant]

    def state(self) -> dict[str, Array]:
        """{name: live array} of what a checkpoint saves."""
        return {"theta": self.theta, "buffers": self.buffers}

    def __repr__(self):
        lines = [f"Parameters: {self.theta.size:,} numbers, {self.theta.dtype}"]
        return "\n".join(lines + [f"  {name:<24} {view.shape}" for name, view in self.named().items()])
