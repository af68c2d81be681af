"""While D is ahead, the loss log(1 - D) hardly moves G, and -log D moves it most.

Above: both losses against D = D(G(z)), and their slopes in D's logit. Below: GANs in one dimension, trained by SGD
after D's start of 1,000 steps. (Adam hides the difference.) With the best D, log(1 - D) descends 2 JSD, and -log D
descends KL(p_g‖p) - 2 JSD.

Compare Arjovsky & Bottou 2017. Read scratchgen/nn/losses.py: loss_G.
"""

import math
from statistics import NormalDist

import numpy as np
from common import run
from threadpoolctl import threadpool_limits

from scratchgen.backend import Rng
from scratchgen.data.toys import Mixture
from scratchgen.metrics.divergences import grid, js, reverse_kl, wasserstein_samples
from scratchgen.models.gan import GAN
from scratchgen.nn.distributions import diagonal_gaussian_log_prob
from scratchgen.nn.losses import loss_G
from scratchgen.plots import BLUE, RED, new_figure, save_figure
from scratchgen.train.progress import told

COLOURS = {"minimax": RED, "non_saturating": BLUE}
DATA = Mixture("far", 0.5, [[4.0]])
AHEAD, ROUNDS, SEEDS = 1_000, 500, 3


def log_normal(x, mean, log_var):
    return diagonal_gaussian_log_prob(x, np.full(1, mean), np.full(1, log_var))


def slopes_at_the_best_D(mean=1.0, log_var=0.6, h=1e-4):
    """{kind: (∂loss_G/∂mean with D* held, ∂/∂mean of its divergence)} for p = N(0, 1), p_g = N(mean, exp(log_var))."""
    n = 20_000
    z = np.array([[NormalDist().inv_cdf((i + 0.5) / n)] for i in range(n)])  # equally likely
    x = mean + math.exp(0.5 * log_var) * z
    logits = (log_normal(x, 0.0, 0.0) - log_normal(x, mean, log_var))[:, None]  # D*'s: log p - log p_g
    d_x = (x - mean) * math.exp(-log_var) - x  # and their slope in x
    points, cell = grid(-15, 15, 3_000)
    log_p, log_q = log_normal(points, 0.0, 0.0), [log_normal(points, mean + s, log_var) for s in (-h, h)]
    twice_js = [2 * js(log_p, q, cell) for q in log_q]
    mixture = [reverse_kl(log_p, q, cell) - s for q, s in zip(log_q, twice_js)]
    divergences = {"minimax": twice_js, "non_saturating": mixture}
    return {
        kind: ((loss_G(logits, kind)[1] * d_x).sum(), (after - before) / (2 * h))
        for kind, (before, after) in divergences.items()
    }


@threadpool_limits.wrap(limits=1, user_api="blas")  # more threads only get in each other's way on so small a network
def train(kind, optimizer, seed, ahead, rounds):
    """D's start, then rounds: the length of G's gradient in each, and [(round, W₁ to the data), ...]."""
    rates = {"lr_G": 0.002, "lr_D": 0.02} if optimizer == "sgd" else {"lr_G": 1e-3, "lr_D": 1e-3}
    model = GAN(n_features=1, n_latent=2, hidden_G=(32, 32), hidden_D=(32, 32), output="linear", adversarial_loss=kind,
                r1=0.0, optimizer=optimizer, batch=64, averaging=0.0, **rates)  # fmt: skip
    model.build(Rng(seed, "float64"))  # float32 has no D below 1e-7
    rng = Rng((seed, 1), "float64")
    for _ in told(range(ahead), "step of D"):
        model.discriminator_loss(DATA.sample(model.batch, rng), rng)
        model.optimizer_D.step()
    real, lengths, distances = DATA.sample(2_000, Rng((seed, 2), "float64")), [], []
    for done in told(range(rounds), f"{kind}, {optimizer}: round"):
        if done % 10 == 0:
            distances.append((done, wasserstein_samples(real, model.sample(2_000, Rng((seed, 3), "float64")))))
        model.train_step(DATA.sample(model.examples_per_step, rng), rng)
        lengths.append(np.linalg.norm(model.params_G.grad))  # of the step just made
    return np.array(lengths), np.array(distances)


def running_median(values, factor=1.25):
    """Rounds, evenly spread on a logarithmic axis, and the median of values (N,) in a window about each of them."""
    rounds = np.unique(np.geomspace(1, len(values), 60).round().astype(int))
    return rounds, [np.median(values[int(r / factor) : math.ceil(r * factor)]) for r in rounds]


def main(args):
    share = 20 if args.quick else 1
    for kind, (slope, of_divergence) in slopes_at_the_best_D().items():
        name = "2 JSD" if kind == "minimax" else "KL(p_g‖p) - 2 JSD"
        print(f"at D*: slope of the {kind} loss {slope:.6f}, of {name} {of_divergence:.6f}")

    figure, axes = new_figure(11, 7.2, 2, 2)
    (curves, slopes), (lengths_axis, distances_axis) = axes
    logits = np.linspace(-14, 14, 561)[:, None]
    D = 1 / (1 + np.exp(-logits[:, 0]))
    for kind, colour in COLOURS.items():
        name = "minimax, log(1 - D)" if kind == "minimax" else "non-saturating, -log D"
        values = [float(loss_G(l[None], kind)[0]) for l in logits]
        curves.plot(D, values, color=colour, label=name)
        slopes.plot(D, np.abs(loss_G(logits, kind)[1][:, 0]) * len(logits), color=colour, label=name)  # of each alone
    for ahead, optimizer in ((AHEAD, "sgd"), (AHEAD // 5, "sgd"), (AHEAD, "adam")):
        for kind, colour in COLOURS.items():
            halved, first = [], []
            for seed in range(args.seed, args.seed + SEEDS):
                lengths, distances = train(kind, optimizer, seed, ahead // share, ROUNDS // share)
                near = distances[distances[:, 1] < distances[0, 1] / 2]
                halved.append(f"{near[0, 0]:.0f}" if len(near) else "never")
                first.append(f"{lengths[0]:.2g}")
                if (ahead, optimizer) == (AHEAD, "sgd"):
                    label = kind.replace("_", "-") if seed == args.seed else None
                    lengths_axis.plot(range(1, len(lengths) + 1), lengths, color=colour, linewidth=0.4, alpha=0.25)
                    lengths_axis.plot(*running_median(lengths), color=colour, linewidth=1.8, label=label)
                    distances_axis.plot(*distances.T, color=colour, label=label)
            print(
                f"D {ahead // share:>5} steps ahead, {optimizer}, {kind}: first gradients of length {', '.join(first)}; ",
                end="",
            )
            print(f"W₁ to the data halved after {', '.join(halved)} rounds")

    curves.set(xlabel="D(G(z))", ylabel="loss of G, nats", ylim=(-6, 6))
    curves.set_title("the two losses", fontsize=10)
    slopes.set(
        xscale="logit",
        yscale="log",
        xlabel="D(G(z)), from surely generated to surely real",
        ylabel="|∂loss / ∂logit|",
    )
    slopes.set_title("the slope that each loss gives to G", fontsize=10)
    lengths_axis.set(xscale="log", yscale="log", xlabel="rounds after D's start", ylabel="length of G's gradient")
    lengths_axis.set_title(
        f"G's gradient, D {AHEAD // share:,} steps ahead: running median, {SEEDS} seeds", fontsize=10
    )
    distances_axis.set(xlabel="rounds after D's start", ylabel="W₁ between G's points and the data", ylim=(0, None))
    distances_axis.set_title("how far from the data G is in the same runs, by SGD", fontsize=10)
    places = {curves: "upper right", slopes: "lower center", lengths_axis: "lower left", distances_axis: "upper right"}
    for axis in places:
        axis.grid(color="0.92")
        axis.legend(fontsize=8, frameon=False, loc=places[axis])
    save_figure(figure, args.out / "gan_generator_losses.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
