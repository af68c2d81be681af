"""Gradient penalties: a loss on the gradient of D with respect to its input, differentiated with respect to D's weights.

    g(x) = ∇ₓ D(x)           the penalty is the mean of (‖g‖ - centre)², and its gradient needs ∂g/∂W, a second derivative

D's backward pass computes g. This pass is a chain of formulas, g = u Wᵀ or g = f′(x) u for each layer, and it can be
differentiated like any other. So we also write the backward pass of the backward pass, called double backward. A layer's
forward_twice(x) returns y, its ordinary backward, and

    gradient(u) -> g, double_backward            g = Jᵀ u is the dx for dy = u, J = ∂y/∂x of this layer. dW does not change.
    double_backward(v, learn, inputs) -> du, dx  For v = ∂penalty/∂g: du = J v, dx = ∂(v·g)/∂x (or None, which means 0).
                                                 Adds ∂(v·g)/∂W to dW. inputs=False: the caller needs du, but not dx.

    Linear:       g = u Wᵀ        du = v W       dW = vᵀ u      dx = 0
    activation:   g = f′(x) u     du = f′ v                     dx = f″ u v

Because du = J v, v passes through the layers forwards, like x. An example is D(x) = tanh(x W₁ + b₁) W₂ + b₂, with
h = x W₁ + b₁ and y = tanh h:

    forwards        h, y, D                      backwards         u₂ = 1 W₂ᵀ,   u₁ = f′(h) u₂,   g = u₁ W₁ᵀ
    forwards        v₁ = v W₁,   v₂ = f′(h) v₁   dW₁ += vᵀ u₁,   dW₂ += v₂ᵀ 1,   dh = f″(h) u₂ v₁
    backwards       dW₁ += xᵀ dh,   db₁ += Σ dh  the ordinary backward

For ReLU and LeakyReLU f″ = 0, so the last sweep is not needed. For tanh it is needed: without it, the error is as large as
the gradient itself. Neither y nor u is computed twice. So a penalty costs four matrix products per layer, or six with the
last sweep. A forward pass over dual numbers and its backward would take six or eight.
"""

import numpy as np

from ..backend import array_module, to_host
from ..kernels import watched
from .layer import Layer


@watched
def gradient_penalty(D, x, centre=1.0, one_sided=False, columns=None):
    """The mean of (‖∇ₓ D(x)‖ - centre)² over the examples x (B, n). The norm is taken over each example's features.

    centre=1 is the penalty of WGAN-GP, for points between real and generated ones (Gulrajani et al. 2017, eq 3; see
    `between`). one_sided penalises only norms above centre (section 4). centre=0 is E ‖∇ₓ D(x)‖²; R1 is γ/2 times this at
    real points (Mescheder et al. 2018, eq 9). columns: a slice of the features, if x also holds a condition and only the
    gradient of these features counts. Dropout is off. Raises ValueError for a layer without forward_twice, or a BatchNorm.

    Returns the value and backward(weight), which adds weight · ∂value/∂W to the gradients of D's weights. x is a constant.
    """
    xp, batch = array_module(x), len(x)
    y, _, gradient = D.forward_twice(x)
    if y.shape != (batch, 1):
        raise ValueError(
            f"gradient_penalty: D returned {y.shape} for x {x.shape}; it must return one number per example, (B, 1)"
        )
    # g is the gradient of the sum over the batch: row i is that of example i, whose score does not depend on the others.
    g, double_backward = gradient(xp.ones_like(y))
    if columns is not None:
        inside = xp.zeros_like(g)
        inside[:, columns] = g[:, columns]
        g = inside
    norm = xp.sqrt((g * g).sum(axis=1, keepdims=True) + 1e-24)  # (B, 1); never 0, since ‖·‖ has no derivative there
    excess = norm - centre
    if one_sided:
        excess = xp.maximum(excess, 0)

    def backward(weight=1.0):
        v = g * (excess / norm * (2 * weight / batch))
        double_backward(v, inputs=False)

    return (excess * excess).sum() * (1 / batch), backward


@watched
def between(real, fake, rng):
    """α x + (1 - α) G(z), with one α ~ U[0, 1] for each example. Both (B, n). Gulrajani et al. 2017, algorithm 1.

    All pixels of an example share one α, so the point lies on the straight line between the two. With one α for each pixel
    it could lie anywhere in the box between them.
    """
    if real.shape != fake.shape:
        raise ValueError(f"between: real has shape {real.shape} and fake {fake.shape}; both must be equal")
    alpha = rng.uniform((len(real), 1))
    return alpha * real + (1 - alpha) * fake


class Gradient(Layer):
    """(x, u) -> g = Jᵀ u: the backward pass of a layer, made into a layer, so that its own backward can be checked.

    Raises ValueError if forward_twice disagrees with forward: if its y, its g or its backward is different.
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
        rtol = 1e-4 if y.dtype == "float32" else 1e-9
        for name, (found, right) in pairs.items():
            alike = found.shape == right.shape and np.allclose(to_host(found), to_host(right), rtol, atol=1e-3 * rtol)
            if not alike:
                raise ValueError(
                    f"{type(self.body).__name__}.forward_twice gives a different {name} from forward and its backward"
                )

        def backward(v, learn=True, inputs=True):
            du, dx = double_backward(v, learn, inputs)
            return array_module(x).zeros_like(x) if dx is None else dx, du

        return g, backward
