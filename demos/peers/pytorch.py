"""The models that benchmark.py measures, as PyTorch's own users write them.

A network is a class made from a model, which holds the settings. Its forward(x) is the loss of a batch x (B, n_features).
The noise is given in tests only. code(n) is what sample turns into n examples. For two losses see pytorch_adversaries.py.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from scratchgen.backend import Rng
from scratchgen.models.parts.diffusion import alpha_bars, times


def mlp(*widths, activation=nn.ReLU, dropout=0.0):
    """dropout: its rate after each hidden layer."""
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), activation()] + [nn.Dropout(dropout)] * (dropout > 0)
    return nn.Sequential(*layers[: -2 if dropout else -1])


class VAE(nn.Module):
    """The loss is without the constant of the Gaussian decoder."""

    def __init__(self, model):
        super().__init__()
        self.encoder = mlp(model.n_features, *model.hidden, 2 * model.n_latent)
        self.decoder = mlp(model.n_latent, *reversed(model.hidden), model.n_features)
        self.likelihood, self.c, self.k = model.likelihood, model.variance, model.n_samples

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

    def code(self, n):
        return torch.randn(n, self.decoder[0].in_features)

    def sample(self, z):
        return self.decoder(z).sigmoid()


class IWAE(VAE):
    """For pixels."""

    def forward(self, x, eps=None):
        mu, log_var = self.encoder(x).repeat(self.k, 1).chunk(2, dim=1)
        eps = torch.randn_like(mu) if eps is None else eps
        z = mu + torch.exp(0.5 * log_var) * eps
        nll = F.binary_cross_entropy_with_logits(self.decoder(z), x.repeat(self.k, 1), reduction="none").sum(dim=1)
        log_w = 0.5 * (eps.pow(2) + log_var - z.pow(2)).sum(dim=1) - nll  # log p(z) - log q(z|x) + log p(x|z)
        return math.log(self.k) - torch.logsumexp(log_w.view(self.k, -1), dim=0).mean()


class AutoEncoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.encoder = mlp(model.n_features, *model.hidden, model.n_latent)
        self.decoder = mlp(model.n_latent, *reversed(model.hidden), model.n_features)

    def forward(self, x):
        return F.mse_loss(self.decoder(self.encoder(x)), x, reduction="sum") / len(x)


class VQVAE(nn.Module):
    """Each forward also moves the codes by the moving average. No code is restarted."""

    def __init__(self, model):
        super().__init__()
        self.model, width = model, model.n_codes * model.n_dim
        self.encoder = mlp(model.n_features, *model.hidden, width)
        self.decoder = nn.Sequential(*mlp(width, *reversed(model.hidden), model.n_features), nn.Sigmoid())
        self.register_buffer("codes", torch.randn(model.n_embeddings, model.n_dim))
        self.register_buffer("counts", torch.ones(model.n_embeddings))

    def forward(self, x):
        z = self.encoder(x)
        tokens = z.detach().view(-1, self.model.n_dim)
        nearest = (0.5 * self.codes.pow(2).sum(dim=1) - tokens @ self.codes.T).argmin(dim=1)
        rows = self.codes[nearest]
        e = rows.view_as(z)
        x_hat = self.decoder(z + (e - z).detach())
        self.follow(F.one_hot(nearest, len(self.codes)).to(x.dtype), tokens - rows)
        return (F.mse_loss(x_hat, x, reduction="sum") + self.model.beta * F.mse_loss(z, e, reduction="sum")) / len(x)

    @torch.no_grad()
    def follow(self, chosen, differences):
        rate = 1 - self.model.decay
        self.counts.lerp_(chosen.sum(dim=0), rate)
        self.codes += rate * (chosen.T @ differences) / self.counts.clamp(min=1e-6)[:, None]


class MaskedLinear(nn.Linear):
    def __init__(self, mask):
        super().__init__(*mask.shape)
        self.register_buffer("mask", torch.tensor(mask.T, dtype=torch.float32))

    def forward(self, x):
        return F.linear(x, self.mask * self.weight, self.bias)


class MADE(nn.Module):
    """One hidden layer, and the natural order."""

    def __init__(self, model):
        super().__init__()
        self.hidden, self.output = map(MaskedLinear, model.build(Rng(0)).network.masks(0))

    def forward(self, x):
        x = torch.bernoulli(x)
        logits = self.output(torch.cat([F.relu(self.hidden(x)), x], dim=1))
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


class Block(nn.Module):
    def __init__(self, width, n_waves):
        super().__init__()
        self.before = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.condition = nn.Linear(n_waves, width)
        self.after = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, h, e):
        return h + self.after(self.before(h) + self.condition(e))


class DDPM(nn.Module):
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

    def code(self, n):
        return torch.randn(n, self.model.n_features)

    def sample(self, x):
        """DDIM without noise, from x (n, n_features) at the last time to pixels. For predict=logits."""
        for t, s in pairwise(times(self.model.n_times, self.model.n_steps)):
            now, then = self.alpha_bar[t], self.alpha_bar[s]
            x_0 = (2 * self.network(x, torch.full((len(x),), t)).sigmoid() - 1).clamp(-1, 1)
            eps = (x - now.sqrt() * x_0) / (1 - now).sqrt()
            x = then.sqrt() * x_0 + (1 - then).sqrt() * eps
        return 0.5 * x + 0.5


def one_loss(network, model, device, adam, compiled):
    """step(x): one training step, without the averaged weights that ours may keep.

    adam: torch.optim.Adam with its options. compiled: torch.compile, or what leaves the network as it is.
    """
    network = network(model).to(device)
    optimizer = adam(network.parameters(), lr=model.lr)
    loss = compiled(network)

    def step(x):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def captured(step, *batch):
    """The whole step(*batch) as one CUDA graph; Adam must be capturable."""
    fixed, side, graph = [part.clone() for part in batch], torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a few steps outside, so that everything is allocated
        for _ in range(5):
            step(*fixed)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        step(*fixed)

    def replay(*batch):
        for place, part in zip(fixed, batch):
            place.copy_(part)
        graph.replay()

    return replay
