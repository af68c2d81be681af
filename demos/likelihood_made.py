"""MADE writes digits pixel by pixel and knows exactly how probable each picture is.

Above: test digits, samples, -log p while training. Below, for one test digit: the predictions of each pixel from those
before it; how much each pixel surprises the model, which adds up to -log p; which predictions move if the marked pixel
changes (only later ones); -log p of samples and of digits upside down.

Try `--data mnist` (minutes). Read scratchgen/models/made.py.
"""

import numpy as np
from common import black_and_white, independent_nll, is_small, picture_path, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.made import MADE
from scratchgen.nn.activations import sigmoid
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_figure, show_curves, show_images


def nll(model, x):
    """-log p of each row of x (N, n_features), on the host."""
    return -to_host(model.log_prob(model.rng(0).array(x)))


def expectations(model, x):
    """p(x_d = 1 | x_<d) of every pixel of x (N, n_features), on the host."""
    with model.average.swapped():
        return to_host(sigmoid(model.conditionals(model.rng(0).array(x), 0, None)[0]))


def show_map(axis, values, shape, title, colours, label, ticks=None):
    """A number for each pixel as a colour, with a bar that says which is which; ticks: {number: word} on the bar."""
    image = axis.imshow(values.reshape(shape), cmap=colours, vmin=0, vmax=max(values.max(), 0.01))
    bar = axis.figure.colorbar(image, ax=axis, location="bottom", shrink=0.9, aspect=16)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if ticks:
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)


def main(args):
    data = pictures(args, least=2, grey=True)
    small, shape = is_small(data), data.shape
    data = black_and_white(data)
    x_train, x_test = data.x_train, data.x_test
    some = x_train[:: max(1, len(x_train) // len(x_test))]  # about as many training pictures
    model = MADE(n_features=x_test.shape[1], batch=50 if small else 100)
    steps = 1_680 if small else 13_200
    model, history = train(
        model, data, args, steps, measure=lambda model, rng, epoch: {"train_nll": nll(model, some).mean()}
    )

    samples = to_host(model.sample(min(len(x_test), 1_000), model.rng((args.seed, 0, 2))))
    upside_down = x_test.reshape(-1, *shape)[:, ::-1].reshape(x_test.shape)
    costs = {"test digits": x_test, "drawn from the model": samples, "test digits upside down": upside_down}
    costs = {name: nll(model, x) for name, x in costs.items()}
    found = costs["test digits"]
    print(f"{len(history)} passes in {sum(row['seconds'] for row in history):.0f} s")
    print(f"pictures made black and white {'where more than half grey' if small else 'once, by sampling'}")
    print(f"exact test NLL {found.mean():.2f} nats, standard error {found.std() / len(found) ** 0.5:.2f}")
    print(
        f"training pictures {history[-1]['train_nll']:.2f}, test pictures as independent pixels {independent_nll(data):.2f}"
    )
    print(", ".join(f"{name} {cost.mean():.2f}" for name, cost in costs.items()))

    figure, axes = new_figure(13.5, 7.6, 2, 1, height_ratios=[1.2, 1])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    left, middle, right = (figure.add_subplot(place) for place in above.subgridspec(1, 3, width_ratios=[1, 1, 1.1]))
    show_images(left, x_test[:64], shape, 8, "test digits, black and white", pixels=40)
    show_images(middle, samples[:64], shape, 8, "drawn from the model", pixels=40)
    curves = {"training pictures": "train_nll", "test pictures": "test_binarized_nll"}
    curves = {label: [row[name] for row in history] for label, name in curves.items()}
    show_curves(right, [row["epoch"] for row in history], curves, "-log p, exact", "epoch", "nats per picture")

    x = x_test[np.argsort(found)[len(found) // 2]]
    expected = expectations(model, x[None])[0]
    surprise = -np.log(np.where(x == 1, expected, 1 - expected))
    moved = np.abs(expectations(model, np.abs(x - np.eye(len(x)))) - expected)  # row i: by flipping pixel i
    low, high = len(x) // 3, len(x) // 2  # of the black pixels about the middle the one that matters most
    i = low + (x * moved.sum(axis=1))[low:high].argmax()
    *maps, last = (figure.add_subplot(place) for place in below.subgridspec(1, 5, width_ratios=[1, 1, 1, 1, 1.5]))
    show_map(maps[0], x, shape, "a test digit,\nwritten row by row", "Greys", "pixel", {0: "white", 1: "black"})
    show_map(
        maps[1], expected, shape, "each pixel as predicted\nfrom the pixels before", "Greys", "probability of black"
    )
    title = f"surprise of each pixel:\n{surprise.sum():.1f} in all, which is -log p"
    show_map(maps[2], surprise, shape, title, "Reds", "nats")
    title = "how each prediction changes\nif the pixel at × is flipped"
    show_map(maps[3], moved[i], shape, title, "Blues", "change of the probability")
    maps[3].plot(i % shape[1], i // shape[1], "x", color=RED, markersize=10, markeredgewidth=2)
    for (name, cost), colour in zip(costs.items(), (BLUE, RED, GREY)):
        last.hist(cost, 30, density=True, color=colour, histtype="step", linewidth=1.5, label=name)
    last.set(xlabel="-log p of a picture, nats", yticks=[], ylim=(0, 1.5 * last.get_ylim()[1]))
    last.set_ylabel("how many pictures, as a share", fontsize=9)
    last.set_title("how probable whole pictures are:\nto the left the more probable ones", fontsize=10)
    last.legend(fontsize=8, frameon=False, loc="upper right")
    save_figure(figure, picture_path(args, "likelihood_made"))


if __name__ == "__main__":
    run(main, __doc__)
