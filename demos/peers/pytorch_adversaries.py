"""The GANs that benchmark.py measures, as PyTorch's own users write them: see pytorch.py."""

import torch
import torch.nn.functional as F
from peers.pytorch import mlp
from torch import nn


def cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


class Adversaries(nn.Module):
    """G and D, and the two losses of a round. The noise is given in tests only."""

    def __init__(self, model, compiled=lambda network: network):
        super().__init__()
        self.model, n = model, model.n_classes or 0  # the numbers of a condition
        dropout = {"dropout": model.dropout} if n else {}
        G = mlp(model.n_latent + n, *model.hidden_G, model.n_features, **dropout)
        self.G = compiled(nn.Sequential(*G, nn.Sigmoid()) if model.output == "sigmoid" else G)
        self.D = compiled(mlp(model.n_features + n, *model.hidden_D, 1, activation=lambda: nn.LeakyReLU(0.2)))

    def noise(self, x):
        return torch.randn(len(x), self.model.n_latent, device=x.device)


class GAN(Adversaries):
    def discriminator_loss(self, x, z=None):
        x = x.requires_grad_()
        real, fake = self.D(x), self.D(self.G(self.noise(x) if z is None else z).detach())
        loss = cross_entropy(real, 1.0) + cross_entropy(fake, 0.0)
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        return loss + 0.5 * self.model.r1 * slope.square().sum(dim=1).mean()

    def generator_loss(self, x, z=None):
        return cross_entropy(self.D(self.G(self.noise(x) if z is None else z)), 1.0)

    def code(self, n):
        return torch.randn(n, self.model.n_latent)

    def sample(self, z):
        return self.G(z)


class WGAN(Adversaries):
    def discriminator_loss(self, x, z=None, alpha=None):
        x_hat = self.G(self.noise(x) if z is None else z).detach()
        alpha = torch.rand(len(x), 1, device=x.device) if alpha is None else alpha
        between = (alpha * x + (1 - alpha) * x_hat).requires_grad_()
        (slope,) = torch.autograd.grad(self.D(between).sum(), between, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        return self.D(x_hat).mean() - self.D(x).mean() + self.model.lam * penalty

    def generator_loss(self, x, z=None):
        return -self.D(self.G(self.noise(x) if z is None else z)).mean()


class ConditionalGAN(Adversaries):
    """Both networks get the class as a one-hot row; dropout is in G."""

    def one_hot(self, labels):
        return F.one_hot(labels, self.model.n_classes).float()

    def discriminator_loss(self, x, labels, shift=None, z=None):
        """shift (B,): a wrong label is the right one plus this."""
        n, x = self.model.n_classes, x.requires_grad_()
        shift = torch.randint(1, n, (len(x),), device=x.device) if shift is None else shift
        c, wrong = self.one_hot(labels), self.one_hot((labels + shift) % n)
        x_hat = self.G(torch.cat([self.noise(x) if z is None else z, c], dim=1)).detach()
        negatives = torch.cat([torch.cat([x_hat, x.detach()]), torch.cat([c, wrong])], dim=1)
        real = self.D(torch.cat([x, c], dim=1))
        loss = cross_entropy(real, 1.0) + cross_entropy(self.D(negatives), 0.0)
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        return loss + 0.5 * self.model.r1 * slope.square().sum(dim=1).mean()

    def generator_loss(self, x, labels, z=None):
        c = self.one_hot(labels)
        x_hat = self.G(torch.cat([self.noise(x) if z is None else z, c], dim=1))
        return cross_entropy(self.D(torch.cat([x_hat, c], dim=1)), 1.0)


def two_losses(networks, model, device, adam, compiled):
    """step(x) or step(x, labels): a round of both networks, without the averaged weights of G. See one_loss."""
    networks = networks(model, compiled).to(device)
    betas = {"betas": (model.beta1, model.beta2)}
    optimizer_G = adam(networks.G.parameters(), lr=model.lr_G, **betas)
    optimizer_D = adam(networks.D.parameters(), lr=model.lr_D, **betas)

    def step(*batch):
        for part in zip(*(array.split(model.batch) for array in batch)):
            optimizer_D.zero_grad()
            networks.discriminator_loss(*part).backward()
            optimizer_D.step()
        optimizer_G.zero_grad()
        networks.generator_loss(*part).backward()
        optimizer_G.step()

    return step
