"""G and D improve together, generation after generation.

Each row shows pictures of G at one moment of the training, the last row real ones. The number under a picture is D(x)
at that moment, the probability that it is real. The printed table shows what each D thinks of each G: an old D takes
the new G's pictures for real, and a new D sees through the old G's.

Try `--data mnist`. Read scratchgen/models/gan.py.
"""

from common import is_small, pictures, run, train
from recipes import gan_sizes

from scratchgen.backend import to_host
from scratchgen.models.gan import GAN
from scratchgen.nn.activations import sigmoid
from scratchgen.plots import new_figure, save_figure, show_images


def show_row(axes, x, scores, shape, name):
    """Pictures of x (N, D), one on each of the axes, with D's score under each."""
    for axis, one, score in zip(axes, x, scores):
        show_images(axis, one[None], shape, 1, rows=[name] if axis is axes[0] else ())
        axis.set_xlabel(f"{score:.2f}", fontsize=9)


def main(args):
    data = pictures(args)
    model, kept = GAN(**gan_sizes(data), averaging=0.0, r1=0.03), []

    def keep(model, row):
        kept.append((model.params_G.theta.copy(), model.params_D.theta.copy()))

    model, _ = train(model, data, args, 6_000 if is_small(data) else 9_000, on_epoch=keep, x_test=None)
    moments = [max(0, round(part * len(kept)) - 1) for part in (0.01, 0.1, 1)]

    samples = []
    for moment in moments:
        model.params_G.theta[...] = model.average.average[...] = kept[moment][0]
        samples.append(model.sample(500, model.rng((args.seed, 0, 2))))
    figure, axes = new_figure(11, 5, 4, 12)
    print("mean D(x) of:          G v1   G v2   G v3   test pictures")
    for i, moment in enumerate(moments):
        model.params_D.theta[...] = kept[moment][1]
        scores = [to_host(sigmoid(model.judge(x)))[:, 0] for x in (*samples, model.rng(0).array(data.x_test[:400]))]
        print(f"D v{i + 1}, after epoch {moment + 1:>4}: " + "".join(f"{score.mean():7.2f}" for score in scores))
        show_row(axes[i], to_host(samples[i]), scores[i], data.shape, f"G of\nepoch {moment + 1}")
    show_row(axes[3], data.x_test, scores[3], data.shape, "real")
    figure.suptitle(
        "under each picture: how likely D of the same moment (for real ones the last D) holds it for real", fontsize=10
    )
    save_figure(figure, args.out / "gan_generations.png")


if __name__ == "__main__":
    run(main, __doc__)
