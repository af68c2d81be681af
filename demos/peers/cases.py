"""What benchmark.py measures. To add a case, write its peer in pytorch.py and a row here."""

from dataclasses import dataclass
from itertools import pairwise

from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.base import Model
from scratchgen.models.ddpm import DDPM
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.models.wgan import WGAN


@dataclass
class Case:
    name: str
    model: Model  # not built: the settings
    peer: str  # a function of peers/pytorch.py
    products: list  # (m, k, n) of each matrix product of one step, (m, k) times (k, n)
    compiled: bool = False  # whether torch.compile is worth its time on a CPU; on a GPU it always is


def linear(batch, *widths, inputs=True):
    """The products of Linear layers of these widths, forward and back; inputs: dx of the first layer too."""
    products = []
    for i, (a, b) in enumerate(pairwise(widths)):
        products += [(batch, a, b), (a, batch, b)] + [(batch, b, a)] * (inputs or i > 0)  # y, dW, dx
    return products


def coder(name, model, peer, heads, **options):
    """The case of an encoder and a decoder, the encoder with heads * n_latent outputs."""
    encoder = linear(model.batch, model.n_features, *model.hidden, heads * model.n_latent, inputs=False)
    decoder = linear(model.batch, model.n_latent, *reversed(model.hidden), model.n_features)
    return Case(f"{name}, batch {model.batch}", model, peer, encoder + decoder, **options)


def adversaries(name, model, peer):
    """The case of a round of two networks: k steps of D, each with its penalty, and one of G."""
    b, g, d = model.batch, (model.n_latent, *model.hidden_G, model.n_features), (model.n_features, *model.hidden_D, 1)
    forward_G, forward_D = ([(b, m, n) for m, n in pairwise(widths)] for widths in (g, d))
    slope_D = [(b, n, m) for m, n in pairwise(d)]
    penalty = (
        forward_D + slope_D + forward_D + [(m, b, n) for m, n in pairwise(d)]
    )  # y, g, du, dW: see double_backward.py
    step_D = forward_G + 2 * linear(b, *d, inputs=False) + penalty
    return Case(
        f"{name}, batch {b}", model, peer, model.d_steps * step_D + linear(b, *g, inputs=False) + forward_D + slope_D
    )


def denoiser(name, model):
    """The case of a diffusion model: a Linear in, one out, and in each block two and one for the time."""
    b, n, width, waves = model.batch, model.n_features, model.width, model.n_waves
    block = 2 * linear(b, width, width) + linear(b, waves, width)
    products = linear(b, waves, waves, inputs=False) + linear(b, n, width, inputs=False) + linear(b, width, n)
    return Case(f"{name}, batch {b}", model, "ddpm", products + model.n_blocks * block)


POINTS = {"n_features": 2, "hidden": (128, 128), "n_latent": 2, "likelihood": "gaussian"}
TOY = {"n_features": 2, "n_latent": 2, "hidden_G": (512, 512, 512), "hidden_D": (512, 512, 512), "output": "linear"}
CASES = [
    coder("VAE 784-400-20", VAE(batch=128), "vae", 2, compiled=True),
    coder("VAE 784-400-20", VAE(batch=32), "vae", 2),
    coder("VAE 784-400-20", VAE(batch=512), "vae", 2),
    coder("VAE 784-1024-20", VAE(hidden=(1024,), batch=128), "vae", 2),
    coder("autoencoder 784-400-20", AutoEncoder(batch=128), "autoencoder", 1),
    coder("VAE 2-128-128-2", VAE(**POINTS, batch=256), "vae", 2),
    adversaries("GAN with R1, 32-256-512-784", GAN(), "gan"),
    adversaries("WGAN-GP 2-512-512-512-2, k = 5", WGAN(**TOY, batch=256), "wgan"),
    denoiser("DDPM 784, 2 blocks of 512", DDPM()),
    denoiser("DDPM 2, 2 blocks of 128", DDPM(n_features=2, width=128, n_waves=32, predict="v", batch=256)),
]
