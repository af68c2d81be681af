"""simcupy.linalg. Where NumPy raises LinAlgError CuPy returns nan: it would have to wait to know."""

import numpy as np

from .calls import Device, make, matmul, run_bound
from .counters import launch
from .rules import SIGNATURES, bind, missing

LinAlgError = np.linalg.LinAlgError


def _function(name):
    def call(*args, **kwargs):
        bound = bind("linalg", name, args, kwargs)
        for value in bound.args[: 1 + (name in ("solve", "lstsq"))]:
            if not isinstance(value, Device):
                raise TypeError(f"linalg.{name}: Unsupported type {type(value)}")
        try:
            return run_bound(f"linalg.{name}", getattr(np.linalg, name), bound)
        except LinAlgError:
            if name not in ("cholesky", "inv", "solve"):
                raise
            launch(f"linalg.{name}")
            return make(np.full_like(bound.args[-1]._values, np.nan))

    call.__name__ = name
    return call


globals().update({name: _function(name) for name in SIGNATURES["linalg"]}, matmul=matmul)


def __getattr__(name):
    raise missing("simcupy.linalg", name)
