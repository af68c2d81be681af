"""A Boltzmann machine learns digits from an energy alone, and Gibbs chains draw what it has learned.

Above: test digits, then samples of an RBM and of a deep belief network (DBN). Below: weights of hidden units (red
raises a pixel, blue lowers it); -log p for 16 hidden units, where the exact value shows that annealed importance
sampling is accurate; -log p of all models, for the DBN a bound.

Try `--data mnist` (minutes). Read scratchgen/models/rbm.py, scratchgen/models/dbn.py, scratchgen/metrics/annealed.py.
"""

import numpy as np
from common import black_and_white, independent_nll, is_small, picture_path, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.metrics.annealed import annealed_log_z
from scratchgen.metrics.likelihood import annealed
from scratchgen.models.dbn import DBN
from scratchgen.models.rbm import RBM
from scratchgen.nn.activations import sigmoid
from scratchgen.nn.distributions import sample_bernoulli
from scratchgen.plots import BLUE, GREY, RED, new_figure, save_figure, show_images

N_CHAINS = 100  # of annealing


def small_machine(data, args, steps, **settings):
    """A machine of 16 hidden units and its history: exact nll of the test digits, and nll by annealing, every few epochs."""
    n_epochs = args.epochs or max(1, steps // (20 if args.quick else 1) // max(1, len(data.x_train) // 50))
    every = max(1, n_epochs // 20)

    def measure(model, rng, epoch):
        if epoch % every and epoch != 1:
            return {}
        x, log_z = model.rng(0).array(data.x_test), model.log_z()
        estimate = annealed_log_z(model, rng, N_CHAINS, 300)
        error = estimate.log_z - log_z
        return {"nll": float(-model.log_p(x, log_z).mean()), "error": error, "se": estimate.standard_error}

    model = RBM(n_features=data.x_train.shape[1], n_hidden=16, batch=50, n_chains=50, **settings)
    model, history = train(model, data, args, steps, measure=measure, x_test=None)
    return model, [row for row in history if "nll" in row]


def probabilities(model, n, rng):
    """The probabilities of the pixels in the last step of n chains, (n, n_features) on the host."""
    if isinstance(model, DBN):
        return to_host(sigmoid(model.rbm.energy.down(RBM.sample(model, n, rng))))
    h = sample_bernoulli(model.energy.up(model.sample(n, rng)), rng)
    return to_host(sigmoid(model.energy.down(h)))


def show_filters(axis, W, shape, columns, title):
    """The largest columns of W (n_features, n) as pictures: red where a unit raises a pixel, blue where it lowers it."""
    W = W[:, np.argsort(-(W * W).sum(axis=0))[: columns * columns]].T.reshape(-1, *shape)
    W = np.pad(W, [(0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    sheet = W.reshape(columns, columns, *W.shape[1:]).swapaxes(1, 2).reshape(columns * W.shape[1], -1)
    limit = np.nanquantile(np.abs(sheet), 0.99)
    axis.imshow(sheet, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)


def main(args):
    data = pictures(args, least=2, grey=True)
    small, shape = is_small(data), data.shape
    data = black_and_white(data)
    x_test, seed = data.x_test, (args.seed, 0, 2)
    found = {"independent pixels": independent_nll(data)}
    print(f"pictures made black and white {'where more than half grey' if small else 'once, by sampling'}")

    steps, lr = (14_000, 0.2) if small else (4_800, 0.1)
    histories = {}
    for name, persistent in (("persistent chains", True), ("CD-1", False)):
        _, histories[name] = small_machine(data, args, steps, lr=lr, persistent=persistent)
        last = histories[name][-1]
        print(
            f"16 hidden units, {name}: exact test NLL {last['nll']:.2f} nats, by annealing {last['nll'] + last['error']:.2f}"
        )
        found[f"16 units, {name}"] = last["nll"]
    errors = np.array([[row["error"], row["se"]] for rows in histories.values() for row in rows])
    print(
        f"log Z by {N_CHAINS} chains over 300 temperatures minus the exact log Z, {len(errors)} times: at most ", end=""
    )
    print(
        f"{np.abs(errors[:, 0]).max():.3f} nats, mean {errors[:, 0].mean():+.3f}, standard error {errors[:, 1].mean():.3f}"
    )

    n_hidden, n_betas = (200, 2_000) if small else (500, 10_000)
    n_betas = n_betas // 20 if args.quick else n_betas
    rbm = RBM(n_features=x_test.shape[1], n_hidden=n_hidden, lr=lr, weight_decay=1e-3 if small else 1e-4)
    rbm, history = train(rbm, data, args, 4_200 if small else 7_200, x_test=None)
    dbn = DBN(n_features=rbm.n_features, n_hidden=rbm.n_features, rbm=rbm, lr=lr / 10)
    dbn, history_top = train(dbn, data, args, 2_800 if small else 3_000, x_test=None)
    for name, model, rows in ((f"{n_hidden} units", rbm, history), ("DBN, a bound", dbn, history_top)):
        estimate = annealed_log_z(model, model.rng((args.seed, 0, 3)), N_CHAINS, n_betas)
        nll = {}
        for part, x in (("training", data.x_train[: len(x_test)]), ("test", x_test)):
            x = model.rng(0).array(x)
            nll[part] = annealed(model, x, estimate, model.rng(seed))
        found[name] = nll["test"].nll
        print(f"{name}: test NLL {nll['test']}")
        print(
            f"  training {nll['training'].nll:.2f}; {len(rows)} epochs in {sum(row['seconds'] for row in rows):.0f} s"
        )
        print(
            f"  log Z {estimate.log_z:.2f} ± {estimate.standard_error:.2f} by {N_CHAINS} chains, {n_betas:,} ", end=""
        )
        print(f"temperatures, effective sample size {estimate.effective_sample_size:.0f}", flush=True)

    figure, axes = new_figure(11.5, 8, 2, 1, height_ratios=[1, 0.95])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    given, *drawn = (figure.add_subplot(place) for place in above.subgridspec(1, 3))
    show_images(given, x_test[:64], shape, 8, "test digits, black and white", pixels=40)
    for axis, model, name in zip(drawn, (rbm, dbn), (f"{n_hidden} hidden units", "deep belief network")):
        x = probabilities(model, 64, model.rng((args.seed, 0, 4)))
        show_images(axis, x, shape, 8, f"{name}, after 1,000 Gibbs steps", pixels=40)
    left, middle, right = (figure.add_subplot(place) for place in below.subgridspec(1, 3, width_ratios=[1, 1, 0.8]))
    show_filters(left, to_host(rbm.energy.W), shape, 8, f"weights of 64 of the {n_hidden} hidden units")
    for (name, rows), colour in zip(histories.items(), (BLUE, RED)):
        epochs = [row["epoch"] for row in rows]
        middle.plot(epochs, [row["nll"] for row in rows], color=colour, label=f"{name}, exact")
        estimates = [row["nll"] + row["error"] for row in rows]
        middle.plot(epochs, estimates, "o", color=colour, markersize=4, fillstyle="none", label=f"{name}, by annealing")
    middle.set(xlabel="epoch", ylabel="nats per picture")
    middle.set_title("-log p of test digits, 16 hidden units", fontsize=10)
    middle.grid(color="0.92")
    middle.legend(fontsize=8, frameon=False)
    bars = right.barh(range(len(found)), list(found.values()), color=[GREY, BLUE, RED, BLUE, BLUE])
    right.bar_label(
        bars, [f"{name}: {nll:.1f}" for name, nll in found.items()], fontsize=8, padding=-4, label_type="edge"
    )
    for label in right.texts:
        label.set(ha="right", color="white")
    right.set(yticks=[], ylim=(4.5, -0.5), xlabel="nats per picture")
    right.set_title("-log p of test digits", fontsize=10)
    save_figure(figure, picture_path(args, "chain_boltzmann"))


if __name__ == "__main__":
    run(main, __doc__)
