"""A prior over a VQ-VAE's codes: it learns which codes go together, so that new pictures can be drawn.

    c = the codes of x;      log p(c) by MADE or masked diffusion;      to sample, c ~ p(c),   x̂ = decoder(the rows c of W)

van den Oord et al. 2017, section 3.2. The VQ-VAE or VQ-GAN is trained first and then frozen, so the codes are tokens, like
the letters of a text. Drawn each by its own frequency, they decode to no pictures. The codes of a picture cost -log₂ p(c)
bits, fewer than the n_codes log₂ n_embeddings bits that they take if they are stored as they are.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from .base import Model
from .made import MADE
from .masked_diffusion import MaskedDiffusion
from .parts.features import BehindVQVAE
from .settings import Count, Fraction, Positive, Whole
from .vqgan import VQGAN
from .vqvae import VQVAE

PRIORS = {"made": MADE, "masked": MaskedDiffusion}


@dataclass(eq=False)
class CodePrior(BehindVQVAE, Model):
    """The settings come first, then the model. Shapes: x (B, n_features), codes (B, n_codes) integers."""

    n_features: Count = 784
    vqvae: VQVAE = field(default_factory=VQVAE, metadata={"trained_class": VQGAN})  # makes the codes
    prior: Literal[tuple(PRIORS)] = "made"  # models/made.py or models/masked_diffusion.py
    n_embed: Count = 8  # length of the learned vector that stands for a code
    hidden: tuple[int, ...] = (512,)  # sizes of the hidden layers
    n_steps: Count = 64  # for prior=masked: steps of the sampler, which share the codes
    batch: Count = 100
    lr: Positive = 1e-3
    decay_steps: Whole = 0  # steps of training, in which the rate falls to 0; 0: constant rate
    averaging: Fraction = 0.999  # decay of the averaged weights that are used after training; 0: the latest weights

    judged_by_samples = True
    sampler_settings = frozenset({"n_steps"})
    tiny = {"n_features": 6, "n_embed": 2, "hidden": (5,), "batch": 4}

    @property
    def data_range(self):
        return self.vqvae.data_range

    def build(self, rng):
        self.freeze(rng)
        kind, settings = PRIORS[self.prior], self.settings()
        shared = {setting.name: settings[setting.name] for setting in fields(kind) if setting.name in settings}
        shared |= {"n_features": self.vqvae.n_codes, "n_values": self.vqvae.n_embeddings}
        self.over_codes = kind(**shared).build(rng)
        self.params, self.adam, self.average = (vars(self.over_codes)[name] for name in ("params", "adam", "average"))
        return self

    def parameters(self):
        """As in Model. The Parameters of over_codes are this model's own: they are listed once."""
        return {name: params for name, params in super().parameters().items() if name != "over_codes.params"}

    def prepare(self, x, rng, labels=None):
        super().prepare(x, rng, labels)
        self.over_codes.prepare(self.vqvae.codes(x), rng)

    def loss(self, x, rng, labels=None):
        """-log p of the codes of x (B, n_features), or masked diffusion's bound on it, in nats per example."""
        return self.over_codes.loss(self.vqvae.codes(x), rng)

    def train_step(self, x, rng, labels=None):
        return self.over_codes.train_step(self.vqvae.codes(x), rng)

    def sample(self, n, rng, label=None):
        """n pictures (n, n_features), decoded from n draws of codes."""
        return self.vqvae.decode_codes(self.over_codes.sample(n, rng).astype(int))

    def evaluate(self, x, rng, labels=None):
        """{"code_bits": -log₂ p of the codes of x (N, n_features), or its bound, "stored_bits": what they take stored}."""
        (nats,) = self.over_codes.evaluate(self.vqvae.codes(x), rng).values()
        return {"code_bits": nats / math.log(2), "stored_bits": rng.zeros(()) + self.vqvae.bits}
