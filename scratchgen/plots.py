"""Pictures: grids of images, points in the plane, curves. Matplotlib is imported only when something is drawn.

Nothing here uses pyplot, so no window opens and no global state changes. Pixels in [0, 1] are drawn as ink: 0 is white
paper, 1 is black.
"""

import io
import math
import pathlib

import numpy as np

from .backend import UsageError, to_host, written_whole

PAPER, INK, BLUE, RED, GREY = "#ffffff", "#1a1a1a", "#2a6fbb", "#c8402f", "#8a8a8a"


def new_figure(width, height, rows=1, columns=1, **options):
    """(figure, array of axes (rows, columns)), sizes in inches. Raises UsageError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor=PAPER)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(figure, path):
    """Write a .png with 256 colours, which halves its size, and print its path. It is never left half written."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.08)
    # MAXCOVERAGE, because Pillow's default gives the points of some classes the same colour.
    image = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    with written_whole(path) as file:
        image.save(file, "PNG", optimize=True)
    print(pathlib.Path(path), flush=True)


def save_animation(figure, draw, frames, path, fps=8, dpi=70):
    """Write a .gif: draw(frame) changes the figure for each of the frames; the last one stays for two seconds.

    All frames share one palette of 64 colours, so that nothing flickers and the file is small. Prints its path.
    """
    from PIL import Image

    images = []
    for frame in frames:
        draw(frame)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        images.append(Image.open(drawn).convert("RGB"))
    palette = images[-1].quantize(64, Image.Quantize.MEDIANCUT)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [1000 // fps] * (len(images) - 1) + [2000]
    with written_whole(path) as file:
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
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
    margin = 1 if shape[0] <= 16 else 0
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
    axis.imshow(sheet, interpolation="antialiased")
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


def show_points(axis, x, labels=None, title="", size=4):
    """Draw points (N, 2) on an axis, coloured by label with a legend, or a histogram of (N, 1)."""
    x = to_host(x)
    if x.shape[1] == 1:
        axis.hist(x[:, 0], bins=80, density=True, color=BLUE)
    elif labels is None:
        axis.scatter(*x.T[:2], s=size, color=BLUE, alpha=0.5, linewidths=0)
    else:
        from matplotlib import colormaps

        colours = colormaps["tab10"]
        for k in np.unique(labels):
            axis.scatter(*x[labels == k].T[:2], s=size, color=colours(int(k) % 10), label=str(k), linewidths=0)
        axis.legend(markerscale=3, fontsize=7, loc="upper right", framealpha=0.8, handletextpad=0.1, borderpad=0.3)
    if x.shape[1] > 1:
        axis.set_aspect("equal", adjustable="datalim")
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


def show_curves(axis, x, curves, title="", xlabel="", ylabel=""):
    """Draw {label: y} against x on an axis."""
    for label, y in curves.items():
        axis.plot(x, y, label=label, linewidth=1.5)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(color="0.92")
    if len(curves) > 1:
        axis.legend(fontsize=8, frameon=False)


def picture_of(x, shape, path):
    """Write a .png of samples x (N, D) and print its path. It shows images of this shape in a grid, none of them reduced in
    size, or points in the plane (shape None)."""
    if shape is None:
        figure, axes = new_figure(5, 5)
        show_points(axes[0, 0], x)
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
