"""Pictures: grids of images, points in the plane, curves. Matplotlib is imported only when something is drawn.

Nothing here uses pyplot, so no window opens and no global state changes. Pixels in [0, 1] are drawn as ink: 0 is white
paper, 1 is black.
"""

import io
import itertools
import math
import pathlib

import numpy as np

from .backend import UsageError, to_host, written_whole

PAPER, INK, BLUE, RED, GREY = "#ffffff", "#1a1a1a", "#2a6fbb", "#c8402f", "#8a8a8a"
DPI, LARGEST = 110, 150_000  # of a figure, dots an inch; of a file that is written here, bytes
COLUMNS = 5  # so many columns of a table are drawn
SMALL = 16  # the height of pictures whose pixels are seen one by one


def new_figure(width, height, rows=1, columns=1, **options):
    """(figure, array of axes (rows, columns)), sizes in inches. Raises UsageError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAPER)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(figure, path):
    """Write a .png of at most LARGEST bytes, whole or not at all, and print its path."""
    save_small(lambda dpi: rendered(figure, dpi, bbox_inches="tight", pad_inches=0.08), path)


def save_small(draw, path):
    """Write draw(dpi), an RGB image of Pillow, as a .png of at most LARGEST bytes, and print its path.

    It has 256 colours; if that is too much, fewer, and then fewer dots an inch.
    """
    tries = [(DPI, 256), (DPI, 128), *((dpi, colours) for dpi in (DPI, 95, 80, 65) for colours in (64, 32))]
    for dpi, colours in tries:
        image, made = draw(dpi), io.BytesIO()
        painted(image, *colours_of(image, colours)).save(made, "PNG", optimize=True)
        if made.tell() <= LARGEST:
            break
    write(made, path)


def save_animation(figure, draw, frames, path, fps=8, dpi=70):
    """Write a .gif of at most LARGEST bytes: draw(frame) changes the figure for each of the frames. Prints its path.

    One palette of 64 colours for all, so that nothing flickers. If that is too much, there are fewer frames, as long in all,
    then fewer colours, then smaller frames. The last one is held for two seconds.
    """
    frames = list(frames)
    for scale in (1, 0.85, 0.7):
        images = []
        for frame in frames:
            draw(frame)
            images.append(rendered(figure, scale * dpi))
        all_painted = {}  # {number of colours: the images in them}
        for colours, share in ((64, 1), (64, 0.75), (64, 0.55), (16, 0.75), (16, 0.55)):
            if colours not in all_painted:
                palette = colours_of(images[-1], colours)
                all_painted[colours] = [painted(image, *palette) for image in images]
            chosen = np.linspace(0, len(images) - 1, math.ceil(share * len(images))).round().astype(int)
            some = [all_painted[colours][i] for i in chosen]
            durations = [round(1000 * len(images) / (fps * len(some)))] * (len(some) - 1) + [2000]
            options, made = {"save_all": True, "duration": durations, "loop": 0, "optimize": True}, io.BytesIO()
            some[0].save(made, "GIF", append_images=some[1:], **options)
            if made.tell() <= LARGEST:
                return write(made, path)
    write(made, path)


def rendered(figure, dpi, **options):
    """The figure as an RGB image of Pillow."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, **options)
    return Image.open(drawn).convert("RGB")


def colours_of(image, n):
    """n colours for an image, or a few less, (n, 3): greys from black to white, the commonest others, and those furthest
    apart. And how many of them are greys."""
    from PIL import Image

    pixels, greys = np.asarray(image), max(n // 4, min(32, n // 2))
    found = np.repeat(np.linspace(0, 255, greys).round().astype(np.uint8), 3).reshape(greys, 3)
    coloured = pixels[np.ptp(pixels, axis=2) > 0]
    if len(coloured):
        # MEDIANCUT keeps the tints of large areas, MAXCOVERAGE the colours of small points.
        for method in (Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE):
            few = Image.fromarray(coloured[None]).quantize((n - greys) // 2, method)
            found = np.concatenate([found, np.array(few.getpalette(), np.uint8).reshape(-1, 3)[: (n - greys) // 2]])
    return found, greys


def painted(image, colours, greys):
    """The image in these colours (n, 3), of which the first are greys: grey stays grey, and paper white."""
    from PIL import Image

    pixels = np.asarray(image)
    index = np.rint(pixels[:, :, 0] * ((greys - 1) / 255)).astype(np.uint8)
    coloured = np.ptp(pixels, axis=2) > 0
    if coloured.any():
        distinct, which = np.unique(pixels[coloured], axis=0, return_inverse=True)
        palette, distinct = colours.astype(np.float32), distinct.astype(np.float32)
        squares = (palette**2).sum(axis=1) - 2 * distinct @ palette.T  # of distances, but for a constant
        index[coloured] = squares.argmin(axis=1).astype(np.uint8)[which.ravel()]
    made = Image.fromarray(index)
    made.putpalette(colours.ravel().tolist())
    return made


def write(made, path):
    """Write the bytes of a buffer, whole or not at all, and print the path."""
    with written_whole(path) as file:
        file.write(made.getvalue())
    print(pathlib.Path(path), flush=True)


def tile(images, shape, columns, pixels=56):
    """Images (N, D) of a shape (h, w) or (h, w, 3) as one picture of rows and columns, with lines between them.

    Small images are enlarged to about `pixels` per side. Each pixel becomes a square, so the drawing adds no blur. They get
    a margin, because 8×8 digits fill their frame. Returns (H, W, 3) floats in [0, 1].
    """
    from PIL import Image

    images = np.clip(to_host(images), 0, 1).reshape(-1, *shape)
    if len(shape) == 2:
        images = np.repeat(1 - images[..., None], 3, axis=3)  # ink on paper
    margin = 1 if shape[0] <= SMALL else 0
    images = np.pad(images, [(0, 0), (margin, margin), (margin, margin), (0, 0)], constant_values=1)
    factor = max(1, round(pixels / max(images.shape[1:3])))
    h, w, line = images.shape[1] * factor, images.shape[2] * factor, 2
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (h + line) + line, columns * (w + line) + line, 3), 0.88)
    for i, image in enumerate((255 * images).round().astype(np.uint8)):
        top, left = line + (i // columns) * (h + line), line + (i % columns) * (w + line)
        enlarged = Image.fromarray(image).resize((w, h), Image.Resampling.NEAREST)
        sheet[top : top + h, left : left + w] = np.asarray(enlarged) / 255
    return sheet


def show_images(axis, images, shape, columns, title="", rows=(), pixels=56):
    """Draw a tile of images on an axis. rows: a word for each row, written beside it."""
    sheet = tile(images, shape, columns, pixels)
    axis.imshow(sheet, interpolation="nearest" if shape[0] <= SMALL else "antialiased")
    axis.set_title(title, fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])
    if len(rows):
        step = sheet.shape[0] / len(rows)
        axis.set_yticks([step * (i + 0.5) for i in range(len(rows))], rows, fontsize=9)
        axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def name_columns(axis, names):
    """Write a name under each column of the pictures that show_images has drawn on an axis."""
    width = axis.images[0].get_array().shape[1] / len(names)
    axis.set_xticks([(i + 0.5) * width for i in range(len(names))], names, fontsize=8)
    axis.tick_params(length=0)


def show_points(axis, x, labels=None, title="", size=4, real=None, names=("x₁", "x₂")):
    """Draw points (N, 2) on an axis, coloured by label, or a histogram of (N, 1).

    Each class's name is written in the middle of its points. real: real points, drawn in grey below. names: of the two axes.
    """
    x, real = to_host(x), None if real is None else to_host(real)
    if x.shape[1] == 1:
        both = x if real is None else np.concatenate([x, real])
        bins = np.linspace(both.min(), both.max(), min(80, 5 + len(x) // 4) + 1)
        if real is not None:
            axis.hist(real[:, 0], bins, density=True, color=GREY, alpha=0.4)
        style = {} if real is None else {"histtype": "step", "linewidth": 1.5}
        axis.hist(x[:, 0], bins, density=True, color=BLUE, **style)
        axis.set(xlabel="x", ylabel="density")
        axis.set_title(title, fontsize=10)
        return
    if real is not None:
        axis.scatter(*real.T[:2], s=size, color=GREY, alpha=0.5, linewidths=0)
    if labels is None:
        axis.scatter(*x.T[:2], s=size, color=BLUE, alpha=0.5, linewidths=0)
    else:
        from matplotlib import colormaps, patheffects

        halo = [patheffects.withStroke(linewidth=4, foreground=PAPER)]
        for k in np.unique(labels):
            points, colour = x[labels == k], colormaps["tab10"](int(k) % 10)
            axis.scatter(*points.T[:2], s=size, color=colour, linewidths=0)
            place = {"ha": "center", "va": "center", "weight": "bold", "size": 12, "path_effects": halo, "zorder": 3}
            axis.text(*np.median(points, axis=0)[:2], str(k), color=colour, **place)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set(xlabel=names[0], ylabel=names[1])
    axis.set_title(title, fontsize=10)


def show_clouds(axis, mu, log_var, labels=None):
    """Draw N(mu, exp(log_var)) as ellipses of one standard deviation, mu and log_var (N, 2), coloured by label."""
    from matplotlib import colormaps
    from matplotlib.collections import EllipseCollection

    mu, log_var = to_host(mu), to_host(log_var)
    colours = BLUE if labels is None else colormaps["tab10"](labels % 10)
    options = {"units": "xy", "offsets": mu, "offset_transform": axis.transData, "linewidths": 0, "alpha": 0.25}
    width, height = 2 * np.exp(0.5 * log_var).T
    axis.add_collection(EllipseCollection(width, height, np.zeros(len(mu)), facecolors=colours, **options))
    radii = np.stack([width, height], axis=1) / 2
    axis.update_datalim(np.concatenate([mu - radii, mu + radii]))  # a collection of ellipses does not do so
    axis.autoscale_view()


def show_curves(axis, x, curves, title="", xlabel="", ylabel=""):
    """Draw {label: y} against x on an axis."""
    for (label, y), colour in zip(curves.items(), itertools.cycle((BLUE, RED, GREY, INK))):
        axis.plot(x, y, color=colour, label=label, linewidth=1.5)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(color="0.92")
    if len(curves) > 1:
        axis.legend(fontsize=8, frameon=False)


def picture_of(x, shape, path, real=None):
    """One picture of samples x (N, D), written as a .png: images of this shape in a grid, none smaller than it is; points
    (shape None) in the plane, over real points if there are any. Prints the path."""
    if shape is None:
        figure, axes = new_figure(5, 5)
        title = f"{len(x):,} samples" + ("" if real is None else f" (blue), {len(real):,} real points (grey)")
        show_points(axes[0, 0], x, title=title, size=9, real=real)
        return save_figure(figure, path)
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("pictures need Pillow: pip install pillow") from None
    slim = math.sqrt(shape[0] / shape[1])  # rows of numbers are pictures one pixel high
    columns = min(len(x), math.ceil(slim * math.sqrt(len(x))))
    sheet = Image.fromarray((255 * tile(x, shape, columns)).round().astype(np.uint8))
    with written_whole(path) as file:
        sheet.save(file, "PNG", optimize=True)
    print(pathlib.Path(path), flush=True)


def picture_of_table(x, names, path, real=None):
    """Samples of a table x (N, D), over real rows if there are any, written as a .png: each of the first COLUMNS columns
    against each other, and a histogram of each. names: of the D columns. Prints the path."""
    names = [shortened(name) for name in names[:COLUMNS]]
    n = len(names)
    side = max(4, 1.5 * n)
    figure, axes = new_figure(side, side, n, n, sharex="col")
    beside = "" if real is None else f" (blue), {len(real):,} real rows (grey)"
    figure.suptitle(f"{len(x):,} samples{beside}", fontsize=10)
    for i, j in itertools.product(range(n), repeat=2):
        axis, which = axes[i, j], [j] if i == j else [j, i]
        if i < j:  # the same as below the diagonal
            axis.set_axis_off()
            continue
        show_points(axis, x[:, which], real=None if real is None else real[:, which])
        axis.set_aspect("auto")
        axis.set(xlabel=names[j] if i == n - 1 else "", ylabel=names[i] if j == 0 and i > 0 else "")
        axis.tick_params(labelsize=7, labelleft=j == 0 and i > 0)
        axis.locator_params(nbins=4)
    save_figure(figure, path)


# Test losses that measure what `loss` does on the training data, if the training data has no column of the same name.
LIKE_LOSS = ("negative_elbo", "nll", "cross_entropy", "denoising_nll", "denoising_error", "squared_error")


def panels_of(columns):
    """{title: [columns]}: which columns of a history are drawn on one axis, the test data beside the training data."""
    panels = {}
    for name in columns:
        base = name.removeprefix("test_").removeprefix("binarized_")
        if base in LIKE_LOSS and base not in columns and "loss" in columns:
            base = "loss"
        base = {"logit_real": "D's mean logit", "logit_fake": "D's mean logit"}.get(base, base)
        panels.setdefault(base.removesuffix("_floor"), []).append(name)
    return panels


def picture_of_history(history, path, best=None):
    """The rows {column: number} of a training, drawn against its epochs, as a .png; best: an epoch to mark. Prints the path.

    A column that ends in _error is drawn as a band around another one, and one that ends in _floor as a dashed line. An axis
    is logarithmic if its numbers are positive and differ by a factor of ten or more.
    """
    columns = {name: None for row in history for name in row if name not in ("epoch", "seconds")}
    epochs = np.array([row["epoch"] for row in history])
    values = {name: np.array([row.get(name, np.nan) for row in history], float) for name in columns}
    panels = panels_of([name for name in columns if not name.endswith("_error") or name == "test_squared_error"])
    across = min(4, len(panels))
    rows = -(-len(panels) // across)
    figure, axes = new_figure(3.3 * across, 2.5 * rows + 0.3, rows, across)
    for axis, (title, names) in itertools.zip_longest(axes.flat, panels.items(), fillvalue=("", ())):
        if not names:
            axis.set_axis_off()
        for name in names:
            colour = INK if name == "test_logit_fake" else RED if name.startswith("test_") else BLUE
            known, error = np.isfinite(values[name]), values.get(f"{name}_error")
            x, y = epochs[known], values[name][known]
            floor = name.endswith("_floor")
            style = (
                {"color": GREY, "linestyle": "--"} if floor else {"color": colour, "marker": "." if len(x) < 30 else ""}
            )
            axis.plot(x, y, linewidth=1.5, label=name, **style)
            if error is not None:
                axis.fill_between(x, y - error[known], y + error[known], color=style["color"], alpha=0.2, linewidth=0)
        drawn = np.concatenate([values[name][np.isfinite(values[name])] for name in names] or [np.ones(1)])
        if len(drawn) and drawn.min() > 0 and drawn.max() >= 10 * drawn.min():
            axis.set_yscale("log")
            limits = axis.get_ylim()
            axis.set_yticks(*ticks_of(drawn))
            axis.set_ylim(limits)
            axis.minorticks_off()
        if best and names:
            axis.axvline(best, color=GREY, linestyle=":", linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(color="0.92")
        axis.tick_params(labelsize=8)
        if len(names) > 1:
            axis.legend(fontsize=7, frameon=False)
    words = ["blue: training", "red: test data"] if any(name.startswith("test_") for name in columns) else []
    words += [f"dotted: epoch {best}, the least test loss"] if best else []
    figure.suptitle(", ".join(words), fontsize=9)
    save_figure(figure, path)


def ticks_of(values):
    """(numbers around positive values, the same as text): 1, 2, 5, 10, ..., or if that is too many, powers of ten."""
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max())) + 1
    factors = (1, 2, 5) if high - low < 5 else (1,)
    ticks = [m * 10.0**power for power in range(low, high, 1 + (high - low) // 8) for m in factors]
    return ticks, [f"{tick:g}" for tick in ticks]


def shortened(name, most=24):
    """A name for an axis: not too long, and without the signs that begin a formula."""
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")
