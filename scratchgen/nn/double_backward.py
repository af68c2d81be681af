"""Gradient penalties: a loss on the gradient of D with respect to its input, differentiated with respect to D's weights.

    g(x) = ∇ₓ D(x)           the penalty is the mean of (‖g‖ - centre)², and its gradient needs ∂g/∂W, a second derivative

g itself comes out of D's backward pass, which is a program like any other: layer by layer g = u Wᵀ, g = f′(x) u. So we write
the backward pass of the backward pass, double backward for short. A layer's forward_twice(x) returns y, its ordinary
backward, and

    gradient(u) -> g, double_backward            g = Jᵀ u, the dx for dy = u, learning nothing. J = ∂y/∂x of this layer
    double_backward(v, learn, inputs) -> du, dx  for v = ∂penalty/∂g: du = J v, and dx = ∂(v·g)/∂x, which is None for 0;
                                                 adds ∂(v·g)/∂W to dW. inputs=False: dx is not wanted, du always is

    Linear:       g = u Wᵀ        du = v W       dW = vᵀ u      dx = 0
    activation:   g = f′(x) u     du = f′ v                     dx = f″ u v

As du = J v, v runs through the layers forwards, like x. For D(x) = tanh(x W₁ + b₁) W₂ + b₂, with h = x W₁ + b₁, y = tanh h:

    forwards        h, y, D                      backwards         u₂ = 1 W₂ᵀ,   u₁ = f′(h) u₂,   g = u₁ W₁ᵀ
    forwards        v₁ = v W₁,   v₂ = f′(h) v₁   dW₁ += vᵀ u₁,   dW₂ += v₂ᵀ 1,   dh = f″(h) u₂ v₁
    backwards       dW₁ += xᵀ dh,   db₁ += Σ dh  the ordinary backward

With ReLU and LeakyReLU f″ = 0 and the last sweep falls away; code that always leaves it out is right for these and wrong
by its own size for tanh. Neither y nor u is computed twice, so a penalty costs four matrix products a layer, or six with the
last sweep, where a forward pass over dual numbers and its backward take six or eight.
"""

import numpy as np

from ..backend import array_module, to_host
from .layer import Layer


def gradient_penalty(D, x, centre=1.0, one_sided=False, columns=None):
    """The mean of (‖∇ₓ D(x)‖ - centre)² over the examples x (B, n), the norm taken over each example's features.

    centre=1: the penalty of WGAN-GP at points between real and generated ones (Gulrajani et al. 2017, eq 3; see
    `between`); one_sided punishes only norms above 1 (section 4). centre=0: E ‖∇ₓ D(x)‖², for R1 at real points
    (Mescheder et al. 2018, eq 9; γ/2 times it). columns: a slice of the features if the gradient of only these counts
    (a condition beside x). Dropout is off; a layer that cannot be passed, BatchNorm first of all, raises ValueError.

    Returns the value and backward(weight): it adds weight · ∂value/∂W to the gradients of D's weights. x is a constant.
    """
    xp, batch = array_module(x), len(x)
    y, _, gradient = D.forward_twice(x)
    if y.shape != (batch, 1):
        raise ValueError(f"gradient_penalty: D made {y.shape} of {x.shape}; it must give one number an example, (B, 1)")
    # The gradient of the sum over the batch: one example's score does not depend on the others.
    g, double_backward = gradient(xp.ones_like(y))
    if columns is not None:
        inside = xp.zeros_like(g)
        inside[:, columns] = g[:, columns]
        g = inside
    norm = xp.sqrt((g * g).sum(axis=1, keepdims=True) + 1e-24)  # (B, 1); never 0, where ‖·‖ has no derivative
    excess = norm - centre
    if one_sided:
        excess = xp.maximum(excess, 0)

    def backward(weight=1.0):
        v = g * (excess / norm * (2 * weight / batch))
        double_backward(v, inputs=False)

    return (excess * excess).sum() * (1 / batch), backward


def between(real, fake, rng):
    """α x + (1 - α) G(z), with one α ~ U[0, 1] for each example. Both (B, n). Gulrajani et al. 2017, algorithm 1.

    One α for an example, not one for each pixel: a point on the straight line, not anywhere in the box between the two.
    """
    if real.shape != fake.shape:
        raise ValueError(f"between: real has shape {real.shape} and fake {fake.shape}; both must be equal")
    alpha = rng.uniform((len(real), 1))
    return alpha * real + (1 - alpha) * fake


class Gradient(Layer):
    """(x, u) -> g = Jᵀ u: the backward pass of a layer as a layer of its own, so that its own backward can be checked.

    Raises ValueError where forward_twice is not the same layer as forward: another y, another g or another backward.
    """

    def __init__(self, body):
        self.body = body

    def forward(self, pair, rng):
        x, u = pair
        y, back, gradient = self.body.forward_twice(x)
        g, double_backward = gradient(u)
        right_y, right_back = self.body.forward(x, None)
        right_g = right_back(u, learn=False)
        pairs = {"y": (y, right_y), "g": (g, right_g), "backward": (back(u, learn=False), right_g)}
        for name, (found, right) in pairs.items():
            if found.shape != right.shape or not np.allclose(to_host(found), to_host(right), rtol=1e-9, atol=1e-12):
                raise ValueError(
                    f"{type(self.body).__name__}.forward_twice has another {name} than forward and its backward"
                )

        def backward(v, learn=True, inputs=True):
            du, dx = double_backward(v, learn, inputs)
            return array_module(x).zeros_like(x) if dx is None else dx, du

        return g, backward
