"""scratchgen: deep generative models in plain NumPy or CuPy, with every gradient written by hand."""

from .backend import Rng, UsageError, array_module, stop, to_host
from .check_flow import check_flow
from .gradcheck import check_layer, check_loss, gradcheck
from .layer import Layer, Sequential, Weight
from .model import Model
from .parameters import Parameters

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
    "gradcheck",
    "stop",
    "to_host",
]
