"""What benchmark.py measures. To add a case, write its peer in pytorch.py and a row here."""

from dataclasses import dataclass
from itertools import pairwise

from scratchgen.model import Model
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.vae import VAE


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


POINTS = {"n_features": 2, "hidden": (128, 128), "n_latent": 2, "likelihood": "gaussian"}
CASES = [
    coder("VAE 784-400-20", VAE(batch=128), "vae", 2, compiled=True),
    coder("VAE 784-400-20", VAE(batch=32), "vae", 2),
    coder("VAE 784-400-20", VAE(batch=512), "vae", 2),
    coder("VAE 784-1024-20", VAE(hidden=(1024,), batch=128), "vae", 2),
    coder("autoencoder 784-400-20", AutoEncoder(batch=128), "autoencoder", 1),
    coder("VAE 2-128-128-2", VAE(**POINTS, batch=256), "vae", 2),
]
