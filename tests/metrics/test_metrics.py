"""The measures give the numbers that their definitions give by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen.metrics.image import psnr, ssim


def test_psnr_of_a_known_error():
    x = np.full((3, 16), 0.5)
    assert psnr(x + 0.1, x) == pytest.approx(20.0)  # mean squared error 0.01
    assert psnr(x, x) == np.inf


def test_psnr_averages_decibels_over_pictures():
    x = np.full((2, 4), 0.5)
    off = np.array([[0.1], [0.01]])
    assert psnr(x + off, x) == pytest.approx((20 + 40) / 2)


def test_psnr_clips_as_a_screen_would():
    x = np.ones((1, 4))
    assert psnr(np.full((1, 4), 7.0), x) == np.inf


def test_psnr_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(2, 5\)"):
        psnr(np.zeros((2, 4)), np.zeros((2, 5)))


# ---- SSIM ----


def test_ssim_of_one_window_by_hand():
    """Seven columns from 0 to 1 against those from 1 to 0: equal means and variances, the covariance its negative."""
    a = np.tile(np.arange(7) / 6, 7)[None]
    variance = 49 / 48 * (np.arange(7) / 6).var()  # of 49 pixels, divided by 48
    expected = (-2 * variance + 0.03**2) / (2 * variance + 0.03**2)  # both means are ½: that factor is 1
    assert ssim(1 - a, a, (7, 7)) == pytest.approx(expected, rel=1e-12)
    flat = np.full((1, 49), 0.5)
    assert ssim(flat, a, (7, 7)) == pytest.approx(0.03**2 / (variance + 0.03**2), rel=1e-12)
    assert ssim(flat, 0.8 * flat, (7, 7)) == pytest.approx((2 * 0.2 + 1e-4) / (0.25 + 0.16 + 1e-4), rel=1e-12)


@given(seed=st.integers(0, 2**32 - 1), h=st.integers(7, 10), w=st.integers(7, 10), colours=st.sampled_from([(), (3,)]))
def test_ssim_is_1_of_equals_symmetric_and_below_1_else(seed, h, w, colours):
    shape = (h, w, *colours)
    a, b = np.random.default_rng(seed).random((2, 4, math.prod(shape)))
    assert ssim(a, a, shape) == pytest.approx(1, abs=1e-12)
    assert ssim(a, b, shape) == pytest.approx(ssim(b, a, shape), abs=1e-12)
    assert ssim(a, b, shape) < 0.9


def test_ssim_averages_over_pictures_colours_and_windows():
    a, b = np.random.default_rng(0).random((2, 250, 9 * 8 * 3))  # more than are measured at once
    images_a, images_b = (x.reshape(250, 9, 8, 3) for x in (a, b))
    windows = [(images_a[:, i : i + 7, j : j + 7, k], images_b[:, i : i + 7, j : j + 7, k])
               for i in range(3) for j in range(2) for k in range(3)]  # fmt: skip
    each = [ssim(p.reshape(250, -1), q.reshape(250, -1), (7, 7)) for p, q in windows]
    assert ssim(a, b, (9, 8, 3)) == pytest.approx(np.mean(each), abs=1e-12)
    halves = [ssim(a[part], b[part], (9, 8, 3)) for part in (slice(0, 125), slice(125, 250))]
    assert ssim(a, b, (9, 8, 3)) == pytest.approx(np.mean(halves), abs=1e-12)


def test_ssim_clips_as_a_screen_would_and_takes_float32():
    x = np.random.default_rng(0).random((3, 64), dtype=np.float32).round()
    assert ssim(4 * x - 1, x, (8, 8)) == pytest.approx(1, abs=1e-12)


def test_ssim_minds_structure_where_psnr_does_not():
    """Two pictures at the same distance from x: with less contrast, and with noise."""
    x = np.full((1, 32, 32), 0.1)
    x[:, 12:20, 12:20] = 0.9
    softer = 0.5 + 0.9 * (x - 0.5)  # off by 0.04 everywhere
    noisy = x + 0.04 * np.random.default_rng(0).choice([-1, 1], x.shape)
    a, b, x = (image.reshape(1, -1) for image in (softer, noisy, x))
    assert psnr(a, x) == pytest.approx(psnr(b, x))
    assert ssim(a, x, (32, 32)) > 0.95 > 0.75 > ssim(b, x, (32, 32))


def test_ssim_refuses_what_it_cannot_measure():
    x = np.zeros((2, 64))
    with pytest.raises(ValueError, match=r"\(2, 64\).*\(3, 64\).*\(8, 8\)"):
        ssim(x, np.zeros((3, 64)), (8, 8))
    with pytest.raises(ValueError, match=r"\(2, 64\).*\(2, 64\).*\(8, 9\)"):
        ssim(x, x, (8, 9))
    with pytest.raises(ValueError, match="pictures of 6 x 10 are smaller than its window, 7 x 7"):
        ssim(x[:, :60], x[:, :60], (6, 10))


@pytest.mark.needs("skimage")
@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (7, 12), (9, 10, 3)])
def test_ssim_is_scikit_images(shape):
    from skimage import metrics

    a, b = np.random.default_rng(0).random((2, 5, *shape))
    b = 0.6 * a + 0.4 * b
    options = {"data_range": 1, "channel_axis": 2 if len(shape) == 3 else None}
    expected = np.mean([metrics.structural_similarity(p, q, **options) for p, q in zip(a, b)])
    assert ssim(a.reshape(5, -1), b.reshape(5, -1), shape) == pytest.approx(expected, abs=1e-12)
