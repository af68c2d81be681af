"""In one dimension a GAN can be seen whole: the data, p_g, D, and where G carries each z.

At first p_g lies beside the data, and D, trained alone, comes near p / (p + p_g). G follows D's slope. At the end p_g
lies on the data, and D = ½ there. Arrows join z and x = G(z); where they crowd, p_g is high.

Compare figure 1 of Goodfellow et al. 2014. Read scratchgen/models/gan.py.
"""

from statistics import NormalDist

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.data.toys import Mixture
from scratchgen.metrics.divergences import wasserstein_samples
from scratchgen.models.gan import GAN
from scratchgen.nn.activations import sigmoid
from scratchgen.nn.optim import Adam
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_animation, save_figure
from scratchgen.train.progress import told
from scratchgen.train.threads import blas_threads

DATA = Mixture("bumps", 0.5, [[-1.0], [1.0]], [0.6, 0.4])
X = np.linspace(-4, 6, 201, dtype=np.float32)  # where D is drawn; the edges of p_g's bins
QUANTILES = np.array([[NormalDist().inv_cdf((i + 0.5) / 50_000)] for i in range(50_000)], np.float32)
ARROWS = 24


def state(model):
    """What is drawn of a moment: D on X, p_g between its points, and G of every z in QUANTILES."""
    d = sigmoid(model.judge(X[:, None])[:, 0])
    made = model.generator(QUANTILES)[:, 0]
    p_g = np.histogram(made, X)[0] / (len(made) * (X[1] - X[0]))
    return d, p_g, made


def draw(above, below, moment, title):
    d, p_g, made = moment
    p = np.exp(DATA.log_density(X[:, None]))
    middles = (X[1:] + X[:-1]) / 2
    for axis in (above, below):
        axis.clear()
    above.fill_between(X, p, color=GREY, alpha=0.3, linewidth=0, label="data, p")
    above.plot(middles, p_g, color=BLUE, label="generated, p_g")
    above.plot(X, d, color=RED, label="D")
    above.axhline(0.5, color=RED, linewidth=0.6, linestyle=":")
    above.legend(fontsize=8, frameon=False, loc="upper right")
    above.set(xlim=(X[0], X[-1]), ylim=(0, 1.5), xticklabels=[], yticks=[0, 0.5, 1], ylabel="density; D")
    above.set_title(title, fontsize=9)
    some = slice(len(made) // ARROWS // 2, None, len(made) // ARROWS)
    z, x = QUANTILES[some, 0] + 1, made[some]  # z = 0 stands under the middle of the picture
    below.quiver(
        z,
        0 * z,
        x - z,
        1 + 0 * z,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=1.5,
        units="dots",
        color=BLUE,
        headwidth=6,
    )
    below.set(xlim=(X[0], X[-1]), ylim=(0, 1), yticks=[0, 1], yticklabels=["z", "x"], xlabel="x = G(z)")
    below.tick_params(axis="y", length=0)


def main(args):
    ahead, rounds = (40, 400) if args.quick else (500, 8_000)
    model = GAN(
        n_features=1, n_latent=1, hidden_G=(32, 32), hidden_D=(32, 32), output="linear", r1=0.05, batch=256,
        lr_G=5e-4, lr_D=2e-3, d_steps=2, decay_steps=rounds, averaging=0.0,
    ).build(Rng(args.seed))  # fmt: skip
    model.params_G.named()["generator.4.b"][...] = 3.5  # G starts beside the data
    rng, moments = model.rng((args.seed, 1)), {-ahead: state(model)}
    alone = Adam(model.params_D, model.lr_D)  # its own: steps of optimizer_D would let D's rate fall to 0 before G's
    with blas_threads(1):
        for step in told(range(1, ahead + 1), "step of D"):
            model.discriminator_loss(DATA.sample(model.batch, rng), rng)
            alone.step()
            if step % (ahead // 4) == 0:
                moments[step - ahead] = state(model)
        for step in told(range(1, rounds + 1), "round"):
            model.train_step(DATA.sample(model.examples_per_step, rng), rng)
            if step % (rounds // 400) == 0:
                moments[step] = state(model)
    x = DATA.sample(50_000, rng)
    figure, axes = new_figure(13, 4.6, 2, 4, height_ratios=[2, 1])
    first = rounds // 50
    names = {-ahead: "start", 0: f"after {ahead} steps of D alone", first: f"then {first} rounds of both"}
    for (above, below), (step, name) in zip(axes.T, (names | {rounds: f"{rounds:,} rounds"}).items()):
        d, _, made = moments[step]
        off, far = np.abs(np.interp(x[:, 0], X, d) - 0.5).mean(), wasserstein_samples(x, made)
        draw(above, below, moments[step], f"{name}\nover the data |D - ½| = {off:.3f};  W₁ = {far:.2f}")
        print(f"{name}: mean |D - ½| over the data {off:.4f}, Wasserstein distance of p_g to the data {far:.3f}")
        if step > -ahead:
            above.get_legend().remove()
            above.set(ylabel="", yticklabels=[])
    print(f"two samples of the data, 50,000 points each: {wasserstein_samples(x, DATA.sample(50_000, rng)):.3f}")
    save_figure(figure, args.out / "gan_1d.png")

    figure, axes = new_figure(6, 4.8, 2, 1, height_ratios=[2, 1])
    steps = np.array([step for step in moments if step > 0])
    chosen = steps[
        np.unique(np.geomspace(1, len(steps), 8 if args.quick else 40).round().astype(int) - 1)
    ]  # the beginning moves fastest

    def frame(step):
        name = f"D alone, step {step + ahead}" if step <= 0 else f"round {step:,} of both"
        draw(axes[0, 0], axes[1, 0], moments[step], name)

    frames = [*(step for step in moments if step <= 0), *chosen]
    save_animation(figure, frame, told(frames, "frame"), args.out / "gan_1d.gif")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
