"""The models that benchmark.py measures, as PyTorch's own users write them.

A peer is a function (model, device, adam, compiled) -> step(x): one training step on a batch x (B, n_features). model holds
the settings, adam is torch.optim.Adam with its options, and compiled is torch.compile or leaves the network as it is.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from scratchgen.models.parts.diffusion import alpha_bars


def mlp(*widths, activation=nn.ReLU):
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), activation())]
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


class Block(nn.Module):
    def __init__(self, width, n_waves):
        super().__init__()
        self.before = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.condition = nn.Linear(n_waves, width)
        self.after = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, h, e):
        return h + self.after(self.before(h) + self.condition(e))


class DDPM(nn.Module):
    """forward(x) is the loss. t and eps are given in tests only."""

    def __init__(self, model):
        super().__init__()
        self.model, n, width = model, model.n_features, model.width
        self.time, self.enter = nn.Linear(model.n_waves, model.n_waves), nn.Linear(n, width)
        self.blocks = nn.ModuleList([Block(width, model.n_waves) for _ in range(model.n_blocks)])
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n))
        self.register_buffer("omega", 10_000 ** (-torch.arange(model.n_waves // 2) / (model.n_waves // 2)))
        self.register_buffer("alpha_bar", torch.tensor(alpha_bars(model.schedule, model.n_times), dtype=torch.float32))

    def network(self, x, t):
        angle = t[:, None] * self.omega
        e = F.silu(self.time(torch.cat([angle.cos(), angle.sin()], dim=1)))
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, e)
        return self.leave(h)

    def forward(self, x, t=None, eps=None):
        t = torch.randint(1, self.model.n_times + 1, (len(x),), device=x.device) if t is None else t
        x_0 = 2 * x - 1
        eps = torch.randn_like(x_0) if eps is None else eps
        signal, noise = self.alpha_bar[t][:, None].sqrt(), (1 - self.alpha_bar[t][:, None]).sqrt()
        f = self.network(signal * x_0 + noise * eps, t)
        if self.model.predict == "logits":
            return F.binary_cross_entropy_with_logits(f, x, reduction="sum") / len(x)
        return F.mse_loss(f, signal * eps - noise * x_0, reduction="sum") / len(x)


class Adversaries(nn.Module):
    """G and D, and the two losses of a round. noise, alpha are given in tests only."""

    def __init__(self, model, compiled=lambda network: network):
        super().__init__()
        G = mlp(model.n_latent, *model.hidden_G, model.n_features)
        self.G = compiled(nn.Sequential(*G, nn.Sigmoid()) if model.output == "sigmoid" else G)
        self.D = compiled(mlp(model.n_features, *model.hidden_D, 1, activation=lambda: nn.LeakyReLU(0.2)))
        self.model = model

    def noise(self, x):
        return torch.randn(len(x), self.model.n_latent, device=x.device)


class GAN(Adversaries):
    def discriminator_loss(self, x, z=None):
        x = x.requires_grad_()
        real, fake = self.D(x), self.D(self.G(self.noise(x) if z is None else z).detach())
        loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss = loss + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        return loss + 0.5 * self.model.r1 * slope.square().sum(dim=1).mean()

    def generator_loss(self, z):
        fake = self.D(self.G(z))
        return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


class WGAN(Adversaries):
    def discriminator_loss(self, x, z=None, alpha=None):
        x_hat = self.G(self.noise(x) if z is None else z).detach()
        alpha = torch.rand(len(x), 1, device=x.device) if alpha is None else alpha
        between = (alpha * x + (1 - alpha) * x_hat).requires_grad_()
        (slope,) = torch.autograd.grad(self.D(between).sum(), between, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        return self.D(x_hat).mean() - self.D(x).mean() + self.model.lam * penalty

    def generator_loss(self, z):
        return -self.D(self.G(z)).mean()


def two_losses(networks, model, device, adam, compiled):
    networks = networks(model, compiled).to(device)
    betas = {"betas": (model.beta1, model.beta2)}
    optimizer_G = adam(networks.G.parameters(), lr=model.lr_G, **betas)
    optimizer_D = adam(networks.D.parameters(), lr=model.lr_D, **betas)

    def step(x):
        for part in x.split(model.batch):
            optimizer_D.zero_grad()
            networks.discriminator_loss(part).backward()
            optimizer_D.step()
        optimizer_G.zero_grad()
        networks.generator_loss(networks.noise(part)).backward()
        optimizer_G.step()

    return step


def gan(*options):
    return two_losses(GAN, *options)


def wgan(*options):
    return two_losses(WGAN, *options)


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


def ddpm(*options):
    """Without the averaged weights, which ours keeps in every step."""
    return one_loss(DDPM, *options)


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
