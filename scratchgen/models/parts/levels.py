"""Grey levels: noise as wide as a level turns pixels, which take few values, into numbers that have a density.

    x = k / (L - 1),   k = 0 ... L - 1;      x′ = (k + U) / L,   U uniform on [0, 1);      back again: k = ⌊L x′⌋

Pixels themselves have no useful density: a model may make it as high as it likes at the L values, and learn nothing. With
the noise, a density says how probable a picture is. Its D pixels have the probability P(x) = ∫ p(x′) dx′ over a cube of side
1/L. By Jensen's inequality, log P(x) >= E_U log p(x′) - D log L (Theis et al. 2016, section 3.1).
"""

from ...backend import array_module


def dequantise(x, levels, rng):
    """x′ in [0, 1] for pixels x that take so many values, 0 to 1 in even steps."""
    return ((levels - 1) * x + rng.uniform(x.shape)) / levels


def quantise(x, levels):
    """The pixels for such x′: the way back from dequantise. What lies outside [0, 1] becomes 0 or 1."""
    xp = array_module(x)
    return xp.minimum(xp.maximum(xp.floor(levels * x), 0), levels - 1) / (levels - 1)
