"""Nine heads and one tail: the likelihood is greatest at p = 0.9, and the gradient finds it.

The gradient climbs p⁹ (1 - p) in the logit of p; its slope is 0 where p is the share of heads. Without tails the logit
grows for ever; one imagined head and tail stop it (Laplace's rule). Below right: ten times as many tosses make p known
√10 times as well.

Try `--seed 1`. Read scratchgen/nn/losses.py: bernoulli_nll; scratchgen/nn/optim.py: SGD.
"""

import math

import numpy as np
from common import run

from scratchgen.backend import Rng
from scratchgen.check.gradcheck import check_layer
from scratchgen.nn.activations import sigmoid
from scratchgen.nn.layer import Layer, Weight
from scratchgen.nn.layers import add_rows
from scratchgen.nn.losses import bernoulli_nll
from scratchgen.nn.optim import SGD
from scratchgen.nn.parameters import Parameters
from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

P = np.linspace(0.0005, 0.9995, 1_999)


class Coins(Layer):
    """D coins: the logits l (D,) of their heads, the same in each of B rows of tosses.      dl = Σ_batch dy"""

    def __init__(self, n):
        self.l = Weight((n,))  # 0: p = ½

    def forward(self, x, rng):  # x (B, D): its shape alone counts
        def backward(dy, learn=True, inputs=True):
            if learn:
                add_rows(self.dl, dy)
            if inputs:
                return 0 * dy

        return self.l + 0 * x, backward


def tosses(heads, tails):
    """The tosses (heads + tails, 1), 1 for heads."""
    return np.repeat([[1.0], [0.0]], [heads, tails], axis=0)


def ascend(x, steps, lr=2.0):
    """The coins and their logits (steps + 1, D) on the way up the likelihood of the tosses x (B, D), from p = ½."""
    coins = Coins(x.shape[1])
    params = Parameters(Rng(0, "float64"), coins=coins)
    sgd, path = SGD(params, lr), [coins.l.copy()]
    for _ in range(steps):
        params.zero_grad()
        logits, back = coins.forward(x, None)
        _, d_logits = bernoulli_nll(logits, x)
        back(d_logits, inputs=False)
        sgd.step()
        path.append(coins.l.copy())
    return coins, np.array(path)


def log_likelihood(p, heads, tails):
    return heads * np.log(p) + tails * np.log(1 - p)


def half_width(heads, tails):
    """Half the width of the interval of p whose log-likelihood is at most ½ below the greatest: σ, were it a Gaussian."""
    p = np.linspace(0, 1, 2_000_001)[1:-1]
    value = log_likelihood(p, heads, tails)
    inside = p[value > value.max() - 0.5]
    return (inside[-1] - inside[0]) / 2


def main(args):
    print(check_layer(Coins(3), (4, 3)))
    steps, long = 200, 300 if args.quick else 10_000
    path = ascend(tosses(9, 1), long)[1][:, 0]
    p = sigmoid(path[: steps + 1])
    print(f"9 heads, 1 tail: p = {p[-1]:.10f} after {steps} steps, closed form 0.9; off by {abs(p[-1] - 0.9):.1e}")
    print(f"likelihood there {math.exp(log_likelihood(p[-1], 9, 1)):.6f}, of a fair coin {0.5**10:.6f}")
    certain = ascend(tosses(10, 0), long)[1][:, 0]
    laplace = ascend(tosses(11, 1), long)[1][:, 0]
    for n in (100, long):
        print(f"10 heads, 0 tails: after {n:,} steps l = {certain[n]:.4f}, log(2 steps) = {math.log(2 * n):.4f}")
    print(f"with one imagined head and tail p = {sigmoid(laplace[-1]):.10f}, closed form 11/12 = {11 / 12:.10f}")

    figure, axes = new_figure(10.5, 6.6, 2, 2)
    (first, second), (third, fourth) = axes
    shown = [0, 1, 2, 3, 4, 6, 9, 14, 25, steps]
    for axis, f, name, label in (
        (first, lambda p: np.exp(log_likelihood(p, 9, 1)), "p⁹ (1 - p)", "likelihood"),
        (second, lambda p: log_likelihood(p, 9, 1), "9 log p + log(1 - p)", "log-likelihood, nats"),
    ):
        axis.plot(P, f(P), color=BLUE)
        axis.plot(
            p[shown], f(p[shown]), "o-", color=INK, markersize=4, linewidth=0.6, label="on the way up, from p = ½"
        )
        axis.plot(p[-1], f(p[-1]), "o", color=RED, markersize=7, label=f"after {steps} steps: p = {p[-1]:.6f}")
        axis.set(xlabel="p, the chance of heads", ylabel=label)
        axis.set_title(name, fontsize=10)
        axis.legend(fontsize=8, frameon=False, loc="upper left" if axis is first else "lower center")
    second.set(ylim=(-15, -2))

    at = np.arange(1, long + 1)
    third.plot(at, certain[1:], color=RED, label="10 heads, 0 tails")
    third.plot(at, np.log(2 * at), color=INK, linestyle=":", label="log(2 · steps)")
    third.plot(at, laplace[1:], color=BLUE, label="with an imagined head and tail: log 11")
    third.plot(at, path[1:], color=GREY, label="9 heads, 1 tail: log 9")
    third.set(xscale="log", xlabel="steps", ylabel="logit l")
    third.set_title("without tails the logit grows for ever", fontsize=10)
    third.legend(fontsize=8, frameon=False, loc="upper left")

    rng, repeats = Rng(args.seed, "float64"), 1_000 if args.quick else 20_000
    for n, colour in ((10, GREY), (100, BLUE), (1_000, RED)):
        heads = round(0.9 * n)
        value = log_likelihood(P, heads, n - heads)
        found = np.concatenate([(rng.uniform((repeats // 20, n)) < 0.9).mean(axis=1) for _ in range(20)])
        width, formula = half_width(heads, n - heads), math.sqrt(0.09 / n)
        print(f"{n:>5} tosses: half-width {width:.4f}, √(p(1-p)/n) {formula:.4f}, spread of h/n {found.std():.4f}")
        fourth.plot(P, np.exp(value - value.max()), color=colour, label=f"{n:,} tosses: ± {width:.2g}")
    fourth.axhline(math.exp(-0.5), color=GREY, linewidth=0.6, linestyle=":")
    fourth.set(xlim=(0.5, 1), xlabel="p, after nine heads in ten", ylabel="likelihood / its greatest")
    fourth.set_title("how precisely n tosses determine p", fontsize=10)
    fourth.legend(fontsize=8, frameon=False, loc="upper left")
    save_figure(figure, args.out / "likelihood_coin.png")


if __name__ == "__main__":
    run(main, __doc__, ignores=("data", "epochs", "device"))
