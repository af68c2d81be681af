"""What the lecture notes print and what is right, where no other test shows it.

demos/ERRATA.md names a test for each of their mistakes.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest

from scratchgen import Rng
from scratchgen.metrics.divergences import grid, js, kl, optimal_discriminator, reverse_kl
from scratchgen.models.vae import VAE
from scratchgen.nn.distributions import reparameterize
from scratchgen.nn.losses import kl_standard_normal, loss_D, loss_G

POINTS, CELL = grid(-15, 15, 3_000)
Z = np.array([NormalDist().inv_cdf((i + 0.5) / 20_000) for i in range(20_000)])  # equally likely draws of N(0, 1)


def log_normal(x, mu, log_var=0.0):
    return (-0.5 * (log_var + (x - mu) ** 2 * math.exp(-log_var) + math.log(2 * math.pi))).ravel()


def test_the_constraint_is_least_at_variance_one_and_not_at_none():
    """lee-15 §1.2.1: to minimise exp(σ) - (1 + σ) "is to minimise σ"."""
    log_var = np.linspace(-3, 3, 61)[:, None]
    _, d_mu, d_log_var = kl_standard_normal(0 * log_var, log_var)
    assert (np.sign(d_log_var) == np.sign(np.round(log_var, 12))).all()  # downhill leads to 0 from both sides
    assert not d_mu.any()


def test_one_letter_cannot_be_the_log_variance_and_the_log_deviation():
    """week10, lee-15 §1.2, aias: constraint Σ exp σ - (1 + σ) + m², and samples m + exp(σ) ε."""
    s, m = 0.7, 0.4
    drawn = m + math.exp(s) * Z  # as printed: its law is N(m, exp(2s))
    printed = math.exp(s) - (1 + s) + m**2
    assert printed == pytest.approx(2 * kl_standard_normal(np.array([[m]]), np.array([[s]]))[0])  # of a variance exp(s)
    right = 0.5 * (math.exp(2 * s) - 1 - 2 * s + m**2)
    assert kl(log_normal(POINTS, m, 2 * s), log_normal(POINTS, 0.0), CELL) == pytest.approx(right, abs=1e-9)
    assert np.log(drawn.var()) == pytest.approx(2 * s, abs=1e-3)
    z, _ = reparameterize(np.full((20_000, 1), m), np.full((20_000, 1), s), Rng(0, "float64"))
    assert np.log(z.var()) == pytest.approx(s, abs=0.05)  # ours: log_var is the log-variance in both places


def test_m_squared_weighs_the_code_and_no_weight():
    """week10: "m² in the reconstruction loss is L2 regularisation"."""
    model = VAE(n_features=3, hidden=(), n_latent=2, batch=4).build(Rng(0, "float64"))
    x = Rng(1, "float64").uniform((4, 3))
    before = model.loss(x, Rng(2, "float64"))["kl"]
    model.decoder.layers[0].W[...] *= 10  # what L2 regularisation would charge for
    assert model.loss(x, Rng(2, "float64"))["kl"] == before
    mu, log_var = model.encode(x)
    np.testing.assert_allclose(kl_standard_normal(mu, log_var)[1], mu / 4)  # ∂KL/∂m, a mean over 4 examples


def best_gap(log_posterior):
    """The least KL(q‖p(z|x)) over Gaussians q of many means and deviations."""
    found = []
    for mu in np.linspace(-2, 2, 81):
        for log_var in np.linspace(-4, 1, 51):
            log_q = log_normal(POINTS, mu, log_var)
            found.append((np.exp(log_q) * (log_q - log_posterior)).sum() * CELL)
    return min(found)


def test_the_gap_closes_only_where_q_can_be_the_posterior():
    """aias: the ELBO can always be made equal to log P(x); week10: "make q(z|x) larger". log p(x) knows no q."""
    x, c = 1.0, 0.1
    gaps = {}
    for name, decoded in {"linear": POINTS, "curved": POINTS**2}.items():
        joint = log_normal(POINTS, 0.0) + log_normal(x - decoded, 0.0, math.log(c))  # log p(z) p(x|z)
        gaps[name] = best_gap(joint - np.log(np.exp(joint).sum() * CELL))
    assert 0 <= gaps["linear"] < 1e-3
    assert 0.5 < gaps["curved"] < math.log(2) + 0.1  # one of the two modes is left out: about log 2


def gradient_with_the_best_D_held(kind, mean, log_var, held=None):
    """∂/∂mean of loss_G for p = N(0, 1) and G(z) = mean + exp(½ log_var) z; D* is that of the mean `held`."""
    held = mean if held is None else held
    x = mean + math.exp(0.5 * log_var) * Z
    logits = log_normal(x, 0.0) - log_normal(x, held, log_var)
    slope = (x - held) * math.exp(-log_var) - x  # of the logit in x, which moves as the mean does
    return (loss_G(logits[:, None], kind)[1][:, 0] * slope).sum()


@pytest.mark.parametrize("mean", [0.5, 1.0, 2.0])
def test_the_two_losses_of_G_descend_two_divergences(mean):
    """lee-15 §3.1: "the same effect"; lee-15 §4: modes collapse "because of the KL in the loss"."""
    log_var, h, log_p = 0.6, 1e-4, log_normal(POINTS, 0.0)

    def slope(divergence):
        ahead, behind = (log_normal(POINTS, mean + s, log_var) for s in (h, -h))
        return (divergence(ahead) - divergence(behind)) / (2 * h)

    twice_jsd = slope(lambda log_q: 2 * js(log_p, log_q, CELL))
    mixture = slope(lambda log_q: reverse_kl(log_p, log_q, CELL) - 2 * js(log_p, log_q, CELL))
    assert gradient_with_the_best_D_held("minimax", mean, log_var) == pytest.approx(twice_jsd, rel=1e-3)
    assert gradient_with_the_best_D_held("non_saturating", mean, log_var) == pytest.approx(mixture, rel=1e-3)
    forward = slope(lambda log_q: kl(log_p, log_q, CELL))
    assert not any(abs(forward - other) < 0.01 * abs(forward) for other in (twice_jsd, mixture))  # neither is the KL


def test_with_D_held_the_jsd_falls_and_then_rises_though_G_is_told_it_does_well():
    """lee-15 §2.4: not too many steps of G, for "it would already pass for real". D* belongs to the old G."""
    start, log_p = 2.0, log_normal(POINTS, 0.0)
    mean, told, jsds = start, [], []
    while mean > -3:
        jsds.append(js(log_p, log_normal(POINTS, mean), CELL))
        x = mean + Z[::20]
        told.append(loss_G((log_normal(x, 0.0) - log_normal(x, start))[:, None], "minimax")[0])
        mean -= 0.05 * gradient_with_the_best_D_held("minimax", mean, 0.0, held=start)
    least = int(np.argmin(jsds))
    assert jsds[least] < 0.001 < 0.3 < min(jsds[0], jsds[-1])
    assert (np.diff(told) < 0).all()  # progress all the way


def test_the_smaller_the_loss_of_the_best_D_the_larger_the_divergence():
    """lee-15 §3.2: "larger D loss, larger divergence"; §2.3.2: V(G, D*) "is" the JSD, whose "least value" is log 2."""
    found = []
    for mean in (0.0, 0.5, 1.0, 2.0, 8.0):
        log_p, log_q = log_normal(POINTS, 0.0), log_normal(POINTS, mean)
        _, logits = optimal_discriminator(log_normal(Z, 0.0), log_normal(Z, mean))  # at real examples, equally likely
        _, others = optimal_discriminator(log_normal(Z + mean, 0.0), log_normal(Z + mean, mean))  # at generated ones
        loss = loss_D(logits[:, None], others[:, None])[0]
        jsd = js(log_p, log_q, CELL)
        assert jsd == pytest.approx(math.log(2) - loss / 2, abs=1e-4)
        found.append((loss, jsd))
    losses, jsds = zip(*found)
    assert list(losses) == sorted(losses, reverse=True) and list(jsds) == sorted(jsds)
    assert jsds[0] == pytest.approx(0, abs=1e-12) and jsds[-1] == pytest.approx(math.log(2), abs=1e-3)


def test_the_encoder_goes_from_pictures_to_codes_and_has_two_outputs():
    """gan-vae-notes: the captions of encoder and decoder are swapped; lee-15 §1.2: three vectors, the drawn ε among them."""
    model = VAE(n_features=5, hidden=(4,), n_latent=2).build(Rng(0))
    x = Rng(1).uniform((3, 5))
    assert [part.shape for part in model.encode(x)] == [(3, 2), (3, 2)]  # μ and log σ²: no ε
    assert all((a == b).all() for a, b in zip(model.encode(x), model.encode(x)))  # nothing is drawn
    assert model.decode(model.encode(x)[0]).shape == x.shape
