"""The critic's loss of a WGAN falls as its samples improve; a plain GAN's losses do not.

Above: losses on test pictures (blue) beside the Fréchet distance of samples (red), for a plain GAN and for WGANs by
clipping and by gradient penalty. Below: what each makes at the end, and real digits. With clipping the critic's
estimate has no known unit, because the slope that clipping allows is not known.

Try `--data mnist`. Read scratchgen/models/wgan.py, scratchgen/nn/double_backward.py.
"""

import numpy as np
from common import draw_distances, is_small, measured, pictures, run, train
from recipes import gan_sizes

from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.models.gan import GAN
from scratchgen.models.wgan import WGAN
from scratchgen.plots import BLUE, RED, new_figure, save_figure, show_images

EVERY = 5  # epochs between two measurements


def main(args):
    data = pictures(args)
    judge = FrechetJudge(data)
    small, sizes = is_small(data), gan_sizes(data)
    models = {
        "plain GAN": (GAN(**sizes, r1=0.0), "discriminator_loss"),
        "WGAN, clipping": (
            WGAN(**sizes, constraint="clip", optimizer="rmsprop", clip=0.02, lr_G=3e-4, lr_D=3e-4, d_steps=3),
            "test_wasserstein",
        ),
        "WGAN, gradient penalty": (WGAN(**sizes, lr_G=5e-4, lr_D=5e-4, d_steps=3, lam=1.0, beta2=0.99), "test_wasserstein"),
    }  # fmt: skip

    def measure(model, rng, epoch):
        return judge.measure(model.sample(2_000, rng)).columns() if not small or epoch % EVERY == 1 else {}

    figure, axes = new_figure(13, 6, 2, 1)
    for axis in axes[:, 0]:
        axis.axis("off")
    aboves, belows = (axis.get_subplotspec().subgridspec(1, n).subplots() for axis, n in zip(axes[:, 0], (3, 4)))
    for above, below, (name, (model, loss)) in zip(aboves, belows, models.items()):
        model, history = train(model, data, args, 4_000 if small else 8_000, measure=measure)
        epochs, distances = measured(history)
        followed = [row[loss] for row in history if "frechet" in row]
        late = len(epochs) // 5  # without the first steps, when everything changes
        words = f"{name}: Fréchet distance {distances[-1]}"
        if len(epochs) > 4:
            quality = np.log([distance.mean for distance in distances[late:]])
            r = np.corrcoef(quality, followed[late:])[0, 1]
            words += f"; its correlation (log) with {loss} {r:.2f}"
        print(words)
        above.plot(epochs, followed, color=BLUE)
        above.set_yscale("log" if min(followed) > 0 and max(followed) > 5 * min(followed) else "linear")
        above.set_xlabel("epoch")
        above.set_ylabel("D's loss, nats" if loss == "discriminator_loss" else "critic's estimate of W₁", color=BLUE)
        other = above.twinx()
        draw_distances(other, epochs, distances, RED, None)
        other.set_yscale("log")
        other.set_ylabel("Fréchet distance, squared", color=RED)
        above.set_title(name, fontsize=10)
        show_images(below, model.sample(48, model.rng((args.seed, 0, 2))), data.shape, 8, name)
    show_images(belows[-1], data.x_test[:48], data.shape, 8, "real test pictures")
    save_figure(figure, args.out / "gan_wasserstein.png")


if __name__ == "__main__":
    run(main, __doc__)
