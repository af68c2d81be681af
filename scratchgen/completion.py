"""Completion: a picture with a hole in it, filled by a model that has learned whole pictures.

    complete(x, known, rng) -> x, its hole filled,      known: 1 where a pixel of x is known, 0 in the hole

Each model goes its own way. A GAN looks for the code of a picture that has the known pixels, here. A VAE encodes and decodes
again and again, which is a Markov chain (models/vae.py). Diffusion puts the known pixels back in at each of its steps, as
noisy as the rest is (diffusion.inpaint). A MADE draws the hole from its exact law, where the known pixels come first
(models/made.py). None of them was trained for it, or knew what holes would come.

A GAN's G has no encoder, so its code is found by gradient descent through it (Yeh et al. 2017, section 3):

    L(z) = Σ_known (G(z) - x)² + c ‖z‖² - λ log D(G(z))

With z ~ N(0, I) and known pixels x ~ N(G(z), c) the first two are -2c log p(x, z) but for a constant: the code that is most
probable, given what is known. Without c ‖z‖² the code goes where G was never trained; Yeh et al. cut it to [-1, 1] instead,
as their codes are uniform there. The third is the paper's prior loss, in the form that does not fade (losses.loss_G): D must
take the picture for real. The paper measures the first by |G(z) - x|, a Laplace law's, and weighs it
more near the hole.
"""

from .backend import UsageError, array_module
from .embeddings import Embedding
from .kernels import bernoulli, square
from .layer import Layer
from .layers import mlp
from .optim import Adam, cosine
from .parameters import Parameters


def with_hole(x, known):
    """x with zeros in the hole, and known as booleans, both (n, D), from x (n, D) and known, (n, D) or (D,).

    Raises ValueError if the shapes do not fit. What stood in the hole is lost, so that no model can look at it.
    """
    if x.ndim != 2 or known.shape not in (x.shape, x.shape[1:]):
        raise ValueError(f"x has shape {x.shape} and known {known.shape}; expected (n, D), and (n, D) or (D,)")
    xp = array_module(x)
    known = xp.broadcast_to(known != 0, x.shape)
    return xp.where(known, x, xp.zeros_like(x)), known


class CompletionLoss(Layer):
    """z (B, n_latent) -> L (B,), L = Σ_known (G(z) - x)² + c ‖z‖² - λ log D(G(z)), for x and known (B, D), 1 or 0.

    dz = J_Gᵀ [2 known (G(z) - x) - λ (1 - D) ∇l] dL + 2 c z dL,      D = sigmoid(l), J_Gᵀ and ∇l by the backward of G and D.
    log D is of D's logit l whatever loss D was trained with: it grows with l, and no further where D is convinced.
    """

    def __init__(self, generator, discriminator, x, known, c, lam):
        self.generator, self.discriminator = generator, discriminator
        self.x, self.known, self.c, self.lam = x, known, c, lam

    def forward(self, z, rng):
        x_hat, back_generator = self.generator.forward(z, rng)  # (B, D)
        logits, back_discriminator = self.discriminator.forward(x_hat, rng)  # (B, 1)
        squares, d_squares = square(x_hat, self.x, 1.0)
        nll, d_nll = bernoulli(logits, 1.0, self.lam)  # -λ log D
        value = (self.known * squares).sum(axis=1) + self.c * (z * z).sum(axis=1) + nll.sum(axis=1)

        def backward(d_value, learn=True, inputs=True):  # d_value (B,)
            d = d_value[:, None]
            dx_hat = self.known * d_squares * d + back_discriminator(d_nll * d, learn)
            dz = back_generator(dx_hat, learn, inputs)
            if inputs:
                return dz + 2 * self.c * z * d

        return value, backward

    @classmethod
    def example(cls, rng):
        x, known = rng.uniform((5, 6)), (rng.uniform((5, 6)) < 0.5).astype(rng.real)
        return cls(mlp([3, 4, 6]), mlp([6, 4, 1]), x, known, 0.3, 0.7), rng.normal((5, 3))


def by_codes(generator, discriminator, n_latent, x, known, rng, n_steps, n_starts, c, lam, lr):
    """G(z) (n, D) where z lowers L: of n_starts for each row of x, from N(0, I), the one that ends lowest. known: booleans.

    n_steps of Adam, whose rate falls from lr to 0. z alone moves: G and D are run backwards with learn=False.
    """
    if n_starts < 1:
        raise UsageError(f"n_starts must be >= 1, got {n_starts}")
    xp = array_module(x)
    n = len(x)
    targets = xp.concatenate(n_starts * [x]), xp.concatenate(n_starts * [known]).astype(x.dtype)  # (n_starts n, D)
    loss = CompletionLoss(generator, discriminator, *targets, c, lam)
    codes = Embedding(n_starts * n, n_latent, init=lambda rng, shape, fan_in: rng.normal(shape))  # one row, one code
    params = Parameters(rng, codes=codes)
    adam, ones = Adam(params, cosine(lr, n_steps)), rng.zeros(n_starts * n) + 1
    for _ in range(n_steps):
        params.zero_grad()
        _, backward = loss.forward(codes.W, None)
        codes.dW += backward(ones, learn=False)
        adam.step()
    best = loss(codes.W).reshape(n_starts, n).argmin(axis=0)
    return generator(codes.W).reshape(n_starts, n, x.shape[1])[best, xp.arange(n)]
