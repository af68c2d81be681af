"""simcupy.random: CuPy's Generator, with numbers from NumPy's. It has no normal, permutation, choice or shuffle."""

import numpy as np

from .calls import Device, make, unwrap
from .counters import launch
from .rules import SIGNATURES, bind, missing


class XORWOW:
    def __init__(self, seed=None, *, size=-1):
        self.seed = seed


class Philox4x3210(XORWOW):
    pass


class MRG32k3a(XORWOW):
    pass


class Generator:
    def __init__(self, bit_generator):
        if not isinstance(bit_generator, XORWOW):
            raise TypeError(f"a bit generator of simcupy.random is wanted, not {type(bit_generator)}")
        self._host = np.random.Generator(np.random.PCG64(bit_generator.seed))

    def __getattr__(self, name):
        raise missing("simcupy.random.Generator", name)


def default_rng(seed=None):
    return Generator(XORWOW(seed))


def _method(name):
    signature = SIGNATURES["Generator"][name]
    has_dtype = "dtype" in signature.parameters

    def draw(self, *args, **kwargs):
        bound = bind("Generator", name, (self, *args), kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        del given["self"]
        dtype, out = np.dtype(given.pop("dtype")) if has_dtype else None, given.pop("out", None)
        if has_dtype and dtype.kind == "f" and dtype.itemsize not in (4, 8):
            raise TypeError(f"{name}: Unsupported dtype {dtype}")
        if out is not None and (not isinstance(out, Device) or (has_dtype and out.dtype != dtype)):
            raise TypeError(f"{name}: out must be a device array of {dtype}")
        if out is not None and given["size"] is None:
            given["size"] = out.shape
        if name in ("standard_normal", "random", "standard_exponential", "standard_gamma", "integers"):
            given["dtype"] = dtype
        values = np.asarray(getattr(self._host, name)(**unwrap(given)))
        launch(f"random.{name}", values)
        if out is None:
            return make(values.astype(dtype) if has_dtype else values)
        out._values[...] = values
        return out

    return draw


for _name in SIGNATURES["Generator"]:
    setattr(Generator, _name, _method(_name))


def __getattr__(name):
    raise missing("simcupy.random", name)
