"""Without the KL the encoder removes its noise; with it each picture has a cloud of codes near 0.

β weighs the KL. β = 0: the variances shrink to nothing, because noise only hurts restoring, and the codes drift apart
as in an autoencoder. β = 1: the clouds touch. β = 10: every cloud is N(0, I) and says nothing about x. Colours are
classes; an ellipse is one standard deviation.

Try `--data mnist`. Read scratchgen/nn/losses.py: kl_standard_normal.
"""

import numpy as np
from common import pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.vae import VAE
from scratchgen.plots import new_figure, save_figure, show_clouds, show_curves, show_points

SAYS = {  # what a weight of the KL does
    0.0: "no KL: clouds shrink\nto points, far from 0",
    1.0: "KL: clouds overlap\naround 0",
    10.0: "KL too strong:\nevery cloud is the prior",
}
SHOWN = 250


def main(args):
    data = pictures(args)
    labels = None if data.labels_test is None else data.labels_test[:SHOWN]
    figure, axes = new_figure(14, 4.2, 1, 4)
    curves = {}
    for axis, beta in zip(axes[0], SAYS):
        seen = []

        def watch(model, row, seen=seen):
            seen.append(float(model.encode(model.rng(0).array(data.x_test))[1].mean()))

        model = VAE(n_features=data.x_train.shape[1], hidden=(256, 128), n_latent=2, batch=50, beta=beta)
        model, history = train(model, data, args, steps=6_000, falling=False, on_epoch=watch)
        curves[f"β = {beta:g}"] = seen
        mu, log_var = map(to_host, model.encode(model.rng(0).array(data.x_test[:SHOWN])))
        show_clouds(axis, mu, log_var, labels)
        show_points(axis, mu, labels if beta < 5 else None, size=3, names=("z₁", "z₂"))
        limit = 1.1 * np.abs(mu).max() if beta < 5 else 3
        axis.set_aspect("equal", adjustable="box")
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
        last = history[-1]
        found = f"KL {last['test_kl']:.2f}, restoring {last['test_nll']:.1f} nats"
        axis.set_title(f"β = {beta:g}, {SAYS[beta]}\n{found}", fontsize=10)
        print(
            f"β = {beta:g}: mean log σ² {seen[-1]:.2f}, test KL {last['test_kl']:.2f}, -log p(x|z) {last['test_nll']:.2f}"
        )
    show_curves(axes[0, 3], range(1, len(seen) + 1), curves, "how wide the clouds are", "epoch", "mean log σ²")
    save_figure(figure, args.out / "vae_why_kl.png")


if __name__ == "__main__":
    run(main, __doc__)
