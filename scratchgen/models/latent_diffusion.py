"""Latent diffusion: a VQ-GAN compresses pictures to features, and diffusion learns to generate features for its decoder.

    z = encoder(x),      x_0 = (z - mean) / std is diffused as in ddpm.py,      x̂ = decoder(quantise(mean + std x̂_0))

Rombach et al. 2022, section 3. The VQ-GAN (models/vqgan.py) is trained first and then frozen. A plain VQ-VAE serves too, but
its decoder blurs. Pictures have fewer features than pixels, for MNIST a twelfth. So even a narrow network can reproduce the
noise of all of them and predict v. Diffusion uses the continuous features, before quantisation, because Gaussian noise has
no meaning for discrete codes. The generated features are then moved to the nearest codes, because the decoder was trained on
codes only.
"""

from dataclasses import dataclass, field
from typing import Literal

from .ddpm import DDPM
from .parts.features import InFeatures
from .settings import Count, Positive
from .vqgan import VQGAN
from .vqvae import VQVAE


@dataclass(eq=False)
class LatentDiffusion(InFeatures, DDPM):
    """What differs from a DDPM. Shapes: x (B, n_features), z and x_0 (B, n_diffused). parts/features.py has the way to z."""

    vqvae: VQVAE = field(default_factory=VQVAE, metadata={"trained_class": VQGAN})  # compresses the pictures
    predict: Literal["eps", "v", "x0"] = "v"
    scaling: Literal["standard"] = "standard"
    n_blocks: Count = 3
    batch: Count = 128
    lr: Positive = 2e-3

    tiny = DDPM.tiny | {"n_blocks": 2}
