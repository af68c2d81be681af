"""scratchgen: deep generative models in plain NumPy or CuPy, with every gradient written by hand."""

from .backend import Rng, UsageError, array_module, stop, to_host
from .check.flow import check_flow
from .check.gradcheck import check_layer, check_loss, gradcheck
from .data import load
from .kernels.native import compiled_kernels
from .models.base import Model
from .nn.layer import Layer, Sequential, Weight
from .nn.parameters import Parameters
from .train.fit import fit

__version__ = "0.1.0"
__all__ = [
    "Layer",
    "Model",
    "Parameters",
    "Rng",
    "Sequential",
    "UsageError",
    "Weight",
    "array_module",
    "check_flow",
    "check_layer",
    "check_loss",
    "compiled_kernels",
    "fit",
    "gradcheck",
    "load",
    "stop",
    "to_host",
]
