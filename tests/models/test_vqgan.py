"""What a gradient check does not see in a VQ-GAN: that λ is eq 7's, who learns from what, what D is shown, the warm-up."""

import dataclasses

import numpy as np
import pytest

from scratchgen import Rng, gradcheck
from scratchgen.data import load
from scratchgen.metrics.frechet import FrechetJudge
from scratchgen.metrics.image import sharpness
from scratchgen.models import vqgan
from scratchgen.models.vqgan import VQGAN
from scratchgen.models.vqvae import VQVAE
from scratchgen.train.fit import fit

F64 = "float64"


def tiny(model=VQGAN, **settings):
    """A model, with the same autoencoder for both classes, and a batch."""
    made, x = model.example(Rng((0, 1), F64), **settings)[0], Rng(9, F64).uniform((4, 6))
    made.prepare(x, Rng(10, F64))
    return made, x


def last_layer(model):
    """The slice of theta that holds the weights L of the decoder's last Linear."""
    *_, name = (name for name in model.params.slices() if name.startswith("decoder") and name.endswith("W"))
    where = model.params.slices()[name]
    assert model.params.named()[name].shape == (5, 6)
    return where


def norms(model, x):
    """‖∇_L‖ of the squares and of the adversarial term, each by the complex step."""
    where, found = last_layer(model), {"squares": [], "adversarial": []}
    for params in model.parameters().values():
        params.cast("complex128")
    for i in range(where.start, where.stop):
        model.params.theta[i] += 1e-20j
        losses = model.loss(x, Rng(2, F64))
        model.params.theta[i] -= 1e-20j
        for name, slopes in found.items():
            slopes.append(losses[name].imag / 1e-20)
    return [np.linalg.norm(slopes) for slopes in found.values()]


# ---- λ ----


@pytest.mark.parametrize(
    "settings", [{}, {"adversarial_loss": "non_saturating", "adversarial_weight": 0.3, "codebook": "gradient"}]
)
def test_lambda_is_the_ratio_of_the_two_gradients_in_the_last_layer(settings):
    model, x = tiny(**settings)
    lam = model.loss(x, Rng(2, F64))["lambda"]
    of_squares, of_adversarial = norms(model, x)
    assert lam == pytest.approx(model.adversarial_weight * of_squares / (of_adversarial + 1e-6), rel=1e-10)
    assert of_squares > 0.01 and of_adversarial > 1e-3


def test_the_last_layer_is_pulled_by_both_as_w_says():
    """The gradient in L is that of the squares and another, w times as long, whatever D's scale."""
    pulls = {}
    for w, scale in ((0.0, 1), (0.5, 1), (0.5, 100)):
        model, x = tiny(adversarial_weight=w)
        model.params_D.theta *= scale ** (1 / 2)  # of its two layers
        model.loss(x, Rng(2, F64))
        pulls[w, scale] = model.params.grad[last_layer(model)].copy()
    alone = pulls.pop((0.0, 1))
    for pull in pulls.values():
        assert np.linalg.norm(pull - alone) == pytest.approx(0.5 * np.linalg.norm(alone), rel=1e-3)


def test_lambda_is_bounded_where_D_says_nothing():
    model, x = tiny()
    model.params_D.theta[...] = 0
    found = model.loss(x, Rng(2, F64))
    assert found["lambda"] == 1e4 and np.isfinite(model.params.grad).all()


def test_a_lambda_that_is_no_constant_is_caught(monkeypatch):
    """With λ written without sg[.], the value has slopes that the gradient has not."""
    model, x = tiny()

    def report():
        together = model.parameters().values()
        return gradcheck(lambda: model.loss(x, Rng(2, F64))["loss"], model.params, together=together, cross_check=False)

    assert report()
    balance = VQGAN.balance

    def free(self, *given):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vqgan, "stop", lambda x: x)
            return balance(self, *given)

    monkeypatch.setattr(VQGAN, "balance", free)
    assert not report()


# ---- the two objectives ----


def test_the_terms_by_formula():
    model, x = tiny(beta=0.7)
    found, z = model.loss(x, Rng(2, F64)), model.encode(x)
    x_hat = model.reconstruct(x)
    squares, distance = ((x_hat - x) ** 2).sum() / 4, ((z - model.quantise(z)) ** 2).sum() / 4
    adversarial = -model.judge(x_hat).mean()
    assert (found["squares"], found["commitment"]) == (pytest.approx(squares), pytest.approx(distance))
    assert found["adversarial"] == pytest.approx(adversarial)
    assert found["loss"] == pytest.approx(squares + 0.7 * distance + found["lambda"] * adversarial)


@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_D_is_to_tell_pictures_from_what_is_restored_of_them(kind):
    model, x = tiny(adversarial_loss=kind, r1=0.0)
    real, fake = model.judge(x), model.judge(model.reconstruct(x))
    wanted = {
        "hinge": np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
        "non_saturating": np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean(),
    }
    assert model.discriminator_loss(x, Rng(2, F64))["discriminator_loss"] == pytest.approx(wanted[kind])


def test_r1_is_half_gamma_times_the_squared_slope_at_real_pictures():
    found = {r1: tiny(r1=r1)[0].discriminator_loss(tiny()[1], Rng(1, F64))["discriminator_loss"] for r1 in (0.0, 0.7)}
    model, x = tiny()
    y, back = model.discriminator.forward(x, None)
    slope = back(np.ones_like(y), learn=False)
    assert found[0.7] - found[0.0] == pytest.approx(0.35 * (slope**2).sum(axis=1).mean())


def test_each_objective_leaves_the_other_network_alone():
    model, x = tiny()
    for objective, other in (("loss", model.params_D), ("discriminator_loss", model.params)):
        other.grad[...] = kept = Rng(3, F64).normal(other.grad.shape)
        theta, buffers = other.theta.copy(), other.buffers.copy()
        getattr(model, objective)(x, Rng(2, F64))
        assert (other.grad == kept).all() and (other.theta == theta).all() and (other.buffers == buffers).all()


def test_the_autoencoder_goes_where_D_says_real_and_D_the_other_way():
    """What the adversarial term adds to the gradient raises D's logits; a step of D lowers those of what is restored."""
    model, x = tiny()
    plain, _ = tiny(VQVAE)
    before = model.judge(model.reconstruct(x)).mean()
    gap = model.judge(x).mean() - before
    model.loss(x, Rng(2, F64))
    plain.loss(x, Rng(2, F64))
    decoder = np.array(
        ["decoder" in name for name in model.params.slices() for _ in range(model.params.named()[name].size)]
    )
    step = (model.params.grad - plain.params.grad) * decoder
    model.params.theta -= 1e-4 * step
    assert model.judge(model.reconstruct(x)).mean() > before
    model.params.theta += 1e-4 * step
    model.discriminator_loss(x, Rng(2, F64))
    model.params_D.theta -= 1e-3 * model.params_D.grad
    assert model.judge(x).mean() - model.judge(model.reconstruct(x)).mean() > gap


# ---- the warm-up ----


def steps(model, x, n):
    """The losses of n steps, and after each the bits of the autoencoder and of D."""
    rng, found = model.rng(5), []
    for _ in range(n):
        losses = model.train_step(x, rng)
        bits = [array.tobytes() for array in (model.params.theta, model.params.buffers, model.adam.m)]
        found.append((losses, bits, model.params_D.theta.tobytes() if hasattr(model, "params_D") else None))
    return found


@pytest.mark.parametrize("settings", [{}, {"codebook": "gradient", "restart_every": 2, "n_embeddings": 20}])
def test_the_warmup_is_a_vq_vaes_training_bit_for_bit(settings):
    model, x = tiny(warmup_steps=4, **settings)
    plain, _ = tiny(VQVAE, **settings)
    at_first = model.params_D.theta.tobytes()
    found, expected = steps(model, x, 6), steps(plain, x, 6)
    for i, ((losses, bits, D), (plain_losses, plain_bits, _)) in enumerate(zip(found, expected)):
        warm = i < 4
        assert (bits == plain_bits) == (losses == plain_losses) == (at_first == D) == warm
        assert ("discriminator_loss" in losses) == ("lambda" in losses) == (not warm)
    assert int(model.optimizer_D.t[0]) == 2 and not model.same_every_step


def test_without_weight_the_autoencoder_is_a_vq_vae():
    (model, x), (plain, _) = tiny(adversarial_weight=0.0), tiny(VQVAE)
    for (_, bits, _), (_, plain_bits, _) in zip(steps(model, x, 3), steps(plain, x, 3)):
        assert bits == plain_bits


def test_the_rate_of_D_falls_over_its_own_steps():
    model, _ = tiny(warmup_steps=20, decay_steps=30, lr_D=1e-3)
    assert [model.optimizer_D.rate(t) for t in (1, 6, 11)] == pytest.approx([1e-3, 1e-3, 0], abs=1e-15)
    assert tiny(warmup_steps=20, decay_steps=10)[0].optimizer_D.rate(100) == tiny()[0].lr_D


def test_a_warmup_goes_through_fit():
    model = VQGAN.example(Rng(0), warmup_steps=5)[0]
    first, second = fit(model, Rng(1).uniform((16, 6)), epochs=2, x_test=Rng(2).uniform((8, 6)), progress=False)
    assert "lambda" not in first and "lambda" in second
    assert {"test_mse", "test_logit_real", "test_logit_fake"} <= first.keys()


# ---- no setting is dead ----

OTHER = {"adversarial_loss": "non_saturating", "adversarial_weight": 0.3, "warmup_steps": 2, "r1": 0.1, "lr_D": 3e-3}
NETWORKS = {"hidden_D"}


@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dead(setting):
    after = []
    for settings in ({}, {setting: OTHER[setting]}):
        model, x = tiny(**settings)
        steps(model, x, 4)
        after.append((model.params.theta, model.params_D.theta))
    (theta, theta_D), (other, other_D) = after
    assert not np.array_equal(theta, other) and not np.array_equal(theta_D, other_D)


def test_every_setting_is_tried_above():
    inherited = {field.name for field in dataclasses.fields(VQVAE)}
    assert {field.name for field in dataclasses.fields(VQGAN)} - inherited - NETWORKS == OTHER.keys()


# ---- how sharp pictures are ----


def test_sharpness_of_an_edge_a_ramp_and_a_blur():
    edge = np.zeros((1, 5, 5))
    edge[:, :, 2:] = 1
    assert sharpness(edge.reshape(1, 25), (5, 5)) == pytest.approx(1 / 4)  # one of four steps to the right
    y, x = np.mgrid[:5, :5] / 10
    assert sharpness((3 * x + 4 * y).reshape(1, 25), (5, 5)) == pytest.approx(0.5)
    both = np.concatenate([edge, 0 * edge]).reshape(2, 25)
    assert sharpness(both, (5, 5)) == pytest.approx(1 / 8)
    assert sharpness(np.repeat(both, 3, axis=1), (5, 5, 3)) == pytest.approx(1 / 8)
    pictures = Rng(0).uniform((20, 64))
    blurred = (pictures + np.roll(pictures, 1, axis=1)) / 2
    assert sharpness(blurred, (8, 8)) < 0.8 * sharpness(pictures, (8, 8))


# ---- what it reaches ----


@pytest.mark.slow
def test_in_8_bits_it_is_sharper_and_nearer_to_real_digits_but_farther_from_the_digit():
    data = load("digits")
    judge, found = FrechetJudge(data), {}
    settings = {"n_features": 64, "hidden": (128, 64), "n_codes": 2, "n_dim": 4, "n_embeddings": 16, "batch": 50}
    for model in (VQVAE(**settings), VQGAN(**settings, hidden_D=(256, 128), r1=0.1)):
        model.decay_steps = 120 * 28
        fit(model.build(Rng(0)), data.x_train, epochs=120, progress=False)
        x_hat = model.reconstruct(data.x_test)
        found[type(model)] = sharpness(x_hat, data.shape), judge.distance(x_hat), ((x_hat - data.x_test) ** 2).mean()
    (blurred, far, near_x), (sharp, near, far_x) = found[VQVAE], found[VQGAN]
    assert blurred < 0.92 * sharpness(data.x_test, data.shape) < 0.96 * sharpness(data.x_test, data.shape) < sharp
    assert near < far and far_x > near_x
