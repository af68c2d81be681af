"""Layers, losses, optimizers and one training step of the VAE against PyTorch, whose gradients come from autograd and
whose formulas were written by others."""

import math

import numpy as np
import pytest
import torch

from scratchgen import Parameters, Rng, Sequential
from scratchgen.models.vae import VAE
from scratchgen.nn import initialisers
from scratchgen.nn.activations import ACTIVATIONS, ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from scratchgen.nn.distributions import gaussian_log_prob
from scratchgen.nn.double_backward import gradient_penalty
from scratchgen.nn.embeddings import Concat, Embedding
from scratchgen.nn.layers import Linear, Maxout, Residual, mlp
from scratchgen.nn.losses import (
    absolute_error,
    bernoulli_nll,
    binary_cross_entropy,
    gaussian_nll,
    kl_gaussians,
    kl_standard_normal,
    softmax_cross_entropy,
    squared_error,
)
from scratchgen.nn.norms import BatchNorm, LayerNorm
from scratchgen.nn.optim import SGD, Adam, AdamW, RMSProp, clip_by_norm

nn, F = torch.nn, torch.nn.functional

B = 7


def close(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def tensor(array):
    """A float64 leaf with the same numbers and a gradient."""
    return torch.tensor(np.asarray(array), dtype=torch.float64, requires_grad=True)


def normal(*shape, seed=0):
    return Rng((seed, *shape), "float64").normal(shape)


def compare(layer, theirs, x, weights=(), learning=True):
    """Forward and backward of our layer and of a function of tensors; weights: pairs (our gradient, their tensor)."""
    y, back = layer.forward(x, Rng(0, "float64") if learning else None)
    dy = normal(*y.shape, seed=1)
    dx = back(dy)
    their_x = tensor(x)
    their_y = theirs(their_x)
    (their_y * torch.tensor(dy)).sum().backward()
    close(y, their_y)
    close(dx, their_x.grad)
    for name, weight in weights:
        close(getattr(layer, "d" + name), weight.grad)


def ready(layer):
    Parameters(Rng(0, "float64"), layer=layer)
    return layer


# Layers.


def test_linear():
    layer = ready(Linear(3, 4))
    W, b = tensor(layer.W), tensor(layer.b)
    compare(layer, lambda x: F.linear(x, W.T, b), normal(B, 3), [("W", W), ("b", b)])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ReLU(), F.relu),
        (LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
        (ELU(0.7), lambda x: F.elu(x, 0.7)),
        (Tanh(), torch.tanh),
        (Sigmoid(), torch.sigmoid),
        (Softplus(), lambda x: F.softplus(x, threshold=100)),
        (SiLU(), F.silu),
        (GELU(), lambda x: F.gelu(x, approximate="tanh")),
    ],
)
def test_activation(ours, theirs):
    compare(ours, theirs, 3 * normal(B, 5))
    compare(ours, theirs, np.array([[-1000.0, -50, -1, 1, 50, 1000]]))


@pytest.mark.parametrize("learning", [True, False])
def test_batch_norm(learning):
    layer, theirs = ready(BatchNorm(4)), nn.BatchNorm1d(4, dtype=torch.float64)
    layer.gamma[...], layer.beta[...] = normal(4), normal(4, seed=2)
    layer.running_mean[...], layer.running_variance[...] = normal(4, seed=3), 0.5 + normal(4, seed=4) ** 2
    theirs.load_state_dict(
        {
            "weight": torch.tensor(layer.gamma),
            "bias": torch.tensor(layer.beta),
            "running_mean": torch.tensor(layer.running_mean),
            "running_var": torch.tensor(layer.running_variance),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    theirs.train(learning)
    compare(layer, theirs, normal(B, 4, seed=5), [("gamma", theirs.weight), ("beta", theirs.bias)], learning)
    close(layer.running_mean, theirs.running_mean)
    close(layer.running_variance, theirs.running_var)


def test_layer_norm():
    layer = ready(LayerNorm(5))
    layer.gamma[...], layer.beta[...] = normal(5), normal(5, seed=2)
    gamma, beta = tensor(layer.gamma), tensor(layer.beta)
    compare(layer, lambda x: F.layer_norm(x, (5,), gamma, beta), normal(B, 5), [("gamma", gamma), ("beta", beta)])


def test_embedding():
    layer, labels = ready(Embedding(4, 3)), np.array([0, 2, 2, 3])
    W = tensor(layer.W)
    y, back = layer.forward(labels, None)
    dy = normal(4, 3, seed=1)
    back(dy)
    their_y = F.embedding(torch.tensor(labels), W)
    (their_y * torch.tensor(dy)).sum().backward()
    close(y, their_y)
    close(layer.dW, W.grad)


def test_maxout_and_residual():
    layer = ready(Maxout(3, 4, n_pieces=3))
    W, b = tensor(layer.pieces.W), tensor(layer.pieces.b)
    compare(layer, lambda x: (x @ W + b).reshape(-1, 4, 3).max(dim=2).values, normal(B, 3))
    close(layer.pieces.dW, W.grad)
    layer = ready(Residual(mlp([3, 5, 3], Tanh)))
    first, _, last = layer.body.layers
    W, V = tensor(first.W), tensor(last.W)
    compare(layer, lambda x: x + torch.tanh(x @ W) @ V, normal(B, 3))
    close(first.dW, W.grad)
    close(last.dW, V.grad)


def test_concat():
    x, c = normal(B, 3), normal(B, 2)
    y, back = Concat().forward((x, c), None)
    pair = tensor(x), tensor(c)
    their_y = torch.cat(pair, dim=1)
    dy = normal(B, 5, seed=1)
    (their_y * torch.tensor(dy)).sum().backward()
    close(y, their_y)
    for ours, theirs in zip(back(dy), pair):
        close(ours, theirs.grad)


def test_pytorch_initialiser_has_pytorchs_distribution():
    ours, theirs = ready(Linear(50, 2000, initialisers.pytorch)), nn.Linear(50, 2000)
    for a, b in ((ours.W, theirs.weight), (ours.b, theirs.bias)):
        b = b.detach().numpy()
        assert abs(a.std() / b.std() - 1) < 0.05 and abs(np.abs(a).max() / np.abs(b).max() - 1) < 0.01


# Losses.


def their_kl(mu_q, log_var_q, mu_p, log_var_p):
    normals = [torch.distributions.Normal(mu, torch.exp(0.5 * lv)) for mu, lv in ((mu_q, log_var_q), (mu_p, log_var_p))]
    return torch.distributions.kl_divergence(*normals).sum() / len(mu_q)


X, SOFT = normal(B, 4, seed=8), Rng(9, "float64").uniform((B, 4))
LABELS = Rng(10).integers(4, B)
LOSSES = [
    (squared_error, (X,), lambda a: F.mse_loss(a, torch.tensor(X), reduction="sum") / B, 1),
    (absolute_error, (X,), lambda a: F.l1_loss(a, torch.tensor(X), reduction="sum") / B, 1),
    (gaussian_nll, (X, 0.3), lambda a: -torch.distributions.Normal(a, 0.3**0.5).log_prob(torch.tensor(X)).sum() / B, 1),
    (
        bernoulli_nll,
        (SOFT,),
        lambda a: F.binary_cross_entropy_with_logits(a, torch.tensor(SOFT), reduction="sum") / B,
        1,
    ),
    (
        binary_cross_entropy,
        (0.9,),
        lambda a: F.binary_cross_entropy_with_logits(a, torch.full_like(a, 0.9), reduction="sum") / B,
        1,
    ),
    (softmax_cross_entropy, (LABELS,), lambda a: F.cross_entropy(a, torch.tensor(LABELS)), 1),
    (
        softmax_cross_entropy,
        (SOFT / SOFT.sum(axis=1, keepdims=True),),
        lambda a: F.cross_entropy(a, torch.tensor(SOFT / SOFT.sum(axis=1, keepdims=True))),
        1,
    ),
    (kl_standard_normal, (), lambda a, b: their_kl(a, b, torch.zeros_like(a), torch.zeros_like(a)), 2),
    (kl_gaussians, (), their_kl, 4),
]


@pytest.mark.parametrize(("ours", "rest", "theirs", "n"), LOSSES)
def test_loss(ours, rest, theirs, n):
    arrays = [normal(B, 4, seed=20 + i) for i in range(n)]
    tensors = [tensor(array) for array in arrays]
    value = theirs(*tensors)
    value.backward()
    our_value, *gradients = ours(*arrays, *rest)
    close(our_value, value)
    assert len(gradients) == n
    for gradient, leaf in zip(gradients, tensors):
        close(gradient, leaf.grad)


def test_full_gaussian():
    A = normal(3, 3)
    cov, mu, x = A @ A.T + np.eye(3), normal(3), normal(B, 3)
    theirs = torch.distributions.MultivariateNormal(torch.tensor(mu), torch.tensor(cov))
    close(gaussian_log_prob(x, mu, cov), theirs.log_prob(torch.tensor(x)))


# Optimizers.


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda p: SGD(p, 0.1, momentum=0.9), lambda w: torch.optim.SGD(w, 0.1, momentum=0.9)),
        (
            lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True),
            lambda w: torch.optim.SGD(w, 0.1, momentum=0.9, nesterov=True),
        ),
        (lambda p: RMSProp(p, 0.01, alpha=0.9), lambda w: torch.optim.RMSprop(w, 0.01, alpha=0.9)),
        (lambda p: Adam(p, 0.01), lambda w: torch.optim.Adam(w, 0.01)),
        (
            lambda p: Adam(p, 0.01, beta1=0.5, beta2=0.9, eps=1e-3),
            lambda w: torch.optim.Adam(w, 0.01, betas=(0.5, 0.9), eps=1e-3),
        ),
        (lambda p: AdamW(p, 0.01, weight_decay=0.2), lambda w: torch.optim.AdamW(w, 0.01, weight_decay=0.2)),
    ],
    ids=["momentum", "nesterov", "rmsprop", "adam", "adam with options", "adamw"],
)
def test_optimizer(ours, theirs):
    params = Parameters(Rng(0, "float64"), layer=Linear(3, 4))
    weight = tensor(params.theta.copy())
    optimizer, oracle = ours(params), theirs([weight])
    for t in range(50):
        params.grad[...] = normal(16, seed=t)
        weight.grad = torch.tensor(params.grad)
        optimizer.step()
        oracle.step()
    close(params.theta, weight)


def test_clipping():
    params = Parameters(Rng(0, "float64"), layer=Linear(3, 4))
    weight = tensor(params.theta.copy())
    params.grad[...] = normal(16)
    weight.grad = torch.tensor(params.grad.copy())
    norm = clip_by_norm(params, 1.5)
    close(norm, nn.utils.clip_grad_norm_([weight], 1.5))
    np.testing.assert_allclose(params.grad, weight.grad.numpy(), rtol=1e-6)  # they add 1e-6 to the norm, we 1e-12


# A whole model.


@pytest.mark.parametrize("settings", [{}, {"likelihood": "gaussian", "c": 0.3, "beta": 2.0}])
def test_vae_training_steps(settings):
    """Ten steps of loss, backward and Adam on the same data with the same noise end at the same weights."""
    model, batch = VAE.example(Rng(0, "float64"), hidden=(5, 4), **settings)
    x = batch["x"]
    weights = [tensor(view) for view in model.params.named().values()]
    oracle = torch.optim.Adam(weights, model.lr)

    def network(h, parts):
        for i in range(0, len(parts), 2):
            h = h @ parts[i] + parts[i + 1]
            h = F.relu(h) if i + 2 < len(parts) else h
        return h

    for step in range(10):
        eps = torch.tensor(Rng(step, "float64").normal((len(x), model.n_latent)))
        target = torch.tensor(x)
        mu, log_var = network(target, weights[:6]).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * log_var) * eps
        out = network(z, weights[6:])
        if model.likelihood == "bernoulli":
            nll = F.binary_cross_entropy_with_logits(out, target, reduction="sum") / len(x)
        else:
            nll = F.gaussian_nll_loss(out, target, torch.full_like(out, model.c), reduction="sum") / len(x)
            nll = nll + 0.5 * model.n_features * math.log(2 * math.pi)
        kl = their_kl(mu, log_var, torch.zeros_like(mu), torch.zeros_like(mu))
        oracle.zero_grad()
        (nll + model.beta * kl).backward()

        losses = model.train_step(x, Rng(step, "float64"))
        close(losses["nll"], nll)
        close(losses["kl"], kl)
        close(losses["loss"], nll + model.beta * kl)
        for name, weight in zip(model.params.slices(), weights):
            close(model.params.grad[model.params.slices()[name]], weight.grad.ravel())
        oracle.step()
    for view, weight in zip(model.params.named().values(), weights):
        close(view, weight)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_bound_of_importance_weights(likelihood):
    """By autograd of the logarithm of the mean weight itself, with no formula for its gradient."""
    settings = {"bound": "iwae", "k": 5, "likelihood": likelihood, "c": 0.3, "hidden": (), "n_latent": 3}
    model, batch = VAE.example(Rng(0, "float64"), **settings)
    x, (W, b, V, a) = torch.tensor(batch["x"]), (tensor(view) for view in model.params.named().values())
    eps = torch.tensor(Rng(2, "float64").normal((5 * len(x), 3)))
    mu, log_var = (x @ W + b).repeat(5, 1).chunk(2, dim=1)
    q = torch.distributions.Normal(mu, torch.exp(0.5 * log_var))
    z = mu + torch.exp(0.5 * log_var) * eps
    out = z @ V + a
    if likelihood == "bernoulli":
        log_p = -F.binary_cross_entropy_with_logits(out, x.repeat(5, 1), reduction="none")
    else:
        log_p = torch.distributions.Normal(out, math.sqrt(0.3)).log_prob(x.repeat(5, 1))
    prior = torch.distributions.Normal(torch.zeros_like(z), torch.ones_like(z))
    log_w = log_p.sum(dim=1) + prior.log_prob(z).sum(dim=1) - q.log_prob(z).sum(dim=1)
    loss = -(torch.logsumexp(log_w.reshape(5, len(x)), dim=0) - math.log(5)).mean()
    loss.backward()
    close(model.loss(batch["x"], Rng(2, "float64"))["loss"], loss)
    for name, weight in zip(model.params.slices(), (W, b, V, a)):
        close(model.params.grad[model.params.slices()[name]], weight.grad.ravel())


# ---- the gradient of a gradient ----

SHAPES = {
    "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2), "elu": F.elu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "softplus": F.softplus, "silu": F.silu, "gelu": lambda x: F.gelu(x, approximate="tanh"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("centre", "one_sided"), [(1.0, False), (1.0, True), (0.0, False)])
def test_gradient_penalty(name, centre, one_sided):
    """An mlp, a residual block and a Maxout, through autograd's double backward."""
    f = SHAPES[name]
    body = Sequential(Linear(5, 5), ACTIVATIONS[name](), Linear(5, 5))
    D = Sequential(mlp([3, 6, 5], ACTIVATIONS[name]), Residual(body), Maxout(5, 4, 3), Linear(4, 1))
    params = Parameters(Rng(1, "float64"), D=D)
    x, weights = normal(B, 3), [tensor(view) for view in params.named().values()]
    value, backward = gradient_penalty(D, x, centre=centre, one_sided=one_sided)
    backward(0.7)

    W1, b1, W2, b2, V1, c1, V2, c2, M, m, W3, b3 = weights
    their_x = tensor(x)
    h = f(their_x @ W1 + b1) @ W2 + b2
    h = h + f(h @ V1 + c1) @ V2 + c2
    score = (h @ M + m).reshape(B, 4, 3).amax(dim=2) @ W3 + b3
    (g,) = torch.autograd.grad(score.sum(), their_x, create_graph=True)
    excess = g.norm(dim=1) - centre
    theirs = (excess.clamp(min=0) if one_sided else excess).square().mean()
    (0.7 * theirs).backward()
    close(value, theirs)
    for where, weight in zip(params.slices().values(), weights):
        close(params.grad[where], 0 if weight.grad is None else weight.grad.ravel())
