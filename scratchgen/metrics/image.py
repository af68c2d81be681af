"""How near a picture is to the one it should be."""

import numpy as np

from ..backend import to_host


def psnr(x_hat, x):
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error), averaged over pictures (N, D) in [0, 1].

    x_hat is clipped to [0, 1] first, as a screen would. Equal pictures give infinity. Raises ValueError for unequal shapes.
    """
    x_hat, x = np.clip(to_host(x_hat), 0, 1).astype(np.float64), to_host(x).astype(np.float64)
    if x_hat.shape != x.shape:
        raise ValueError(f"psnr: x_hat has shape {x_hat.shape} and x {x.shape}; both must be equal")
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(np.mean((x_hat - x) ** 2, axis=1))))


def sharpness(x, shape):
    """The mean length of the gradient, in pixel values per pixel, of pictures x (N, D) of a shape (h, w) or (h, w, 3).

    The gradient is by differences to the right and to the pixel below. Blur lowers it, noise raises it, and it grows with
    the amount of ink: a number to hold beside that of real pictures, not one to maximise.
    """
    images = to_host(x).astype(np.float64).reshape(len(x), *shape)
    down = images[:, 1:, :-1] - images[:, :-1, :-1]
    right = images[:, :-1, 1:] - images[:, :-1, :-1]
    return float(np.sqrt(down * down + right * right).mean())
