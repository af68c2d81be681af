"""Layers, losses and optimizers: the parts of every network. Each layer and each loss has its backward pass beside it."""

from . import distributions, initialisers, losses, schedules
from .activations import ACTIVATIONS, ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh, sigmoid, softplus
from .double_backward import Gradient, between, gradient_penalty
from .embeddings import Concat, Embedding, TimeEmbedding
from .initialisers import INITIALISERS
from .layer import Layer, Sequential, Weight
from .layers import Dropout, Linear, Maxout, Residual, log_softmax, log_sum_exp, mlp, one_hot
from .losses import (
    absolute_error,
    bernoulli_nll,
    binary_cross_entropy,
    gaussian_nll,
    hinge,
    kl_gaussians,
    kl_standard_normal,
    least_squares,
    loss_D,
    loss_G,
    minimax,
    softmax_cross_entropy,
    squared_error,
    wasserstein,
)
from .norms import BatchNorm, LayerNorm, RunningMoments
from .optim import EMA, SGD, Adam, AdamW, RMSProp, clip_by_norm, clip_weights
from .parameters import Parameters

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "EMA",
    "GELU",
    "INITIALISERS",
    "SGD",
    "Adam",
    "AdamW",
    "BatchNorm",
    "Concat",
    "Dropout",
    "Embedding",
    "Gradient",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Maxout",
    "Parameters",
    "RMSProp",
    "ReLU",
    "Residual",
    "RunningMoments",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "TimeEmbedding",
    "Weight",
    "absolute_error",
    "bernoulli_nll",
    "between",
    "binary_cross_entropy",
    "clip_by_norm",
    "clip_weights",
    "distributions",
    "gaussian_nll",
    "gradient_penalty",
    "hinge",
    "initialisers",
    "kl_gaussians",
    "kl_standard_normal",
    "least_squares",
    "log_softmax",
    "log_sum_exp",
    "loss_D",
    "loss_G",
    "losses",
    "minimax",
    "mlp",
    "one_hot",
    "schedules",
    "sigmoid",
    "softmax_cross_entropy",
    "softplus",
    "squared_error",
    "wasserstein",
]
