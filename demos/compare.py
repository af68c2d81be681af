"""Every family of generative models is trained on the same digits and compared by samples, cost and quality.

A panel shows samples of each. The table, also written as Markdown, lists stored numbers, seconds of training, Fréchet
distance, the share of the digit that is made most rarely, and -log p of test digits if the model has a p. For that the
test digits are made black and white once, by chance.

Try `--data mnist` (long). Read scratchgen/models/.
"""

import functools
import math

import numpy as np
from common import BINARIZED, codes_for, is_small, picture_path, pictures, run, sizes_for, train

from scratchgen.backend import to_host, written_whole
from scratchgen.data import Data, binarized
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.metrics.likelihood import log_likelihood
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.base import Model
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.dbn import DBN
from scratchgen.models.ddpm import DDPM
from scratchgen.models.gan import GAN
from scratchgen.models.gmm import GMM
from scratchgen.models.gsn import GSN
from scratchgen.models.latent_diffusion import LatentDiffusion
from scratchgen.models.made import MADE
from scratchgen.models.rbm import RBM
from scratchgen.models.vae import VAE
from scratchgen.models.vqgan import VQGAN
from scratchgen.models.vqvae import VQVAE
from scratchgen.models.wgan import WGAN
from scratchgen.plots import new_figure, save_figure, show_images
from scratchgen.train.progress import told

HEAD = "| model | stored numbers | training, s | Fréchet distance | rarest digit | -log p, nats | file |"
COLUMNS = 6


class Codes:
    """A VQ-VAE and a MADE that has learned which of its codes go together: codes drawn by the one, decoded by the other."""

    def __init__(self, vqvae, made):
        self.vqvae, self.made, self.rng = vqvae, made, made.rng

    def sample(self, n, rng):
        return self.vqvae.decode_codes(self.made.sample(n, rng))

    def parameters(self):
        return {f"{part}.{k}": v for part in ("vqvae", "made") for k, v in getattr(self, part).parameters().items()}


class Trainer:
    """Trains what it is given on one Data, and remembers how long each took, parts included. share: of the usual steps."""

    def __init__(self, data, args, share=1.0):
        self.data, self.args, self.share, self.small, self.seconds = data, args, share, is_small(data), {}
        self.n_features = data.x_train.shape[1]

    def __call__(self, model, steps, data=None, parts=(), **options):
        model, history = train(model, data or self.data, self.args, self.share * steps, x_test=None, **options)
        self.seconds[model] = sum(row["seconds"] for row in history) + sum(self.seconds[part] for part in parts)
        return model

    def pick(self, small, large):
        return small if self.small else large

    @functools.cached_property
    def vqvae(self):
        return self(VQVAE(**codes_for(self.data)), self.pick(4_000, 3_700))

    @functools.cached_property
    def rbm(self):
        sizes = self.pick({"n_hidden": 200, "lr": 0.2, "weight_decay": 1e-3}, {"n_hidden": 500, "weight_decay": 1e-4})
        return self(RBM(n_features=self.n_features, **sizes), self.pick(4_200, 7_200))

    def with_codes(self, vqvae):
        """The same with a prior over its codes."""
        codes = to_host(vqvae.codes(vqvae.rng(0).array(self.data.x_train)))
        sizes = self.pick(
            {"hidden": (128,), "n_embed": 4, "lr": 3e-3, "averaging": 0.98}, {"hidden": (512,), "n_embed": 8}
        )
        made = MADE(n_features=vqvae.n_codes, n_values=vqvae.n_embeddings, **sizes)
        made = self(made, self.pick(700, 5_000), Data("codes", codes, codes[:1]), parts=[vqvae])
        both = Codes(vqvae, made)
        self.seconds[both] = self.seconds[made]
        return both


def families(t):
    """{name: (file, how to train it)} of all families, in the order of the README. t: a Trainer."""
    n, pick = t.n_features, t.pick
    vae = {"hidden": (128, 64), "n_latent": 8, "batch": 50} if t.small else {"hidden": (200, 200), "n_latent": 50}
    vae |= {"n_features": n, "binarize": True}
    diffusion = {"n_features": n, "lr": 2e-3} | pick({"width": 256, "batch": 128}, {"width": 512, "batch": 64})
    mixture = pick({"n_components": 30}, {"n_components": 50, "covariance": "diagonal"}) | {"floor": 1e-2}
    gsn = (
        {"hidden": (256, 256), "corruption_rate": 0.1, "batch": 50, "walk_steps": 1}
        if t.small
        else {"corruption_rate": 0.2, "walk_steps": 3}
    )
    latent = {"n_features": n, "width": pick(128, 512)}
    return {
        "Gaussian mixture": ("gmm", lambda: t(GMM(n_features=n, **mixture), 30)),
        "RBM": ("rbm", lambda: t.rbm),
        "DBN": ("dbn", lambda: t(DBN(n_features=n, rbm=t.rbm, n_hidden=n, lr=0.02), pick(2_800, 3_000), parts=[t.rbm])),
        "GSN": ("gsn", lambda: t(GSN(n_features=n, **gsn), pick(3_000, 2_400))),
        "MADE": ("made", lambda: t(MADE(n_features=n, batch=pick(50, 100)), pick(1_700, 9_000))),
        "autoencoder": ("autoencoder", lambda: t(AutoEncoder(n_features=n), pick(3_000, 5_000))),
        "VAE": ("vae", lambda: t(VAE(**vae), pick(8_000, 20_000))),
        "IWAE, 5 z": ("vae", lambda: t(VAE(**vae, bound="iwae", n_samples=5), pick(8_000, 20_000))),
        "GAN": ("gan", lambda: t(GAN(**sizes_for(t.data), r1=pick(0.3, 1.0)), pick(7_500, 15_000))),
        "WGAN-GP": ("wgan", lambda: t(WGAN(**sizes_for(t.data)), pick(2_500, 5_000))),
        "conditional GAN": (
            "conditional_gan",
            lambda: t(ConditionalGAN(**sizes_for(t.data), n_classes=t.data.n_classes), pick(5_000, 10_000)),
        ),
        "VQ-VAE and MADE": ("vqvae", lambda: t.with_codes(t.vqvae)),
        "VQ-GAN and MADE": ("vqgan", lambda: t.with_codes(t(VQGAN(**codes_for(t.data)), pick(4_000, 3_700)))),
        "DDPM": ("ddpm", lambda: t(DDPM(**diffusion), pick(4_900, 15_000))),
        "latent diffusion": (
            "latent_diffusion",
            lambda: t(LatentDiffusion(**latent, vqvae=t.vqvae), pick(3_000, 7_000), parts=[t.vqvae]),
        ),
    }


def main(args):
    data = pictures(args)
    judge, trainer, n = FrechetJudge(data, args.device), Trainer(data, args), min(2_000, len(data.x_test))
    x_test = binarized(data).x_test
    floor, rarest = judge.floor(n), judge.rarest(data.x_test)
    print(f"{'test digits':<18}{'':>31}  Fréchet {floor:6.2f}  rarest {rarest:5.1%}")
    lines, drawn = [f"| test digits | | | {floor:.2f} | {rarest:.1%} | | |"], {f"test digits: {floor:.2f}": data.x_test}
    for name, (file, make) in told(families(trainer).items(), "model"):
        model = make()
        x = np.clip(to_host(model.sample(5 * n, model.rng((args.seed, 0, 2)))), 0, 1)
        distance = judge.mean_distance(x, n)
        rarest = judge.rarest(x)
        size = sum(params.theta.size for params in model.parameters().values())
        seconds, nats, method = trainer.seconds[model], "", ""
        if isinstance(model, Model) and (p := likelihood(model, x_test, args)):
            nats, method = f"{p.nll:.1f} ± {p.standard_error:.1f}", p.method
        cost = f"{name:<18}{size:>11,} numbers {seconds:8.1f} s"
        print(f"{cost}  Fréchet {distance:6.2f}  rarest {rarest:5.1%}  {nats} {method}")
        cells = [name, f"{size:,}", f"{seconds:.0f}", f"{distance:.2f}", f"{rarest:.1%}"]
        cells += [f"{nats} ({method})" if nats else "", f"`models/{file}.py`"]
        lines.append(f"| {' | '.join(cells)} |")
        drawn[f"{name}: {distance:.2f}"] = x
    path = picture_path(args, "compare")
    with written_whole(path.with_suffix(".md")) as sheet:
        sheet.write("\n".join([HEAD, "|---" * 7 + "|", *lines, ""]).encode())
    print(path.with_suffix(".md"))

    n_rows = math.ceil(len(drawn) / COLUMNS)
    figure, axes = new_figure(2.05 * COLUMNS, 2.25 * n_rows, n_rows, COLUMNS)
    for axis in axes.ravel()[len(drawn) :]:
        axis.axis("off")
    for axis, (title, x) in zip(axes.ravel(), drawn.items()):
        show_images(axis, x[:25], data.shape, 5, title, pixels=40)
    save_figure(figure, path)


def likelihood(model, x_test, args):
    """The Likelihood of the binarized test digits, or of a mixture's None: its density is of other pixels."""
    if isinstance(model, GMM):
        return None
    x = model.rng(0).array(x_test)
    return log_likelihood(model, x, model.rng((args.seed, 0, 3)), 500, BINARIZED)


if __name__ == "__main__":
    run(main, __doc__)
