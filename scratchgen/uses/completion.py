"""Completion: a model that has learned whole pictures fills a hole in a picture.

    complete(model, x, known, rng) -> x with its hole filled,      known: 1 where a pixel of x is known, 0 in the hole

Each model has its own method. A GAN searches for a code whose picture has the known pixels. A VAE encodes and decodes again
and again, which is a Markov chain. Diffusion sets the known pixels in each of its steps, with as much noise as the others
have (diffusion.inpaint). A MADE draws the hole from its exact distribution, if the known pixels come first. None of these
was trained for completion, and none knew which holes would come. Masked diffusion was: it is trained on random holes only.

A GAN has no encoder, so the code is found by gradient descent through G (Yeh et al. 2017, section 3):

    L(z) = Σ_known (G(z) - x)² + c ‖z‖² - λ log D(G(z))

If z ~ N(0, I) and the known pixels are x ~ N(G(z), c), the first two terms are -2c log p(x, z) up to a constant. So their
minimum is the most probable code for the known pixels. Without c ‖z‖² the code moves to places where G was never trained.
Yeh et al. clip it to [-1, 1] instead, because their codes are uniform there. The third term is the paper's prior loss, in
the form whose gradient does not vanish (losses.loss_G): D must judge the picture as real. In the first term the paper has
|G(z) - x|, which belongs to a Laplace distribution, and gives pixels near the hole more weight.
"""

import functools

from ..backend import UsageError, array_module, to_host
from ..models.ddpm import DDPM
from ..models.gan import GAN
from ..models.made import MADE
from ..models.masked_diffusion import MaskedDiffusion
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
    """(x with zeros in the hole, known as booleans), both (n, D), from x (n, D) and known (n, D) or (D,).

    What was in the hole is lost, so that no model can see it. Raises ValueError if the shapes do not fit.
    """
    if x.ndim != 2 or known.shape not in (x.shape, x.shape[1:]):
        raise ValueError(f"x has shape {x.shape} and known {known.shape}; expected (n, D), and (n, D) or (D,)")
    xp = array_module(x)
    known = xp.broadcast_to(known != 0, x.shape)
    return xp.where(known, x, xp.zeros_like(x)), known


@functools.singledispatch
def complete(model, x, known, rng, **options):
    """x (n, n_features), with its hole (known is 0) filled by a trained model. known has the shape of x, or (n_features,).

    options: see the function for this kind of model below. Raises UsageError for a model that cannot complete.
    """
    raise UsageError(f"a {type(model).__name__} cannot complete: use a GAN, a VAE, a MADE, a MaskedDiffusion or a DDPM")


@complete.register(VAE)
def complete_by_chain(model, x, known, rng, labels=None, n_steps=50):
    """x (n, n_features), with its hole (known is 0) filled by decode(z). known has the shape of x, or (n_features,).

    Rezende et al. 2014, appendix F. The hole starts with the picture of a random code. Then z ~ q(z|x) and the hole ~ p(x|z)
    are drawn in turn, n_steps times. If q(z|x) equals p(z|x), this is Gibbs sampling, and the chain converges to
    p(hole|known). Otherwise it comes as near as q is to p. The result holds the decoder's means, as in sample, although the
    chain uses draws. A Bernoulli distribution cannot draw grey pixels: for such data the chain uses means too, and then it
    is not Gibbs sampling. labels (n,) are for a conditional model. Raises ValueError if x and known do not fit.
    """
    x, known = with_hole(x, known)
    where, filled = array_module(x).where, model.decode(rng.normal((len(x), model.n_latent)), labels)
    for _ in range(n_steps):
        filled = model.reconstruct(where(known, x, model.drawn(filled, rng)), rng, labels)
    return where(known, x, filled)


@complete.register(MADE)
def complete_by_law(model, x, known, rng, temperature=1.0):
    """x (n, n_features), with its hole (known is 0) drawn from p(rest | known part). known has x's shape, or (n_features,).

    The draw is exact. So in each row known must be 1 up to some feature and 0 after it: a feature is predicted from the
    features before it, and a known feature after the hole could not influence the hole. temperature: the logits are divided
    by it. Below 1, probable values become more probable, and the draws no longer follow p. Raises UsageError for another
    order. Raises ValueError for another known, for shapes that do not fit, for temperature <= 0, and for x as in log_prob.
    """
    if model.order != "natural":
        raise UsageError(f"a MADE with order={model.order} cannot complete: use order=natural")
    check_temperature(temperature)
    x, known = with_hole(x, known)
    mask = to_host(known)  # on a GPU this waits, but the check below is necessary
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("complete: the known features must come first in every row, without a hole between them")
    with model.average.swapped():
        return model.fill(model.checked("complete", x), known, 0, rng, temperature)


def check_temperature(temperature):
    if not temperature > 0:
        raise ValueError(f"complete: temperature must be > 0, got {temperature}")


@complete.register(MaskedDiffusion)
def complete_by_unmasking(model, x, known, rng, temperature=1.0):
    """x (n, n_features), with its hole (known is 0) drawn token after token. known has the shape of x, or (n_features,).

    Any hole will do. The model's n_steps and order say how it is drawn. With as many steps as tokens in the hole, the draw
    is exact if the conditionals are. temperature: as for a MADE. Raises ValueError for shapes that do not fit, for
    temperature <= 0, and for x as in checked.
    """
    check_temperature(temperature)
    x, known = with_hole(x, known)
    *_, (filled, _) = model.unmask(model.checked("complete", x), known, rng, temperature=temperature)
    return filled if model.tokens else filled.astype(rng.real)


@complete.register(DDPM)
def complete_by_diffusion(model, x, known, rng, labels=None, n_steps=20, repeats=10):
    """x (n, n_features), with its hole (known is 0) filled by diffusion.inpaint. known has x's shape, or (n_features,).

    There are n_steps jumps, each drawn `repeats` times, so the network runs n_steps repeats times. labels (n,) as in path;
    guidance, guidance_start and clip_x0 come from the settings. Raises ValueError if the shapes do not fit. Raises
    UsageError if the model diffuses features instead of pixels.
    """
    if type(model).encode is not DDPM.encode:
        raise UsageError(f"a {type(model).__name__} cannot complete: it diffuses features, not pixels; use a DDPM")
    model.check_labels(labels, x=x)
    x, known = with_hole(x, known)

    denoise = model.denoise_in_turn(labels, model.guidance, model.guidance_start, model.clip_x0)
    x_T = rng.normal(x.shape)
    *_, (_, x_0) = inpaint(denoise, x_T, model.scaled(x, rng), known, model.alpha_bar, rng, n_steps, repeats)
    return array_module(x).where(known, x, model.unscaled(x_0))


@complete.register(GAN)
def complete_by_codes(model, x, known, rng, n_steps=200, n_starts=4, variance=0.1, lam=1.0, lr=0.1):
    """x (n, n_features), with its hole (known is 0) filled by G(z). known has the shape of x, or (n_features,).

    G has its averaged weights. Adam searches for z, with n_steps steps from each of n_starts random codes and a rate that
    falls from lr to 0. The code with the lowest final L is taken. variance (c) and lam (λ) are the weights of the second and
    third term of L: see above. Raises ValueError if x and known do not fit, and UsageError for a packed D.
    """
    if model.pack > 1:
        raise UsageError(f"a GAN with pack={model.pack} cannot complete: its D judges no single example; use pack=1")
    x, known = with_hole(x, known)
    given = model.generator, model.discriminator, model.n_latent, x, known
    with model.average.swapped():
        filled = by_codes(*given, rng, n_steps, n_starts, variance, lam, lr)
    return array_module(x).where(known, x, filled)


class CompletionLoss(Layer):
    """z (B, n_latent) -> L (B,), L = Σ_known (G(z) - x)² + c ‖z‖² - λ log D(G(z)), for x and known (B, D), 1 or 0.

    dz = J_Gᵀ [2 known (G(z) - x) - λ (1 - D) ∇l] dL + 2 c z dL,      D = sigmoid(l), J_Gᵀ and ∇l by the backward of G and D.
    log D is computed from D's logit l, whatever loss D was trained with. It grows with l and is almost flat where D is sure.
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
    """G(z) (n, D) for the z with the lowest L that is found from n_starts codes z ~ N(0, I) per row of x. known: booleans.

    Adam makes n_steps steps, and its rate falls from lr to 0. Only z changes: the backward of G and D has learn=False.
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
