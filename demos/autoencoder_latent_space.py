"""A VAE's random codes decode to digits; an autoencoder's do not, because its codes leave holes.

The networks are the same, but the VAE adds noise to the codes, and its KL pulls them to N(0, I). Above: codes of two
numbers; an ellipse is one standard deviation, and 86 % of N(0, I) lies in the circle. Below: pictures that other models
decode from random codes of 16 numbers, beside real ones.

Try `--data mnist`. Read scratchgen/models/vae.py beside scratchgen/models/autoencoder.py.
"""

import math

from common import nearest, pictures, run, train

from scratchgen.backend import to_host
from scratchgen.models.autoencoder import AutoEncoder
from scratchgen.models.vae import VAE
from scratchgen.plots import INK, PAPER, new_figure, save_figure, show_clouds, show_images, show_points

RADIUS = 2


def main(args):
    from matplotlib.patches import Circle

    data = pictures(args)
    settings = {"n_features": data.x_train.shape[1], "hidden": (256, 128), "batch": 50, "likelihood": "bernoulli"}
    figure, axes = new_figure(11, 9.4, 2, 1, height_ratios=[1.45, 1])
    for axis in axes[:, 0]:
        axis.axis("off")
    above, below = (axis.get_subplotspec() for axis in axes[:, 0])
    planes, grids = (place.subgridspec(1, n).subplots() for place, n in ((above, 2), (below, 3)))
    x, labels = data.x_test[:1500], None if data.labels_test is None else data.labels_test[:1500]
    for column, (name, kind) in enumerate({"autoencoder": AutoEncoder, "VAE": VAE}.items()):
        plane, _ = train(kind(n_latent=2, **settings), data, args, steps=10_000, falling=False)
        codes = plane.encode(plane.rng(0).array(x))
        if kind is VAE:
            show_clouds(planes[column], *codes, labels)
            codes = codes[0]
        title = f"{name} with codes of 2 numbers: codes of test pictures"
        show_points(planes[column], codes, labels, title, 8, names=("z₁", "z₂"))
        planes[column].add_patch(Circle((0, 0), RADIUS, fill=False, color=INK, zorder=4))
        words = f"in the circle lie {1 - math.exp(-(RADIUS**2) / 2):.0%}\nof random codes, N(0, I)"
        style = {"textcoords": "axes fraction", "ha": "right", "va": "top", "fontsize": 9, "zorder": 4}
        style |= {"arrowprops": {"arrowstyle": "-", "color": INK}, "bbox": {"color": PAPER, "alpha": 0.8, "pad": 1}}
        planes[column].annotate(words, (RADIUS * 0.8, RADIUS * 0.6), (0.98, 0.98), **style)
        model, _ = train(kind(n_latent=16, **settings), data, args, steps=10_000, falling=False)
        made = to_host(model.sample(500, model.rng((args.seed, 0, 2))))
        distance = nearest(made, data.x_train).mean()
        print(f"{name}: random codes decode to pictures at distance {distance:.2f} from the nearest training picture")
        title = f"{name} with codes of 16 numbers:\nrandom codes decoded, {distance:.2f} from a real picture"
        show_images(grids[column], made[:100], data.shape, 10, title)
    distance = nearest(data.x_test, data.x_train).mean()
    print(f"test pictures lie at distance {distance:.2f}")
    show_images(
        grids[2], data.x_test[:100], data.shape, 10, f"real test pictures,\n{distance:.2f} from another real one"
    )
    save_figure(figure, args.out / "autoencoder_latent_space.png")


if __name__ == "__main__":
    run(main, __doc__)
