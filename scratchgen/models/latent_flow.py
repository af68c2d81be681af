"""Flow matching in the features of a VQ-GAN, as latent diffusion is diffusion in them.

    z = encoder(x),      x_1 = (z - mean) / std,      x_t = (1 - t) ε + t x_1,      x̂ = decoder(quantise(mean + std x̂_1))

Dao et al. 2023, section 3; Esser et al. 2024. latent_diffusion.py says why features are easier than pixels.
"""

from dataclasses import dataclass, field
from typing import Literal

from .flow_matching import FlowMatching
from .parts.features import InFeatures
from .settings import Count, Positive
from .vqgan import VQGAN
from .vqvae import VQVAE


@dataclass(eq=False)
class LatentFlow(InFeatures, FlowMatching):
    """What differs from a FlowMatching. Shapes: x (B, n_features), z and x_1 (B, n_diffused)."""

    vqvae: VQVAE = field(default_factory=VQVAE, metadata={"trained_class": VQGAN})  # compresses the pictures
    predict: Literal["velocity", "x0"] = "velocity"
    scaling: Literal["standard"] = "standard"
    n_blocks: Count = 3
    batch: Count = 128
    lr: Positive = 2e-3

    tiny = FlowMatching.tiny | {"n_blocks": 2}
