"""Measures of how close a picture is to the one that it should equal, and of how sharp it is."""

import math

import numpy as np

from ..backend import to_host

WINDOW, C1, C2 = 7, 0.01**2, 0.03**2  # of ssim: pixels a side, and (K L)² for a range L = 1 of the pixels


def psnr(x_hat, x):
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error), averaged over pictures (N, D) in [0, 1].

    x_hat is clipped to [0, 1] first, as on a screen. Equal pictures give infinity. Raises ValueError for unequal shapes.
    """
    x_hat, x = np.clip(to_host(x_hat), 0, 1).astype(np.float64), to_host(x).astype(np.float64)
    if x_hat.shape != x.shape:
        raise ValueError(f"psnr: x_hat has shape {x_hat.shape} and x {x.shape}; both must be equal")
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(np.mean((x_hat - x) ** 2, axis=1))))


def ssim(x_hat, x, shape):
    """Structural similarity of pictures (N, D) in [0, 1] of a shape (h, w) or (h, w, 3), averaged over pictures; 1 if equal.

        SSIM = (2 μ_a μ_b + C₁) (2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁) (σ_a² + σ_b² + C₂))

    is computed in every window of 7 × 7 pixels inside the picture, and then averaged. Wang et al. 2004, eq 13, with their K₁
    = 0.01 and K₂ = 0.03, equal weights in the window, and variances and covariances divided by 48, as in scikit-image. x_hat
    is clipped to [0, 1] first, as on a screen. Each colour is measured on its own. Raises ValueError for unequal shapes and
    for pictures smaller than the window.
    """
    a, b = np.clip(to_host(x_hat), 0, 1).astype(np.float64), to_host(x).astype(np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != math.prod(shape):
        raise ValueError(f"ssim: x_hat has shape {a.shape} and x {b.shape}; both must be (N, D) of pictures {shape}")
    if min(shape[:2]) < WINDOW:
        raise ValueError(f"ssim: pictures of {shape[0]} x {shape[1]} are smaller than its window, {WINDOW} x {WINDOW}")
    a, b = a.reshape(-1, *shape), b.reshape(-1, *shape)
    parts = [similarities(a[i : i + 100], b[i : i + 100]) for i in range(0, len(a), 100)]  # few enough for the cache
    return float(np.concatenate(parts).mean())


def similarities(a, b):
    """SSIM of the windows of images a and b (N, h, w, ...): (N, h - 6, w - 6, ...)."""
    mu_a, mu_b = window_means(a), window_means(b)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    variances = unbiased * (window_means(a * a) - mu_a * mu_a + window_means(b * b) - mu_b * mu_b)
    covariance = unbiased * (window_means(a * b) - mu_a * mu_b)
    alike = (2 * mu_a * mu_b + C1) * (2 * covariance + C2)
    return alike / ((mu_a * mu_a + mu_b * mu_b + C1) * (variances + C2))


def window_means(images):
    """The mean of every window of images (N, h, w, ...): (N, h - 6, w - 6, ...)."""
    h, w = (n - WINDOW + 1 for n in images.shape[1:3])
    rows = sum(images[:, i : i + h] for i in range(WINDOW))
    return sum(rows[:, :, i : i + w] for i in range(WINDOW)) / WINDOW**2


def sharpness(x, shape):
    """The mean length of the gradient, in pixel values per pixel, of pictures x (N, D) of a shape (h, w) or (h, w, 3).

    The gradient is the differences to the pixel on the right and to the pixel below. Blur makes it smaller; noise and more
    ink make it larger. So compare it with that of real pictures, and do not maximise it. Raises ValueError for pictures one
    pixel high or wide.
    """
    if min(shape[:2]) < 2:
        raise ValueError(
            f"sharpness: pictures of {shape[0]} x {shape[1]} are too small: give pictures of 2 x 2 or more"
        )
    images = to_host(x).astype(np.float64).reshape(len(x), *shape)
    down = images[:, 1:, :-1] - images[:, :-1, :-1]
    right = images[:, :-1, 1:] - images[:, :-1, :-1]
    return float(np.sqrt(down * down + right * right).mean())
