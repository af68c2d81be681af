"""Latent diffusion: a VQ-VAE compresses pictures to features, and diffusion learns to generate features for its decoder.

    z = encoder(x),      x_0 = (z - mean) / std is diffused as in ddpm.py,      x̂ = decoder(quantise(mean + std x̂_0))

Rombach et al. 2022, section 3. The VQ-VAE (models/vqvae.py) is trained first and then frozen. A large picture has fewer
features than pixels (for MNIST a sixth), so even a narrow network can reproduce the noise of all of them and predict v.
Diffusion uses the continuous features, before quantisation, because Gaussian noise has no meaning for discrete codes. The
generated features are then moved to the nearest codes, because the decoder was trained on codes only.
"""

from dataclasses import dataclass, field
from typing import Literal

from ..backend import UsageError
from .ddpm import DDPM
from .settings import Count, Positive
from .vqvae import VQVAE


@dataclass(eq=False)
class LatentDiffusion(DDPM):
    """What differs from a DDPM. Shapes: x (B, n_features), z and x_0 (B, n_diffused)."""

    vqvae: VQVAE = field(default_factory=VQVAE)  # compresses the pictures
    predict: Literal["eps", "v", "x0"] = "v"
    scaling: Literal["standard"] = "standard"
    n_blocks: Count = 3
    batch: Count = 128
    lr: Positive = 2e-3

    tiny = DDPM.tiny | {"n_blocks": 2}

    def build(self, rng):
        self.trained, self.vqvae = self.vqvae.has_stepped(), VQVAE.copy_of(self.vqvae, rng)
        return super().build(rng)

    @property
    def n_diffused(self):
        return self.vqvae.n_codes * self.vqvae.n_dim

    def encode(self, x):
        return self.vqvae.encode(x)

    def decode(self, features):
        return self.vqvae.decode(self.vqvae.quantise(features))

    def prepare(self, x, rng, labels=None):
        if not self.trained:
            raise UsageError(
                "LatentDiffusion setting vqvae: expected a trained VQVAE; train a VQVAE first and give it as "
                "LatentDiffusion(vqvae=...)"
            )
        super().prepare(x, rng, labels)

    @classmethod
    def example(cls, rng, **settings):
        vqvae, batch = VQVAE.example(rng)
        vqvae.train_step(**batch, rng=rng)
        return super().example(rng, **{"vqvae": vqvae} | settings)
