"""A model of independent pixels learns the mean picture, and its samples are random specks.

Each pixel is a coin with a probability of its own (likelihood_coin.py). Every pixel alone is right, but pixels are no
longer correlated, and no picture is right. The model cannot tell: it finds its specks as probable as digits. MADE,
which predicts each pixel from those before it, finds them improbable.

Try `--data mnist` (minutes). Read scratchgen/nn/losses.py: bernoulli_nll; scratchgen/models/made.py.
"""

import numpy as np
from common import black_and_white, is_small, picture_path, pictures, run, train
from likelihood_coin import Coins

from scratchgen.backend import Rng, to_host
from scratchgen.models.made import MADE
from scratchgen.nn.activations import sigmoid
from scratchgen.nn.distributions import bernoulli_log_prob, sample_bernoulli
from scratchgen.nn.losses import bernoulli_nll
from scratchgen.nn.optim import Adam
from scratchgen.nn.parameters import Parameters
from scratchgen.nn.schedules import cosine
from scratchgen.plots import BLUE, INK, RED, new_figure, save_figure, show_images
from scratchgen.train.progress import told


def learn(x, steps, rng, rows=None):
    """The logits (D,) of independent pixels, learned from x (N, D), in each step from all of it or from `rows` of it."""
    coins = Coins(x.shape[1])
    params = Parameters(rng, coins=coins)
    adam = Adam(params, cosine(0.1, steps), beta2=0.99)
    for _ in told(range(steps), "step"):
        params.zero_grad()
        batch = x if rows is None else x[rng.integers(len(x), rows)]
        logits, back = coins.forward(batch, None)
        _, d_logits = bernoulli_nll(logits, batch)
        back(d_logits, inputs=False)
        adam.step()
    return coins.l


def correlation(x):
    """The correlations (D, D) of the pixels of x (N, D), 0 for pixels that are always the same."""
    centred = x - x.mean(axis=0)
    scale = np.sqrt((centred**2).mean(axis=0))
    return (centred.T @ centred / len(x)) / np.maximum(np.outer(scale, scale), 1e-6)


def between_neighbours(x, shape):
    """The mean |correlation| of two pixels side by side or one above the other, each black in 5 to 95 % of x (N, h w).

    0 where there are no such two.
    """
    table, place = np.abs(correlation(x)), np.arange(x.shape[1]).reshape(shape)
    one = np.concatenate([place[:, :-1].ravel(), place[:-1].ravel()])
    other = np.concatenate([place[:, 1:].ravel(), place[1:].ravel()])
    varies = np.abs(x.mean(axis=0) - 0.5) < 0.45
    found = table[one, other][varies[one] & varies[other]]
    return found.mean() if len(found) else 0.0


def main(args):
    data = pictures(args, least=20, grey=True)
    small, shape = is_small(data), data.shape
    data = black_and_white(data)
    rng, n = Rng((args.seed, 1)), len(data.x_test)
    x = np.concatenate([data.x_train, np.full((1, data.x_train.shape[1]), 0.5, np.float32)])
    steps = (3_000 if small else 1_500) // (10 if args.quick else 1)
    start = Rng(args.seed, "float64" if small else "float32")
    logits = learn(start.array(x), steps, start, None if small else 500)
    p, closed = sigmoid(logits), x.mean(axis=0, dtype=np.float64)
    off = np.abs(p - closed)
    print(f"p by gradient and the mean picture differ by {off.max():.1e} at most, {off.mean():.1e} on average")

    model = MADE(n_features=len(p), batch=50 if small else 100)
    model, _ = train(model, data, args, 1_680 if small else 1_800, x_test=None)
    specks = sample_bernoulli(np.tile(logits.astype(np.float32), (10_000, 1)), rng)
    drawn = to_host(model.sample(min(n, 1_000), model.rng((args.seed, 0, 2))))
    kinds = {"training digits": data.x_train, "test digits": data.x_test, "specks": specks, "MADE's": drawn}
    judges = {"independent": lambda z: bernoulli_log_prob(z, np.broadcast_to(logits, z.shape)), "MADE": model.log_prob}
    costs = {}
    for name, z in kinds.items():
        for judge, log_prob in judges.items():
            cost = costs[judge, name] = -log_prob(z[: max(n, 1_000)])
            error = cost.std() / len(cost) ** 0.5
            print(f"-log p of {name} by {judge}: {cost.mean():.2f} nats, standard error {error:.2f}")
        print(f"|correlation| of two neighbouring pixels in {name}: {between_neighbours(z, shape):.3f}")

    figure, axes = new_figure(13, 5.8, 2, 1, height_ratios=[1.15, 1])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    first, *grids = (figure.add_subplot(place) for place in above.subgridspec(1, 4))
    show_images(first, p[None], shape, 1, "p by gradient = the mean picture", pixels=240)
    for axis, (name, title) in zip(
        grids,
        {"test digits": "test digits", "specks": "drawn pixel by pixel: specks", "MADE's": "drawn from MADE"}.items(),
    ):
        show_images(axis, kinds[name][:36], shape, 6, title, pixels=40)
    *maps, left, right = (
        figure.add_subplot(place) for place in below.subgridspec(1, 5, width_ratios=[1, 1, 1, 1.3, 1.3])
    )
    table = correlation(data.x_train)
    i = (table**2).sum(axis=1).argmax()  # the pixel that knows most of the others
    for axis, (name, title) in zip(maps, {"training digits": "digits", "specks": "specks", "MADE's": "MADE"}.items()):
        one = correlation(kinds[name])[i].reshape(shape)
        image = axis.imshow(one, cmap="RdBu", vmin=-1, vmax=1)
        axis.plot(i % shape[1], i // shape[1], "x", color=INK, markersize=8)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{title}: neighbours |r| {between_neighbours(kinds[name], shape):.2f}", fontsize=10)
    figure.colorbar(image, ax=maps, location="left", shrink=0.9, label="correlation with the cross")
    for axis, judge in ((left, "independent"), (right, "MADE")):
        for name, colour in (("test digits", BLUE), ("specks", RED)):
            cost = costs[judge, name]
            label = f"{name}: {cost.mean():.1f} nats"
            axis.hist(cost, 30, density=True, color=colour, histtype="step", linewidth=1.5, label=label)
        axis.set(xlabel="-log p, nats", yticks=[], ylim=(0, 1.35 * axis.get_ylim()[1]))
        axis.legend(fontsize=8, frameon=False, loc="upper right")
    left.set_title("judged by independent pixels", fontsize=10)
    right.set_title("judged by MADE", fontsize=10)
    save_figure(figure, picture_path(args, "likelihood_independent_pixels"))


if __name__ == "__main__":
    run(main, __doc__, ignores=("device",))
