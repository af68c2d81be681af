"""A network that has learned to remove noise brings a ring, moons and a swiss roll back out of it.

For each shape the upper row shows data with more and more noise. The lower row, read from right to left, starts as
noise and is brought back in 100 steps. In blue: the distance of samples to real points over that of real points to each
other; 1 is perfect.

Try `--data grid,circle`. Read scratchgen/models/ddpm.py, scratchgen/models/parts/diffusion.py.
"""

from common import run, train
from recipes import PLANE_DDPM, toy_data

from scratchgen.backend import to_host
from scratchgen.metrics.transport import ToyJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.plots import BLUE, GREY, INK, new_figure, save_animation, save_figure
from scratchgen.train.progress import told

SHOWN = (0, 5, 15, 35, 60, 100)
FRAMES = (0, 1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 25, 30, 35, 40, 50, 60, 80, 100)


def there_and_back(model, data, seed, n=1_500):
    """{t: points (n, 2)} of data noised to t, and of samples on their way back, in the units of x_0."""
    rng = model.rng((seed, 0, 2))
    x_0 = model.scaler(rng.array(data.x_test[:n]))
    eps = rng.normal(x_0.shape)
    there = {t: to_host(model.q_sample(x_0, rng.array([t] * len(x_0)), eps)) for t in range(model.n_times + 1)}
    return there, {t: to_host(x_t) for t, x_t in model.path(rng.normal(x_0.shape), rng)}


def draw(axis, x, colour, title="", real=None):
    axis.clear()
    if real is not None:
        axis.scatter(*real.T, s=1.2, color=GREY, alpha=0.4, linewidths=0)
    axis.scatter(*x.T, s=1.2, color=colour, alpha=0.6, linewidths=0)
    axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)


def main(args):
    names = args.data.split(",")
    sets = [toy_data(name, args.seed) for name in names]  # complains before anything is trained
    n, n_samples = (1_000, 1) if args.quick else (5_000, 4)
    found = {}
    for name, data in zip(names, sets):
        model, history = train(DDPM(**PLANE_DDPM), data, args, 5_000, labels=None, x_test=None)
        judge, ratios = ToyJudge(data, n, args.seed), {}
        for label, options in {"ancestral": {}, "DDIM-20": {"sampler": "ddim", "n_steps": 20}}.items():
            samples = [
                model.generate(n, model.rng((args.seed, 0, 3, i)), **options)
                for i in told(range(n_samples), f"{label}: sample")
            ]
            ratios[label] = judge.over_floor(samples)
        seconds = sum(row["seconds"] for row in history)
        words = ", ".join(f"{label} {ratio:.2f}" for label, ratio in ratios.items())
        print(f"{name}: trained in {seconds:.0f} s; sliced Wasserstein distance / floor ({judge.floor:.4f}): {words}")
        found[name] = there_and_back(model, data, args.seed), ratios

    figure, axes = new_figure(1.55 * len(SHOWN), 3.35 * len(names), 2 * len(names), len(SHOWN))
    for i, (clouds, ratios) in enumerate(found.values()):
        words = " / ".join(f"{ratio:.2f}" for ratio in ratios.values())
        for row, (cloud, colour) in enumerate(zip(clouds, (INK, BLUE))):
            for axis, t in zip(axes[2 * i + row], SHOWN):
                title = ("real points" if t == 0 else f"t = {t}") if row == 0 else f"samples: {words}" if t == 0 else ""
                draw(axis, cloud[t], colour, title, clouds[0][0] if row and t == 0 else None)
        axes[2 * i, 0].set_ylabel("noised  →", fontsize=9)
        axes[2 * i + 1, 0].set_ylabel("←  brought back", fontsize=9)
    words = "samples over real points (grey); how many times as far off as other real points: ancestral / DDIM-20"
    figure.supxlabel(words, fontsize=9)
    save_figure(figure, args.out / "diffusion_2d.png")

    figure, axes = new_figure(2.2 * len(names), 2.5, 1, len(names))

    def frame(step):
        back, t = step
        for axis, name in zip(axes[0], names):
            real = found[name][0][0][0] if back and t == 0 else None
            draw(axis, found[name][0][back][t], (INK, BLUE)[back], f"{('noised', 'brought back')[back]}, t = {t}", real)

    steps = [(0, t) for t in FRAMES] + [(1, t) for t in reversed(FRAMES)]
    save_animation(figure, frame, told(steps, "frame"), args.out / "diffusion_2d.gif")


if __name__ == "__main__":
    run(main, __doc__, data="ring,moons,swiss_roll")
