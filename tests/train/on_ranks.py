"""What test_parallel.py trains on one process and on several, without noise: mpiexec -n 2 python on_ranks.py FILE.npz"""

import sys
import tempfile
from dataclasses import dataclass

import numpy as np

from scratchgen.backend import Rng
from scratchgen.data import Rows
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.base import Model
from scratchgen.models.flow import Flow
from scratchgen.models.gan import GAN
from scratchgen.models.gmm import GMM
from scratchgen.models.rbm import RBM
from scratchgen.models.settings import Count
from scratchgen.models.vqvae import VQVAE
from scratchgen.models.wgan import WGAN
from scratchgen.nn.layers import mlp
from scratchgen.nn.losses import squared_error
from scratchgen.nn.norms import BatchNorm
from scratchgen.nn.optim import Adam
from scratchgen.nn.parameters import Parameters
from scratchgen.train import parallel
from scratchgen.train.fit import fit


class Fixed:
    """In place of a model's random numbers: a fixed function of the examples, so that each keeps its noise on any rank."""

    def __init__(self, x, rng):
        self.x, self.xp, self.real, self.rng = x, rng.xp, rng.real, rng

    def normal(self, shape):
        assert shape[0] == len(self.x)
        return 2 * self.x[:, : shape[1]] - 1

    def uniform(self, shape):
        return self.x[:, :1].reshape(shape)

    def bernoulli(self, p):
        return (p > 0.5).astype(self.real)

    def __getattr__(self, name):
        return getattr(self.rng, name)


class FixedNoise:
    def discriminator_loss(self, x, rng, labels=None):
        return super().discriminator_loss(x, Fixed(x, rng))

    def generator_loss(self, x, rng, labels=None):
        return super().generator_loss(x, Fixed(x, rng))


class FixedGAN(FixedNoise, GAN):
    pass


class FixedWGAN(FixedNoise, WGAN):
    pass


@dataclass(eq=False)
class WithBatchNorm(Model):
    """A model whose running statistics are means over the batch."""

    batch: Count = 8

    def build(self, rng):
        self.network = mlp([6, 5, 6], norm=BatchNorm)
        self.params = Parameters(rng, network=self.network)
        self.adam = Adam(self.params)
        return self

    def train_step(self, x, rng, labels=None):
        self.params.zero_grad()
        y, backward = self.network.forward(x, rng)
        loss, dy = squared_error(y, x)
        backward(dy)
        self.adam.step()
        return {"loss": loss}


SMALL = {"n_features": 6, "batch": 7}  # shards of 3 and 4: means are not means of means
GANS = {"hidden_G": (5,), "hidden_D": (7,), "n_latent": 2, "r1": 1.0}
EQUAL = {  # equal on any number of ranks
    "autoencoder": (AutoEncoder, SMALL | {"hidden": (5,), "n_latent": 2}),
    "gan": (FixedGAN, SMALL | GANS | {"d_steps": 2}),
    "packed gan": (FixedGAN, SMALL | GANS | {"batch": 6, "pack": 2}),
    "wgan": (FixedWGAN, SMALL | {"hidden_G": (5,), "hidden_D": (7,), "n_latent": 2, "d_steps": 3}),
    "em": (GMM, {"n_features": 6, "n_components": 3, "floor": 1e-3}),
    "diagonal em": (GMM, {"n_features": 6, "n_components": 3, "covariance": "diagonal"}),
    "mixture by gradient": (GMM, {"n_features": 6, "n_components": 3, "by": "gradient"}),
    "flow": (Flow, SMALL | {"n_layers": 2, "hidden": (6, 5), "max_norm": 0.5, "lr": 0.1}),  # every gradient is clipped
    "vqvae": (VQVAE, SMALL | {"hidden": (5,), "n_codes": 3, "n_dim": 2, "n_embeddings": 5, "restart_every": 0}),
    "rows on the disk": (AutoEncoder, SMALL | {"hidden": (5,), "n_latent": 2}),
    "codes by gradient": (
        VQVAE,
        SMALL | {"hidden": (5,), "n_codes": 3, "n_dim": 2, "n_embeddings": 5, "codebook": "gradient"},
    ),
}
ALIKE = {  # equal on all ranks, but other numbers than those of one process
    "restarts": (VQVAE, SMALL | {"hidden": (5,), "n_codes": 3, "n_dim": 2, "n_embeddings": 20, "restart_every": 2}),
    "restarts by gradient": (
        VQVAE,
        SMALL
        | {"hidden": (5,), "n_codes": 3, "n_dim": 2, "n_embeddings": 20, "restart_every": 2, "codebook": "gradient"},
    ),
    "chains": (RBM, SMALL | {"n_hidden": 5, "n_chains": 3}),
    "batch norm": (WithBatchNorm, {}),
}
EPOCHS = 3


def points():
    return np.random.default_rng(1).uniform(size=(40, 6))


def on_disk(file):
    """The points as Rows of a file."""
    x = points().astype(np.float32)
    np.save(file, x)
    file.flush()
    return Rows(file.name, np.arange(len(x)), 6, lambda array, numbers: array[numbers], x.min(), x.max())


class Watched(parallel.Ranks):
    """Ranks that note how far their states differ, chains aside, before they take over that of rank 0."""

    spread = 0.0

    def share(self, model):
        before = {name: array.copy() for name, array in model.state().items()}
        if isinstance(model, RBM):
            del before["params.buffers"]
        super().share(model)
        self.spread = max(abs(model.state()[name] - array).max() for name, array in before.items() if array.size)


def trained(name, ranks=None):
    """{name: array} of a model's state and losses after EPOCHS, and how far the ranks differed then."""
    kind, settings = (EQUAL | ALIKE)[name]
    model = kind(**settings).build(Rng(3, "float64"))
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        x = on_disk(file) if name == "rows on the disk" else points()
        history = fit(model, x, epochs=EPOCHS, x_test=points()[:5], ranks=ranks, progress=False)
    columns = {key: np.array([row[key] for row in history]) for key in history[0] if key != "seconds"}
    return model.state() | {f"column {key}": values for key, values in columns.items()}


if __name__ == "__main__":
    ranks = parallel.connect()
    ranks = Watched(ranks.comm, local=ranks.local)
    found = {}
    for name in EQUAL | ALIKE:
        with parallel.quiet(ranks.rank):
            found |= {f"{name}/{key}": array for key, array in trained(name, ranks).items()}
        found[f"{name}/spread"] = max(ranks.comm.allgather(ranks.spread))
    if ranks.rank == 0:
        np.savez(sys.argv[1], **found)
