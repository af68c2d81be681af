"""Completion: a picture with a hole in it, filled by a model that has learned whole pictures.

    complete(model, x, known, rng) -> x, its hole filled,      known: 1 where a pixel of x is known, 0 in the hole

Each model goes its own way. A GAN looks for the code of a picture that has the known pixels. A VAE encodes and decodes again
and again, which is a Markov chain. Diffusion puts the known pixels back in at each of its steps, as noisy as the rest is
(diffusion.inpaint). A MADE draws the hole from its exact law, where the known pixels come first. None of them was trained
for it, or knew what holes would come.

A GAN's G has no encoder, so its code is found by gradient descent through it (Yeh et al. 2017, section 3):

    L(z) = Σ_known (G(z) - x)² + c ‖z‖² - λ log D(G(z))

With z ~ N(0, I) and known pixels x ~ N(G(z), c) the first two are -2c log p(x, z) but for a constant: the code that is most
probable, given what is known. Without c ‖z‖² the code goes where G was never trained; Yeh et al. cut it to [-1, 1] instead,
as their codes are uniform there. The third is the paper's prior loss, in the form that does not fade (losses.loss_G): D must
take the picture for real. The paper measures the first by |G(z) - x|, a Laplace law's, and weighs it
more near the hole.
"""

import functools
import math

from ..backend import UsageError, array_module, to_host
from ..models.ddpm import DDPM
from ..models.gan import GAN
from ..models.made import MADE
from ..models.parts.diffusion import inpaint
from ..models.vae import VAE
from ..nn.embeddings import Embedding
from ..nn.layer import Layer
from ..nn.layers import mlp
from ..nn.losses import bernoulli, square
from ..nn.optim import Adam
from ..nn.parameters import Parameters
from ..nn.schedules import cosine


def with_hole(x, known):
    """x with zeros in the hole, and known as booleans, both (n, D), from x (n, D) and known, (n, D) or (D,).

    Raises ValueError if the shapes do not fit. What stood in the hole is lost, so that no model can look at it.
    """
    if x.ndim != 2 or known.shape not in (x.shape, x.shape[1:]):
        raise ValueError(f"x has shape {x.shape} and known {known.shape}; expected (n, D), and (n, D) or (D,)")
    xp = array_module(x)
    known = xp.broadcast_to(known != 0, x.shape)
    return xp.where(known, x, xp.zeros_like(x)), known


@functools.singledispatch
def complete(model, x, known, rng, **options):
    """x (n, n_features), where known is 0 filled by a trained model. known as x, or (n_features,)

    options: see the function of the model's kind below. Raises UsageError for a model that cannot complete.
    """
    raise UsageError(f"a {type(model).__name__} cannot complete: use a GAN, a VAE, a MADE or a DDPM")


@complete.register(VAE)
def complete_by_chain(model, x, known, rng, n_steps=50):
    """x (n, n_features), where known is 0 filled by decode(z). known as x, or (n_features,)

    Rezende et al. 2014, appendix F: z ~ q(z|x), the hole ~ p(x|z), z ~ q(z|x), ..., n_steps times, from a random code's
    picture. Where q(z|x) is p(z|x) this is Gibbs sampling, and the chain comes to p(hole|known); elsewhere it comes as
    near as q is to p. Returned are the decoder's means, as in sample, though draws go into the chain; grey pixels, which
    a Bernoulli law cannot draw, stay means there too, and then it is no Gibbs sampling. Raises ValueError if x and
    known do not fit.
    """
    x, known = with_hole(x, known)
    where, filled = array_module(x).where, model.sample(len(x), rng)
    for _ in range(n_steps):
        filled = model.reconstruct(where(known, x, draw_pixels(model, filled, rng)), rng)
    return where(known, x, filled)


def draw_pixels(model, mean, rng):
    """x ~ p(x|z) from the decoder's mean (N, n_features); grey pixels, of Bernoulli means, are left as means."""
    if model.likelihood == "gaussian":
        return mean + math.sqrt(model.variance) * rng.normal(mean.shape)
    return model.binarized(mean, rng)


@complete.register(MADE)
def complete_by_law(model, x, known, rng, temperature=1.0):
    """x (n, n_features), where known is 0 drawn from p(rest | known part). known (n, n_features) or (n_features,)

    The draw is exact, so in each row known must be 1 up to some feature and 0 after it: features are predicted from
    those before, and one behind a hole could have no say in what fills it. temperature: logits are divided by it; below
    1 the probable becomes more so, and what is drawn does not follow p any more. Raises UsageError for another order,
    ValueError for another known, for shapes that do not fit, and for x as in log_prob.
    """
    if model.order != "natural":
        raise UsageError(f"a MADE with order={model.order} cannot complete: use order=natural")
    if not temperature > 0:
        raise ValueError(f"complete: temperature must be > 0, got {temperature}")
    x, known = with_hole(x, known)
    mask = to_host(known)  # on a GPU this waits, and no other filling would be one
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("complete: the known features must come first in every row, without a hole between them")
    with model.average.swapped():
        return model.fill(model.checked("complete", x), known, 0, rng, temperature)


@complete.register(DDPM)
def complete_by_diffusion(model, x, known, rng, labels=None, n_steps=20, repeats=10):
    """x (n, n_features), where known is 0 filled by diffusion.inpaint. known as x, or (n_features,)

    n_steps jumps, each drawn `repeats` times, so n_steps repeats runs of the network. labels (n,) as in path; guidance
    and clip_x0 are the settings'. Raises ValueError if shapes do not fit, UsageError where features, not pixels, are
    diffused.
    """
    if type(model).encode is not DDPM.encode:
        raise UsageError(f"a {type(model).__name__} cannot complete: known pixels are not known features")
    model.check_labels(labels, x=x)
    x, known = with_hole(x, known)

    def denoise(x_t, t):
        return model.denoise(x_t, t, labels, model.guidance, model.clip_x0)

    x_T = rng.normal(x.shape)
    *_, (_, x_0) = inpaint(denoise, x_T, model.scaler(x), known, model.alpha_bar, rng, n_steps, repeats)
    return array_module(x).where(known, x, model.scaler.undo(x_0))


@complete.register(GAN)
def complete_by_codes(model, x, known, rng, n_steps=200, n_starts=4, variance=0.1, lam=1.0, lr=0.1):
    """x (n, n_features), where known is 0 filled by G(z), with the averaged weights. known as x, or (n_features,)

    z is found by n_steps of Adam, whose rate falls from lr, from each of n_starts random codes, of which the one that
    ends best is taken. variance and lam, λ, weigh what a code should be against what is known: see above. Raises
    ValueError if x and known do not fit, UsageError for a packed D.
    """
    if model.pack > 1:
        raise UsageError(f"a GAN with pack={model.pack} cannot complete: its D judges no example by itself")
    x, known = with_hole(x, known)
    given = model.generator, model.discriminator, model.n_latent, x, known
    with model.average.swapped():
        filled = by_codes(*given, rng, n_steps, n_starts, variance, lam, lr)
    return array_module(x).where(known, x, filled)


class CompletionLoss(Layer):
    """z (B, n_latent) -> L (B,), L = Σ_known (G(z) - x)² + c ‖z‖² - λ log D(G(z)), for x and known (B, D), 1 or 0.

    dz = J_Gᵀ [2 known (G(z) - x) - λ (1 - D) ∇l] dL + 2 c z dL,      D = sigmoid(l), J_Gᵀ and ∇l by the backward of G and D.
    log D is of D's logit l whatever loss D was trained with: it grows with l, and no further where D is convinced.
    """

    def __init__(self, generator, discriminator, x, known, variance, lam):
        self.generator, self.discriminator = generator, discriminator
        self.x, self.known, self.variance, self.lam = x, known, variance, lam

    def forward(self, z, rng):
        x_hat, back_generator = self.generator.forward(z, rng)  # (B, D)
        logits, back_discriminator = self.discriminator.forward(x_hat, rng)  # (B, 1)
        squares, d_squares = square(x_hat, self.x, 1.0)
        nll, d_nll = bernoulli(logits, 1.0, self.lam)  # -λ log D
        value = (self.known * squares).sum(axis=1) + self.variance * (z * z).sum(axis=1) + nll.sum(axis=1)

        def backward(d_value, learn=True, inputs=True):  # d_value (B,)
            d = d_value[:, None]
            dx_hat = self.known * d_squares * d + back_discriminator(d_nll * d, learn)
            dz = back_generator(dx_hat, learn, inputs)
            if inputs:
                return dz + 2 * self.variance * z * d

        return value, backward

    @classmethod
    def example(cls, rng):
        x, known = rng.uniform((5, 6)), (rng.uniform((5, 6)) < 0.5).astype(rng.real)
        return cls(mlp([3, 4, 6]), mlp([6, 4, 1]), x, known, 0.3, 0.7), rng.normal((5, 3))


def by_codes(generator, discriminator, n_latent, x, known, rng, n_steps, n_starts, variance, lam, lr):
    """G(z) (n, D) where z lowers L: of n_starts for each row of x, from N(0, I), the one that ends lowest. known: booleans.

    n_steps of Adam, whose rate falls from lr to 0. z alone moves: G and D are run backwards with learn=False.
    """
    if n_starts < 1:
        raise UsageError(f"n_starts must be >= 1, got {n_starts}")
    xp = array_module(x)
    n = len(x)
    targets = xp.concatenate(n_starts * [x]), xp.concatenate(n_starts * [known]).astype(x.dtype)  # (n_starts n, D)
    loss = CompletionLoss(generator, discriminator, *targets, variance, lam)
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
