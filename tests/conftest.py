"""Hypothesis draws shapes, options and a seed; arrays are made from the seed, so that no example shrinks onto a kink."""

import os

import pytest
from hypothesis import settings

from scratchgen.backend import find_device

settings.register_profile("dev", max_examples=30, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def gpu():
    """CuPy, where there is a GPU; elsewhere the test is skipped."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no GPU")
    return find_device("gpu")
