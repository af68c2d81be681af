"""The models that benchmark.py measures, as PyTorch's own users write them.

A peer is a function (model, device, adam, compiled) -> step(x): one training step on a batch x (B, n_features). model holds
the settings, adam is torch.optim.Adam with its options, and compiled is torch.compile or leaves the network as it is.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def mlp(*widths):
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class VAE(nn.Module):
    """forward(x) is the loss, without the constant of the Gaussian decoder. eps is given in tests only."""

    def __init__(self, model):
        super().__init__()
        self.encoder = mlp(model.n_features, *model.hidden, 2 * model.n_latent)
        self.decoder = mlp(model.n_latent, *reversed(model.hidden), model.n_features)
        self.likelihood, self.c = model.likelihood, model.c

    def forward(self, x, eps=None):
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        eps = torch.randn_like(mu) if eps is None else eps
        out = self.decoder(mu + torch.exp(0.5 * log_var) * eps)
        if self.likelihood == "bernoulli":
            nll = F.binary_cross_entropy_with_logits(out, x, reduction="sum")
        else:
            nll = F.mse_loss(out, x, reduction="sum") / (2 * self.c)
        kl = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
        return (nll + kl) / len(x)


class AutoEncoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.encoder = mlp(model.n_features, *model.hidden, model.n_latent)
        self.decoder = mlp(model.n_latent, *reversed(model.hidden), model.n_features)

    def forward(self, x):
        return F.mse_loss(self.decoder(self.encoder(x)), x, reduction="sum") / len(x)


def one_loss(network, model, device, adam, compiled):
    network = network(model).to(device)
    optimizer = adam(network.parameters(), lr=model.lr)
    loss = compiled(network)

    def step(x):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def vae(*options):
    return one_loss(VAE, *options)


def autoencoder(*options):
    return one_loss(AutoEncoder, *options)


def captured(step, x):
    """The whole step(x) as one CUDA graph; Adam must be capturable."""
    fixed, side, graph = x.clone(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a few steps outside, so that everything is allocated
        for _ in range(5):
            step(fixed)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        step(fixed)

    def replay(x):
        fixed.copy_(x)
        graph.replay()

    return replay
