"""How each family of models is trained on pictures: settings and steps, as compare.py and tour.py use them.

A recipe is a function (data, train) that ends in train(model, steps) and returns the trained model. Pictures of up to 100
pixels, such as the bundled digits, need smaller networks and other numbers of steps than MNIST.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from common import is_small
from common import train as train_for

from scratchgen.backend import Rng, UsageError
from scratchgen.data import load
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.code_prior import CodePrior
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.dbn import DBN
from scratchgen.models.ddpm import DDPM
from scratchgen.models.ebm import EBM
from scratchgen.models.flow import Flow
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.models.gan import GAN
from scratchgen.models.gmm import GMM
from scratchgen.models.gsn import GSN
from scratchgen.models.latent_diffusion import LatentDiffusion
from scratchgen.models.made import MADE
from scratchgen.models.masked_diffusion import MaskedDiffusion
from scratchgen.models.pix2pix import Pix2Pix
from scratchgen.models.rbm import RBM
from scratchgen.models.rules import are_levels
from scratchgen.models.vae import VAE
from scratchgen.models.vqgan import VQGAN
from scratchgen.models.vqvae import VQVAE
from scratchgen.models.wgan import WGAN

# ---- one recipe for each family ----


def gaussian_mixture(data, train):
    kinds = {"n_components": 30} if is_small(data) else {"n_components": 50, "covariance": "diagonal"}
    return train(GMM(n_features=pixels(data), **kinds, floor=1e-2), 30)


def rbm(data, train):
    if is_small(data):
        return train(RBM(n_features=pixels(data), n_hidden=200, lr=0.2, weight_decay=1e-3), 4_200)
    return train(RBM(n_features=pixels(data), n_hidden=500, weight_decay=1e-4), 7_200)


def dbn(data, train):
    below, n = train.once(rbm), pixels(data)
    return train(DBN(n_features=n, rbm=below, n_hidden=n, lr=0.02), 2_800 if is_small(data) else 3_000, parts=[below])


def gsn(data, train):
    if is_small(data):
        sizes = {"hidden": (256, 256), "corruption_rate": 0.1, "batch": 50, "walk_steps": 1}
        return train(GSN(n_features=pixels(data), **sizes), 3_000)
    return train(GSN(n_features=pixels(data), corruption_rate=0.2, walk_steps=3), 2_400)


def made(data, train):
    if is_small(data):
        return train(MADE(n_features=pixels(data), batch=50), 1_700)
    return train(MADE(n_features=pixels(data), batch=100), 9_000)


def masked_diffusion(data, train):
    if is_small(data):
        return train(MaskedDiffusion(n_features=pixels(data), hidden=(256, 256, 256), batch=50, lr=2e-3), 3_000)
    return train(MaskedDiffusion(n_features=pixels(data), hidden=(1024, 1024), batch=100), 9_000)


def normalizing_flow(data, train):
    settings = {"n_features": pixels(data), "levels": grey_levels(data)}
    if is_small(data):
        return train(Flow(**settings, **DIGITS_SPLINE), 600)
    return train(Flow(**settings, n_layers=8, hidden=(512,), order="random", batch=128), 4_000)


def autoencoder(data, train):
    return train(AutoEncoder(n_features=pixels(data)), 3_000 if is_small(data) else 5_000)


def vae(data, train, **bound):
    settings = {"n_features": pixels(data), "binarize": True} | bound
    if is_small(data):
        return train(VAE(**settings, hidden=(128, 64), n_latent=8, batch=50), 8_000)
    return train(VAE(**settings, hidden=(200, 200), n_latent=50), 20_000)


def iwae(data, train):
    return vae(data, train, bound="iwae", n_samples=5)


def gan(data, train):
    if is_small(data):
        return train(GAN(**gan_sizes(data), r1=0.3), 7_500)
    return train(GAN(**gan_sizes(data), r1=1.0), 15_000)


def wgan(data, train):
    return train(WGAN(**gan_sizes(data)), 2_500 if is_small(data) else 5_000)


def conditional_gan(data, train):
    model = ConditionalGAN(**gan_sizes(data), n_classes=data.n_classes)
    return train(model, 5_000 if is_small(data) else 10_000)


def vqvae(data, train):
    return train(VQVAE(**code_sizes(data)), 4_000 if is_small(data) else 3_700)


def vqgan(data, train):
    return train(VQGAN(**code_sizes(data)), 4_000 if is_small(data) else 3_700)


def vqvae_and_made(data, train):
    return with_prior(train.once(vqvae), data, train)


def vqgan_and_made(data, train):
    return with_prior(train.once(vqgan), data, train)


def ddpm(data, train):
    if is_small(data):
        return train(DDPM(n_features=pixels(data), lr=2e-3, width=256, batch=128), 4_900)
    return train(
        DDPM(n_features=pixels(data), lr=2e-3, width=768, batch=128, self_conditioning=True, n_steps=200), 9_400
    )


def flow_matching(data, train):
    if is_small(data):
        return train(FlowMatching(n_features=pixels(data), lr=2e-3, width=256, batch=128, n_steps=10), 4_900)
    return train(FlowMatching(n_features=pixels(data), lr=2e-3, width=512, batch=128), 7_500)


def ebm(data, train):
    """For small pictures: the energy of larger ones needs wider layers than a CPU has time for."""
    return train(EBM(n_features=pixels(data), lr=2e-3), 5_000)


def latent_diffusion(data, train):
    below = train.once(vqvae if is_small(data) else vqgan)
    if is_small(data):
        return train(LatentDiffusion(n_features=pixels(data), width=128, vqvae=below), 3_000, parts=[below])
    return train(LatentDiffusion(n_features=pixels(data), width=512, vqvae=below), 7_000, parts=[below])


def enlarger(data, train):
    return train(Pix2Pix(**enlarger_sizes(data)), 2_000 if is_small(data) else 4_000)


class Family(NamedTuple):
    file: str  # scratchgen/models/FILE.py
    says: str  # what the model is, in a few words
    recipe: Callable  # (data, train) -> the trained model


FAMILIES = {
    "Gaussian mixture": Family("gmm", "a sum of bells, fitted by EM", gaussian_mixture),
    "EBM": Family("ebm", "any network as an energy, by its score", ebm),
    "RBM": Family("rbm", "an energy, and chains that seek low ones", rbm),
    "DBN": Family("dbn", "an RBM on the hidden units of another", dbn),
    "GSN": Family("gsn", "damage, restore, and again: a chain", gsn),
    "MADE": Family("made", "each pixel given those before it", made),
    "masked diffusion": Family("masked_diffusion", "pixels in any order, many at once", masked_diffusion),
    "normalizing flow": Family("flow", "noise, bent by a map that can be undone", normalizing_flow),
    "autoencoder": Family("autoencoder", "rows in turn: test digits, restored", autoencoder),
    "VAE": Family("vae", "codes with noise, a bound on log p", vae),
    "IWAE, 5 z": Family("vae", "the VAE, by a tighter bound", iwae),
    "GAN": Family("gan", "two networks against each other", gan),
    "WGAN-GP": Family("wgan", "a critic of bounded slope for a judge", wgan),
    "conditional GAN": Family("conditional_gan", "digits on demand: 0 to 9, in turn", conditional_gan),
    "VQ-VAE and MADE": Family("vqvae", "whole numbers for codes, their grammar", vqvae_and_made),
    "VQ-GAN and MADE": Family("vqgan", "and a discriminator against their blur", vqgan_and_made),
    "DDPM": Family("ddpm", "from noise, a little less at each step", ddpm),
    "flow matching": Family("flow_matching", "the same along straight lines, in 10 steps", flow_matching),
    "latent diffusion": Family("latent_diffusion", "diffusion of a VQ-VAE's features", latent_diffusion),
}


BLACK_AND_WHITE = ("RBM", "DBN", "MADE", "masked diffusion")  # their pixels, and those that they learn from, are 0 or 1


class Trainer:
    """train(model, steps) for recipes: trains on one Data and keeps how many seconds each model took.

    share: the fraction of the steps that is made.
    """

    def __init__(self, data, args, share=1.0):
        self.data, self.args, self.share, self.seconds, self.models = data, args, share, {}, {}

    def __call__(self, model, steps, data=None, parts=()):
        """The trained model. parts: trained models inside it, whose seconds count too."""
        model, history = train_for(model, data or self.data, self.args, self.share * steps, x_test=None)
        self.seconds[model] = sum(row["seconds"] for row in history) + sum(self.seconds[part] for part in parts)
        return model

    def once(self, recipe):
        """The model of a recipe, which is trained when it is asked for the first time."""
        if recipe not in self.models:
            self.models[recipe] = recipe(self.data, self)
        return self.models[recipe]


# ---- what recipes share ----


def pixels(data):
    """The number of pixels of a picture."""
    return data.x_train.shape[1]


def has_classes(data):
    """Whether the pictures have labels of several classes. If not, a line says that the conditional GAN is left out."""
    if data.labels_train is not None and len(np.unique(data.labels_train)) > 1:
        return True
    print("left out: conditional GAN: the pictures have no labels, or are all of one class")
    return False


def grey_levels(data):
    """How many grey levels the pixels have, 2, 17 or 256; 0 for other pixels."""
    return next((levels for levels in (2, 17, 256) if are_levels(data.x_train, levels)), 0)


def gan_sizes(data):
    """n_features of a GAN, and for small pictures networks of half the default width."""
    small = {"hidden_G": (128, 256), "hidden_D": (256, 128)} if is_small(data) else {}
    return {"n_features": pixels(data)} | small


def code_sizes(data):
    """Settings of a VQ-VAE whose codes a prior learns: 16 codes of 8 bits a picture, for small pictures of 3 bits."""
    small = {"hidden": (128, 64), "n_dim": 2, "n_embeddings": 8, "batch": 50} if is_small(data) else {}
    return {"n_features": pixels(data)} | small


def feature_model(data):
    """(a model whose features diffusion learns, its steps): of small pictures a VQ-VAE, which restores them well enough."""
    if is_small(data):
        return VQVAE(**code_sizes(data)), 4_000
    return VQGAN(**code_sizes(data)), 4_200


def enlarger_sizes(data):
    """Settings of a Pix2Pix that doubles the side of small pictures, and makes that of larger ones four times as long."""
    if is_small(data):
        sizes = {"factor": 2, "hidden_G": (256, 256), "adversarial_weight": 6.0}
    else:
        sizes = {"factor": 4, "adversarial_weight": 30.0}
    settings = {"n_features": pixels(data), "condition": "low_resolution", "error": "squares", "lr_G": 1e-3}
    return settings | sizes | {"r1": 0.1}


def with_prior(vqvae, data, train, prior="made"):
    """A MADE, or with prior=masked a masked diffusion, that learns which codes of a VQ-VAE go together."""
    sizes, steps = prior_sizes(data, prior)
    return train(CodePrior(n_features=pixels(data), vqvae=vqvae, **sizes), steps, parts=[vqvae])


def prior_sizes(data, prior):
    """(settings of a CodePrior, its steps)."""
    if is_small(data):
        kinds = {"made": {"hidden": (128,)}, "masked": {"hidden": (256, 256)}}
        sizes, steps = {"n_embed": 4, "lr": 3e-3, "averaging": 0.98}, {"made": 700, "masked": 1_500}
    else:
        kinds = {"made": {"hidden": (512,)}, "masked": {"hidden": (1024,)}}
        sizes, steps = {"n_embed": 8}, {"made": 5_000, "masked": 5_000}
    return {"prior": prior} | sizes | kinds[prior], steps[prior]


# ---- lines of the book ----

BOOK_MASKED = {"hidden": (1024,), "n_embed": 24, "batch": 200, "lr": 2e-3}  # a MaskedDiffusion of 16 characters
BOOK_STEPS = 10_000

# ---- normalizing flows of small pictures, trained for a few hundred steps: they learn 1,400 digits by heart soon ----

DIGITS_FLOW = {"order": "random", "averaging": 0.99}
DIGITS_REALNVP = DIGITS_FLOW | {"n_layers": 16, "hidden": (64,)}
DIGITS_MAF = DIGITS_FLOW | {"conditioner": "autoregressive", "n_layers": 8, "hidden": (64,), "lr": 2e-3}
DIGITS_SPLINE = DIGITS_FLOW | {"transform": "spline", "n_layers": 8, "hidden": (32,), "lr": 2e-3}
DIGITS_SPLINE |= {"n_bins": 5, "reach": 3.0}

# ---- points in the plane ----

RING_SCALE = math.sqrt(2)  # gives the ring of eight Gaussians unit variance along each axis
RING_GAN = {"n_features": 2, "output": "linear", "batch": 128, "averaging": 0.995}
RING_GAN |= {"n_latent": 2, "hidden_G": (128, 128, 128), "hidden_D": (128, 128, 128), "lr_G": 1e-3, "lr_D": 1e-3}
PLANE_DDPM = {"n_features": 2, "n_times": 100, "predict": "v", "scaling": "standard", "sampler": "ancestral"}
PLANE_DDPM |= {"width": 128, "n_blocks": 3, "n_waves": 32, "batch": 256, "lr": 2e-3}
PLANE_FLOW = {"n_features": 2, "predict": "velocity", "scaling": "standard", "time_std": 1.3, "averaging": 0.999}
PLANE_FLOW |= {"width": 128, "n_blocks": 3, "n_waves": 32, "batch": 256, "lr": 2e-3}
PLANE_EBM = {"n_features": 2, "scaling": "standard", "hidden": (64, 64, 64, 64), "batch": 256, "lr": 2e-3}
PLANE_EBM |= {"sigma_min": 0.03, "sigma_max": 2.0}
PLANE_CHAINS = {"n_features": 2, "scaling": "standard", "hidden": (64, 64, 64), "batch": 256, "lr": 1e-3}
PLANE_CHAINS |= {"objective": "contrastive", "n_chains": 256, "chain_steps": 10, "step": 1.0, "n_steps": 200}
PLANE_REALNVP = {"n_features": 2, "n_layers": 12, "hidden": (32, 32), "batch": 256, "lr": 2e-3}
PLANE_MAF = PLANE_REALNVP | {"conditioner": "autoregressive"}
PLANE_SPLINE = {"n_features": 2, "transform": "spline", "n_layers": 4, "hidden": (32, 32), "n_bins": 16, "reach": 3.0}
PLANE_SPLINE |= {"batch": 256, "lr": 5e-3}


def toy_data(name, seed):
    """The Data of a toy density in the plane. Raises UsageError for other data."""
    data = load(name, seed)
    if data.toy is None or data.toy.n_dim != 2:
        raise UsageError(f"--data {name}: this demo needs points of known density in the plane, such as ring or moons")
    return data


def plane_data(name, args):
    """The same with 200,000 training points, so that a network meets few of them more than a dozen times."""
    data, n = toy_data(name, args.seed), 10_000 if args.quick else 200_000
    return replace(data, x_train=data.toy.sample(n, Rng((args.seed, 1))), labels_train=None)
