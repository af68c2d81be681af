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
