"""The measures give the numbers that their definitions give by hand."""

import numpy as np
import pytest

from scratchgen.metrics.image import psnr


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
