"""A network for the page: its layers, with their attributes, as JSON, and all weights in one string of float32 numbers.

layers.js has one function for each layer that it knows, FORWARD.Linear and so on. So that file says what can be exported.
"""

import base64
import functools
import re
from pathlib import Path

import numpy as np

from ...backend import UsageError
from ...nn.layer import Layer

HERE = Path(__file__).parent
PACKAGE = __package__.partition(".")[0] + "."


def source(name):
    """The text of one of the page's files."""
    return (HERE / name).read_text(encoding="utf-8")


@functools.cache  # asked for every layer
def known(table, name):
    """The names in a table of a script: those of the layers that FORWARD and INVERSE in layers.js have."""
    return set(re.findall(rf"^(?:{table})\.(\w+) =", source(name), re.MULTILINE))


class Numbers:
    """All arrays of the page one after the other, as float32 in base64."""

    def __init__(self):
        self.parts, self.size = [], 0

    def add(self, array, **more):
        """Where the array stands among the numbers, and its shape."""
        array = np.ascontiguousarray(array, "<f4")
        self.parts.append(array.tobytes())
        self.size += array.size
        return {"at": self.size - array.size, "shape": list(array.shape)} | more

    def rows(self, x):
        """The same for the rows (n, D) of a batch, which the page opens as a matrix."""
        return self.add(x, rows=True)

    def __str__(self):
        return base64.b64encode(b"".join(self.parts)).decode("ascii")


def exported(layer, numbers):
    """A layer as JSON: its type, its attributes, and those of the layers inside it; the weights go to numbers.

    Raises UsageError for a layer that the page lacks.
    """
    kind = type(layer)
    if not kind.__module__.startswith(PACKAGE) or kind.__name__ not in known("FORWARD|INVERSE", "layers.js"):
        raise UsageError(
            f"the page has no layer {kind.__name__}; it can show models of the layers in uses/explore/layers.js"
        )
    found = {"type": kind.__name__}
    for name, value in vars(layer).items():
        if name in layer.__dict__.get("_weights", {}):
            found[name] = numbers.add(value)
        elif name[0] != "_" and name != "params" and not layer._is_view(name):
            found |= attribute(name, value, numbers)
    return found


def attribute(name, value, numbers):
    """{name: value} as JSON, or {} for what is no layer, number, text, or list of these."""
    if isinstance(value, Layer):
        return {name: exported(value, numbers)}
    if isinstance(value, (list, tuple)):
        items = [attribute(name, item, numbers) for item in value]
        return {name: [item[name] for item in items]} if all(items) else {}
    return {name: value} if value is None or isinstance(value, (bool, int, float, str)) else {}
