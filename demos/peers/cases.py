"""The training steps and the samplings that benchmark.py measures.

To add a case, write its peers in pytorch.py and jax_models.py (those with two losses in pytorch_adversaries.py and
jax_adversaries.py) and a row here.
"""

from dataclasses import dataclass
from itertools import pairwise

from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.base import Model
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.ddpm import DDPM
from scratchgen.models.gan import GAN
from scratchgen.models.made import MADE
from scratchgen.models.vae import VAE
from scratchgen.models.vqvae import VQVAE
from scratchgen.models.wgan import WGAN


@dataclass
class Case:
    name: str
    model: Model  # not built: the settings
    peer: str  # the name of a class in the peers' files
    products: list  # (m, k, n) of each matrix product of one step, (m, k) times (k, n)
    compiled: bool = False  # whether torch.compile is worth its time on a CPU; on a GPU it always is


@dataclass
class Sampling:
    name: str
    model: Model
    peer: str
    n: int  # how many examples are drawn at once


def linear(batch, *widths, inputs=True):
    """The products of Linear layers of these widths, forward and back; inputs: dx of the first layer too."""
    products = []
    for i, (a, b) in enumerate(pairwise(widths)):
        products += [(batch, a, b), (a, batch, b)] + [(batch, b, a)] * (inputs or i > 0)  # y, dW, dx
    return products


def coder(name, model, peer, heads, **options):
    """The case of an encoder and a decoder, the encoder with heads * n_latent outputs."""
    encoder = linear(model.batch, model.n_features, *model.hidden, heads * model.n_latent, inputs=False)
    rows = getattr(model, "n_samples", 1) * model.batch
    decoder = linear(rows, model.n_latent, *reversed(model.hidden), model.n_features)
    return Case(f"{name}, batch {model.batch}", model, peer, encoder + decoder, **options)


def adversaries(name, model, peer, negatives=1):
    """The case of a round of two networks: k steps of D, each with its penalty, and one of G.

    negatives: how many examples D tells from each real one.
    """
    b, extra = model.batch, model.n_classes or 0  # extra: the numbers of a condition
    g, d = (model.n_latent + extra, *model.hidden_G, model.n_features), (model.n_features + extra, *model.hidden_D, 1)
    forward_G, forward_D = ([(b, m, n) for m, n in pairwise(widths)] for widths in (g, d))
    slope_D = [(b, n, m) for m, n in pairwise(d)]
    penalty = forward_D + slope_D + forward_D + [(m, b, n) for m, n in pairwise(d)]  # y, g, du, dW: double_backward.py
    step_D = forward_G + linear(b, *d, inputs=False) + linear(negatives * b, *d, inputs=False) + penalty
    step_G = linear(b, *g, inputs=False) + forward_D + slope_D
    return Case(f"{name}, batch {b}", model, peer, model.d_steps * step_D + step_G)


def denoiser(name, model):
    """The case of a diffusion model: a Linear in, one out, and in each block two and one for the time."""
    b, n, width, waves = model.batch, model.n_features, model.width, model.n_waves
    block = 2 * linear(b, width, width) + linear(b, waves, width)
    products = linear(b, waves, waves, inputs=False) + linear(b, n, width, inputs=False) + linear(b, width, n)
    return Case(f"{name}, batch {b}", model, "DDPM", products + model.n_blocks * block)


def quantiser(name, model):
    """The case of a VQ-VAE: encoder, decoder, and the scores of all codes."""
    b, n, hidden, width = model.batch, model.n_features, model.hidden, model.n_codes * model.n_dim
    networks = linear(b, n, *hidden, width, inputs=False) + linear(b, width, *reversed(hidden), n)
    tokens, n_dim, codes = b * model.n_codes, model.n_dim, model.n_embeddings
    return Case(f"{name}, batch {b}", model, "VQVAE", [*networks, (tokens, n_dim, codes)])


def masked(name, model):
    """The case of a MADE with one hidden layer, whose output layer also sees the input."""
    b, n, (width,) = model.batch, model.n_features, model.hidden
    return Case(f"{name}, batch {b}", model, "MADE", linear(b, n, width, inputs=False) + linear(b, width + n, n))


POINTS = {"n_features": 2, "hidden": (128, 128), "n_latent": 2, "likelihood": "gaussian"}
TOY = {"n_features": 2, "n_latent": 2, "hidden_G": (512, 512, 512), "hidden_D": (512, 512, 512), "output": "linear"}
CASES = [
    coder("VAE 784-400-20", VAE(batch=128), "VAE", 2, compiled=True),
    coder("VAE 784-400-20", VAE(batch=32), "VAE", 2),
    coder("VAE 784-400-20", VAE(batch=512), "VAE", 2),
    coder("VAE 784-1024-20", VAE(hidden=(1024,), batch=128), "VAE", 2),
    coder("autoencoder 784-400-20", AutoEncoder(batch=128), "AutoEncoder", 1),
    coder("VAE 2-128-128-2", VAE(**POINTS, batch=256), "VAE", 2),
    adversaries("GAN with R1, 32-256-512-784", GAN(), "GAN"),
    adversaries("WGAN-GP 2-512-512-512-2, k = 5", WGAN(**TOY, batch=256), "WGAN"),
    denoiser("DDPM 784, 2 blocks of 512", DDPM()),
    denoiser("DDPM 2, 2 blocks of 128", DDPM(n_features=2, width=128, n_waves=32, predict="v", batch=256)),
    adversaries("conditional GAN, 74-256-512-784", ConditionalGAN(), "ConditionalGAN", negatives=2),
    coder("IWAE 784-400-20, k = 5", VAE(bound="iwae", n_samples=5, batch=128), "IWAE", 2),
    quantiser("VQ-VAE 784-512-256, 16 of 256 codes", VQVAE(restart_every=0)),
    masked("MADE 784-1024, direct", MADE()),
]
SAMPLINGS = [
    Sampling("10,000 pictures by VAE 784-400-20", VAE(), "VAE", 10_000),
    Sampling("10,000 pictures by GAN 32-256-512-784", GAN(), "GAN", 10_000),
    Sampling("1,000 pictures by DDPM 784, 50 jumps", DDPM(), "DDPM", 1_000),
]


# The reference VAE with other batches and other widths.
BATCHES = [Case(f"VAE 784-400-20 against batch: {n}", VAE(batch=n), "VAE", []) for n in (2**i for i in range(5, 13))]
WIDTHS = [
    Case(f"VAE 784-n-20 against width n: {n}", VAE(hidden=(n,), batch=128), "VAE", [])
    for n in (2**i for i in range(6, 12))
]
