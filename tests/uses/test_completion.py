"""A hole is filled from what is known, by the law that is claimed, and nothing but the hole changes."""

import math
from functools import partial

import numpy as np
import pytest
import simcupy
from simcupy.runner import Runner

from scratchgen import Rng, UsageError, check_loss, kernels, to_host
from scratchgen.data import load
from scratchgen.metrics.image import psnr
from scratchgen.models.ddpm import DDPM
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.models.gan import GAN
from scratchgen.models.latent_diffusion import LatentDiffusion
from scratchgen.models.masked_diffusion import MaskedDiffusion
from scratchgen.models.parts.diffusion import alpha_bars, inpaint, mixture_denoiser
from scratchgen.models.vae import VAE
from scratchgen.train.fit import fit
from scratchgen.uses import completion
from scratchgen.uses.completion import CompletionLoss, by_codes

F64 = "float64"
KNOWN = np.array([1, 1, 0, 1, 0, 0])
SHORT = {
    GAN: {"n_steps": 5, "n_starts": 2},
    VAE: {"n_steps": 3},
    DDPM: {"n_steps": 4, "repeats": 2},
    MaskedDiffusion: {},
}
CASES = [(GAN, {}), (GAN, {"output": "linear", "adversarial_loss": "hinge"})]
CASES += [(VAE, {}), (VAE, {"likelihood": "gaussian"}), (VAE, {"binarize": True})]
CASES += [
    (DDPM, {}),
    (DDPM, {"predict": "v", "scaling": "standard", "clip_x0": False}),
    (DDPM, {"conditional": True, "guidance": 1.0}),
    (DDPM, {"predict": "v", "levels": 1000}),
]
every_model = pytest.mark.parametrize(("kind", "settings"), CASES)
TOKENS = [(MaskedDiffusion, {"n_values": 4}), (MaskedDiffusion, {"n_values": 4, "order": "confidence"})]
tokens_too = pytest.mark.parametrize(("kind", "settings"), CASES + TOKENS)  # in whose holes a value may be as it was


def tiny(kind, dtype=F64, **settings):
    """A small model after two steps, and pictures (4, 6)."""
    model, batch = kind.example(Rng((0, 1), dtype), **settings)
    for step in range(2):
        model.train_step(rng=model.rng(step), **batch)
    return model, batch["x"]


def complete(model, x, known, seed=7, **options):
    return completion.complete(model, x, known, model.rng(seed), **SHORT[type(model)] | options)


# ---- what all share ----


@every_model
@pytest.mark.parametrize("dtype", ["float32", F64])
def test_known_pixels_stay_bit_for_bit_and_the_hole_is_filled(kind, settings, dtype):
    model, x = tiny(kind, dtype, **settings)
    filled = complete(model, x, KNOWN)
    assert (filled.shape, filled.dtype) == (x.shape, dtype)
    assert (filled[:, KNOWN == 1] == x[:, KNOWN == 1]).all()
    assert (filled[:, KNOWN == 0] != x[:, KNOWN == 0]).all() and np.isfinite(filled).all()
    assert (filled == complete(model, x, KNOWN)).all()
    assert (filled != complete(model, x, KNOWN, seed=8)).any()


@tokens_too
def test_what_stands_in_the_hole_is_never_looked_at(kind, settings):
    model, x = tiny(kind, **settings)
    blank = np.where(KNOWN, x, np.nan)
    np.testing.assert_array_equal(complete(model, blank, KNOWN), complete(model, x, KNOWN))


@every_model
def test_known_pixels_decide_what_fills_the_hole(kind, settings):
    model, x = tiny(kind, **settings)
    assert (complete(model, 1 - x, KNOWN) != complete(model, x, KNOWN))[:, KNOWN == 0].any()


@every_model
def test_each_picture_may_have_a_hole_of_its_own(kind, settings):
    model, x = tiny(kind, **settings)
    holes = np.array([KNOWN, 1 - KNOWN, 0 * KNOWN, 0 * KNOWN + 1], bool)
    filled = complete(model, x, holes)
    np.testing.assert_array_equal(filled == x, holes)
    same = complete(model, x, np.tile(KNOWN, (4, 1)).astype(x.dtype))
    np.testing.assert_array_equal(same, complete(model, x, KNOWN))


@tokens_too
def test_a_model_stays_as_it_is(kind, settings):
    model, x = tiny(kind, **settings)
    for params in model.parameters().values():
        params.grad[...] = Rng(3, F64).normal(params.grad.shape)
    before = {name: array.copy() for name, array in model.state().items()}
    gradients = [params.grad.copy() for params in model.parameters().values()]
    kept = x.copy()
    complete(model, x, KNOWN)
    for name, array in model.state().items():
        np.testing.assert_array_equal(array, before[name], name)
    for params, gradient in zip(model.parameters().values(), gradients):
        np.testing.assert_array_equal(params.grad, gradient)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize(("x_shape", "shape"), [((4, 6), (5,)), ((4, 6), (3, 6)), ((4, 6), (4,)), ((6,), (6,))])
def test_a_mask_of_another_shape_is_refused(kind, x_shape, shape):
    model, _ = tiny(kind)
    both = f"x has shape {x_shape} and known {shape}".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=both):
        complete(model, np.zeros(x_shape), np.ones(shape))


@tokens_too
def test_the_same_on_a_device_and_nothing_waits_for_it(kind, settings, monkeypatch):
    monkeypatch.setitem(kernels.DEVICES, "simcupy", Runner())

    class HostRng(Rng):  # the same numbers on both
        def __init__(self, seed, dtype="float32", device="cpu"):
            super().__init__(seed, dtype, device)
            self.generator = self.host = Rng(seed).host

    filled = []
    for device in (np, simcupy):
        model, batch = kind.example(HostRng((0, 1), "float32", device), **settings)
        known = model.rng(0).array(KNOWN)
        rng = HostRng(7, "float32", device)
        with simcupy.counting() as counts:
            filled.append(completion.complete(model, batch["x"], known, rng, **SHORT[kind]))
        assert not counts.syncs, counts
        assert not [line for line in counts.log if "float64" in line]
    assert type(filled[1]) is simcupy.ndarray
    np.testing.assert_allclose(to_host(filled[1]), filled[0], atol=1e-5)


# ---- GAN: a code is searched for, and nothing else moves ----


def networks(x, known, c=0.1, lam=0.5, **settings):
    model, _ = GAN.example(Rng(0, F64), **settings)
    return CompletionLoss(model.generator, model.discriminator, x, known, c, lam)


def test_the_codes_gradient_is_the_derivative_of_the_loss():
    """Through a GAN's own networks, as complete() uses them, to the last digits."""
    x, known = Rng(1, F64).uniform((4, 6)), np.tile(KNOWN, (4, 1)).astype(F64)
    loss = networks(x, known)

    def f(z):
        value, backward = loss.forward(z, None)
        return value.sum(), backward(np.ones(4), learn=False)

    report = check_loss(f, Rng(2, F64).normal((4, 2)))
    assert report and report.error < 1e-12, report


def test_the_loss_is_the_sum_that_it_says():
    model, _ = GAN.example(Rng(0, F64))
    x, z = Rng(1, F64).uniform((4, 6)), Rng(2, F64).normal((4, 2))
    G = model.generator(z)
    D = 1 / (1 + np.exp(-model.discriminator(G)[:, 0]))
    wanted = (KNOWN * (G - x) ** 2).sum(axis=1) + 0.3 * (z**2).sum(axis=1) - 0.7 * np.log(D)
    loss = CompletionLoss(model.generator, model.discriminator, x, KNOWN * np.ones_like(x), 0.3, 0.7)
    np.testing.assert_allclose(loss(z), wanted)


def test_the_search_finds_the_best_code_of_a_linear_generator():
    """G(z) = z W + b: L has one minimum, ridge regression's z = (x - b) Wᵀ (W Wᵀ + c I)⁻¹ over the known pixels."""
    model, x = tiny(GAN, hidden_G=(), output="linear", averaging=0.0)
    model.average.average[...] = model.params_G.theta
    W, b = model.generator.layers[0].W, model.generator.layers[0].b
    k, c = KNOWN == 1, 0.3
    z = (x - b)[:, k] @ W[:, k].T @ np.linalg.inv(W[:, k] @ W[:, k].T + c * np.eye(2))
    filled = completion.complete(model, x, KNOWN, model.rng(1), n_steps=600, n_starts=1, variance=c, lam=0.0)
    np.testing.assert_allclose(filled[:, ~k], (z @ W + b)[:, ~k], atol=1e-4)


def search(x, n_starts=1, c=0.0, lam=0.0, n_steps=60):
    model, _ = GAN.example(Rng(0, F64), hidden_G=(8,))
    known = np.ones(x.shape, bool)
    return model, by_codes(
        model.generator, model.discriminator, 2, x, known, Rng(5, F64), n_steps, n_starts, c, lam, 0.1
    )


def test_of_several_starts_the_one_that_ends_lowest_is_taken():
    x = Rng(1, F64).uniform((30, 6))
    one, many = ((search(x, n)[1] - x) ** 2 for n in (1, 6))  # the first start is the same code
    one, many = one.sum(axis=1), many.sum(axis=1)
    assert (many <= one + 1e-12).all() and (many < one - 1e-3).any()


def test_what_the_two_priors_do():
    x = Rng(1, F64).uniform((30, 6))
    model, near = search(x)
    _, believed = search(x, lam=20.0)
    assert model.judge(believed).mean() > model.judge(near).mean() + 0.1
    _, central = search(x, c=1e4, n_steps=300)
    np.testing.assert_allclose(central, np.tile(model.generator(np.zeros((1, 2))), (30, 1)), atol=1e-2)


def test_the_averaged_weights_make_the_filling():
    model, x = tiny(GAN)
    model.average.average[...] = 0
    assert (complete(model, x, KNOWN)[:, KNOWN == 0] == 0.5).all()  # the sigmoid of 0


def test_a_packed_D_is_refused():
    model, x = tiny(GAN, pack=2)
    with pytest.raises(UsageError, match="pack=2"):
        complete(model, x, KNOWN)


# ---- VAE: a chain whose law is known where q is exact ----


def exact_vae(w, b, c):
    """p(x|z) = N(z w + b, c I) with one z: then p(z|x) = N(s (x - b)·w / c, s), s = 1 / (1 + ‖w‖² / c), and q is this."""
    model = VAE(n_features=len(w), n_latent=1, hidden=(), likelihood="gaussian", variance=c).build(Rng(0, F64))
    s = 1 / (1 + w @ w / c)
    model.decoder.layers[0].W[...], model.decoder.layers[0].b[...] = w, b
    model.encoder.layers[0].W[...] = np.stack([s * w / c, 0 * w], axis=1)
    model.encoder.layers[0].b[...] = [-s * (b @ w) / c, math.log(s)]
    return model


def test_the_chain_of_an_exact_vae_comes_to_the_conditional_law():
    w, b, c, n = np.array([1.0, -0.7, 0.5, 0.8]), np.array([0.3, 0.1, -0.2, 0.5]), 0.4, 6000
    k = np.array([True, True, False, False])
    x = np.array([1.5, -1.2, 0.0, 0.0])
    variance = 1 / (1 + (w[k] ** 2).sum() / c)  # of z given the known pixels alone
    mean = variance * ((x - b)[k] @ w[k]) / c
    model = exact_vae(w, b, c)
    filled = completion.complete(model, np.tile(x, (n, 1)), k, Rng(1, F64), n_steps=25)[:, 2:]
    np.testing.assert_allclose(filled.mean(axis=0), mean * w[~k] + b[~k], atol=5 * math.sqrt(variance / n))
    np.testing.assert_allclose(filled.var(axis=0), variance * w[~k] ** 2, rtol=5 * math.sqrt(2 / n))


def seen_by_the_encoder(model, x):
    seen, forward = [], model.encoder.forward
    model.encoder.forward = lambda x, rng: seen.append(x) or forward(x, rng)
    complete(model, x, KNOWN)
    return np.concatenate(seen)[:, KNOWN == 0]


def test_the_chain_shows_the_encoder_pixels_as_it_learned_them():
    model, x = tiny(VAE, binarize=True)
    assert set(np.unique(seen_by_the_encoder(model, (x > 0.5).astype(F64)))) == {0.0, 1.0}
    grey = seen_by_the_encoder(*tiny(VAE))
    assert ((grey > 0) & (grey < 1)).all()


# ---- diffusion: known pixels come back in at every step ----


def fillings(denoise, x, known, repeats, n=1200, T=60):
    x = np.tile(x, (n, 1))
    *_, (t, x_0) = inpaint(
        denoise, Rng(1, F64).normal(x.shape), x, known, alpha_bars("cosine", T), Rng(2, F64), T, repeats
    )
    assert t == 0 and (x_0[:, known] == x[:, known]).all()
    return x_0[:, ~known][:, 0]


def test_repeats_bring_a_correlated_gaussian_to_its_conditional_law():
    """Two numbers of correlation 0.8, the first known: the second is N(0.8 x, 0.36). Drawn once it heeds it too little."""
    a, C = alpha_bars("cosine", 60), np.array([[1, 0.8], [0.8, 1]])

    def denoise(x, t):  # E[x_0|x_t] = √ᾱ C (ᾱ C + (1 - ᾱ) I)⁻¹ x_t
        return x @ (math.sqrt(a[t]) * C @ np.linalg.inv(a[t] * C + (1 - a[t]) * np.eye(2))).T

    once, often = (fillings(denoise, np.array([1.5, 0]), np.array([True, False]), u) for u in (1, 10))
    assert abs(once.mean() - 1.2) > 0.35 and once.std() > 0.64
    assert abs(often.mean() - 1.2) < 0.1 and abs(often.std() - 0.6) < 0.08


def test_repeats_bring_a_mixture_nearer_to_its_conditional_law():
    """Two clouds, N((±1, ±1), ½² I): what is known gives the upper one 0.92; drawn once, it gets 0.65."""
    sigma, centre = 0.5, np.array([[-1.0, -1.0], [1.0, 1.0]])
    denoise = mixture_denoiser(centre, np.array([0.5, 0.5]), sigma, alpha_bars("cosine", 60))
    upper = 1 / (1 + math.exp(-2 * 0.3 / sigma**2))
    wanted = (
        upper * (1 + math.erf(1 / sigma / math.sqrt(2))) / 2
        + (1 - upper) * (1 - math.erf(1 / sigma / math.sqrt(2))) / 2
    )
    once, few, often = (
        (fillings(denoise, np.array([0.3, 0]), np.array([True, False]), u) > 0).mean() for u in (1, 4, 16)
    )
    assert once < 0.7 < few < often and abs(often - wanted) < 0.06


def test_known_pixels_are_as_noisy_as_the_time_asks():
    a, n, known = alpha_bars("cosine", 30), 4000, np.array([True, False])
    x_0 = np.tile([0.7, np.nan], (n, 1))
    path = inpaint(
        lambda x, t: 0 * x, Rng(1, F64).normal((n, 2)), np.where(known, x_0, 0), known, a, Rng(2, F64), 10, 2
    )
    times = []
    for t, x in path:
        times.append(t)
        if t < 30:
            assert abs(x[:, 0].mean() - math.sqrt(a[t]) * 0.7) <= 5 * math.sqrt((1 - a[t]) / n) + 1e-9
            assert abs(x[:, 0].var() - (1 - a[t])) <= 6 * (1 - a[t]) * math.sqrt(2 / n) + 1e-9
    assert times == list(range(30, -1, -3))


def test_a_network_is_asked_once_for_each_step_and_repeat():
    asked = []
    a, x = alpha_bars("cosine", 12), np.zeros((3, 2))
    list(inpaint(lambda x, t: asked.append(t) or x, x, x, np.ones(2), a, Rng(0, F64), 4, repeats=3))
    assert asked == [t for t in (12, 9, 6, 3) for _ in range(3)]
    for options, words in (({"n_steps": 13}, "13"), ({"n_steps": 4, "repeats": 0}, "repeats")):
        with pytest.raises(UsageError, match=words):
            list(inpaint(lambda x, t: x, x, x, np.ones(2), a, Rng(0, F64), **options))


def test_the_fillings_of_a_ddpm_are_in_the_units_of_the_data():
    model, x = tiny(DDPM, predict="x0", scaling="standard", averaging=0.0)
    x = 100 + 50 * x
    model.prepare(x, Rng(0))
    filled = complete(model, x, KNOWN)
    assert (filled >= x.min(axis=0) - 1e-9).all() and (filled <= x.max(axis=0) + 1e-9).all()


def test_a_network_is_shown_known_pixels_in_units_of_its_own():
    """A denoiser that sees the first feature everywhere must be shown it with mean 0 and variance 1."""
    model, x = tiny(DDPM, predict="v", scaling="standard", n_times=1000)
    x = 100 + 50 * x
    model.prepare(x, Rng(0))
    model.denoise = lambda x_t, *rest: np.repeat(x_t[:, :1], 6, axis=1)
    filled = complete(model, x, KNOWN, n_steps=1000, repeats=1)[:, KNOWN == 0]  # t = 1 at last: hardly any noise
    standard = (filled - x.mean(axis=0)[KNOWN == 0]) / x.std(axis=0)[KNOWN == 0]
    wanted = (x[:, :1] - x[:, :1].mean()) / x[:, :1].std()
    np.testing.assert_allclose(standard, np.repeat(wanted, 3, axis=1), atol=0.05)


def test_a_ddpm_completes_with_labels_and_by_averaged_weights():
    model, x = tiny(DDPM, conditional=True)
    filled = [complete(model, x, KNOWN, labels=np.full(4, k)) for k in (0, 1)]
    assert (filled[0] != filled[1]).any()
    with pytest.raises(ValueError, match=r"x has shape \(4, 6\) and labels \(3,\)"):
        complete(model, x, KNOWN, labels=np.zeros(3, int))
    labels = np.zeros(4, int)
    plain = complete(model, x, KNOWN, labels=labels)
    model.guidance = 3.0
    assert (complete(model, x, KNOWN, labels=labels) != plain).any()
    model.average.average[...] = 0
    assert (complete(model, x, KNOWN)[:, KNOWN == 0] == 0.5).all()


def test_with_grey_levels_a_network_is_shown_their_noise_and_the_hole_has_levels():
    model, x = tiny(DDPM, predict="x0", levels=5)
    x = np.zeros_like(x)
    seen, denoise = [], model.denoise
    model.denoise = lambda x_t, t, *rest: seen.append((x_t, t)) or denoise(x_t, t, *rest)
    filled = complete(model, x, KNOWN, n_steps=20, repeats=1)
    np.testing.assert_allclose(4 * filled, np.rint(4 * filled), atol=1e-12)
    x_t, t = seen[-1]  # hardly any noise but that of the levels: x′ is uniform on [0, 1/5]
    above = (x_t / 2 + 0.5)[:, KNOWN == 1]
    noise = math.sqrt(1 - model.alpha_bar[t])
    assert above.min() > -2 * noise and above.max() < 0.2 + 2 * noise and 0.05 < above.mean() < 0.15


def test_flows_cannot_complete_and_say_so_in_one_line():
    model, batch = FlowMatching.example(Rng(0))
    others = "a GAN, a VAE, a MADE, a MaskedDiffusion or a DDPM"
    with pytest.raises(UsageError, match=f"^a FlowMatching cannot complete: use {others}$"):
        completion.complete(model, batch["x"], KNOWN, Rng(1))


def test_features_have_no_known_pixels():
    model, batch = LatentDiffusion.example(Rng(0))
    with pytest.raises(UsageError, match="LatentDiffusion cannot complete"):
        completion.complete(model, batch["x"], KNOWN, Rng(0))


# ---- trained ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "epochs", "options"),
    [
        (lambda: GAN(n_features=64, hidden_G=(128, 256), hidden_D=(256, 128), r1=0.3), 70, {"n_steps": 200}),
        (partial(VAE, n_features=64, hidden=(256,), n_latent=8, batch=50), 60, {}),
        (partial(DDPM, n_features=64, width=128, lr=2e-3), 60, {"n_steps": 20}),
    ],
)
def test_trained_models_fill_the_lower_half_of_digits_better_than_the_mean_picture(make, epochs, options):
    data = load("digits", 0)
    model = make().build(Rng(0))
    fit(model, data.x_train, epochs=epochs, progress=False)
    x, known = data.x_test[:100], np.repeat([1, 0], 32)
    filled = np.mean([completion.complete(model, x, known, model.rng(seed), **options) for seed in range(4)], axis=0)
    mean = np.tile(data.x_train.mean(axis=0), (100, 1))
    assert psnr(filled[:, 32:], x[:, 32:]) > psnr(mean[:, 32:], x[:, 32:]) + 0.7
