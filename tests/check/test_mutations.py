"""The bugs of public from-scratch code, put back in on purpose: the checks must catch each, and pass the right version.

Where a bug is consistent with its own gradient, the test shows that too: gradcheck passes it, a test of meaning does not.
"""

import numpy as np
import pytest

from scratchgen import Layer, Parameters, Rng, Sequential, Weight, check_layer, check_loss, gradcheck
from scratchgen.models import vae
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.models.wgan import WGAN
from scratchgen.nn.distributions import reparameterize
from scratchgen.nn.double_backward import between, gradient_penalty
from scratchgen.nn.initialisers import he
from scratchgen.nn.layers import Dropout, Linear, log_softmax, one_hot
from scratchgen.nn.losses import kl_standard_normal, loss_D, softmax_cross_entropy, squared_error
from scratchgen.nn.norms import BatchNorm, normalise
from scratchgen.nn.optim import Adam, clip_weights

F64 = "float64"


def arrays(*shapes, seed=0):
    rng = Rng(seed, F64)
    return [rng.normal(shape) for shape in shapes]


class Sampler(Layer):
    """(mu, log_var) -> z, so that a sampler can be checked as a layer."""

    def __init__(self, sampler):
        self.sampler = sampler

    def forward(self, pair, rng):
        z, back = self.sampler(*pair, rng or Rng(0, F64))
        return z, lambda dz, learn=True, inputs=True: back(dz)


# 1. The variance used as a standard deviation (numpy-ml's VAE).


def variance_for_deviation(mu, log_var, rng):
    noise = np.exp(log_var) * rng.normal(mu.shape)
    return mu + noise, lambda dz: (dz, noise * dz)


def has_the_variance_asked_for(sampler, n=100_000):
    log_var = np.full((n, 1), np.log(4.0))
    z, _ = sampler(np.zeros((n, 1)), log_var, Rng(1, F64))
    return abs(z.var() - 4) < 5 * 4 * np.sqrt(2 / n)  # the variance of a Gaussian's sample variance is 2 σ⁴ / n


def test_variance_for_deviation_is_its_own_derivative_but_has_the_wrong_moments():
    assert check_layer(Sampler(variance_for_deviation), tuple(arrays((3, 4), (3, 4))))
    assert not has_the_variance_asked_for(variance_for_deviation)


def test_right_sampler_has_the_moments_and_the_gradient():
    assert check_layer(Sampler(reparameterize), tuple(arrays((3, 4), (3, 4))))
    assert has_the_variance_asked_for(reparameterize)


# 5. The diagonal of the softmax's Jacobian alone (ML-From-Scratch).


def diagonal_softmax(logits, labels):
    value, _ = softmax_cross_entropy(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    d_p = -one_hot(labels, logits.shape[1], logits.dtype) / p / len(logits)
    return value, d_p * p * (1 - p)


def test_diagonal_of_softmax_is_caught():
    (logits,), labels = arrays((5, 4)), np.array([0, 1, 2, 3, 0])
    report = check_loss(diagonal_softmax, logits, labels)
    assert not report
    assert report.hint() == "the analytic gradient is 0 here: a path was forgotten"  # all but the label's own logit
    assert check_loss(softmax_cross_entropy, logits, labels)


# 6. Adam's bias correction without the power t (ML-From-Scratch).


class AdamWithoutPower(Adam):
    def numbers(self, t):
        return super().numbers(1)


def steps_of_constant_gradient(adam_class):
    """Under a constant gradient m̂ = g and v̂ = g² whatever t, so every step is lr · sign(g)."""
    params = Parameters(Rng(0, F64), layer=Linear(2, 1))
    adam, steps = adam_class(params, lr=0.1), []
    params.grad[:] = [3.0, -0.5, 20.0]
    for _ in range(10):
        before = params.theta.copy()
        adam.step()
        steps.append(params.theta - before)
    return np.array(steps)


def test_adam_without_the_power_takes_steps_of_another_size():
    expected = np.tile([-0.1, 0.1, -0.1], (10, 1))
    np.testing.assert_allclose(steps_of_constant_gradient(Adam), expected, rtol=1e-7)
    wrong = steps_of_constant_gradient(AdamWithoutPower)
    np.testing.assert_allclose(wrong[0], expected[0], rtol=1e-7)  # t = 1 is right: one step would not show it
    assert np.abs(wrong[1:] / expected[1:]).min() > 1.3


# 8. Backward draws fresh noise.


def fresh_noise(mu, log_var, rng):
    sigma = np.exp(0.5 * log_var)
    return mu + sigma * rng.normal(mu.shape), lambda dz: (dz, 0.5 * sigma * rng.normal(mu.shape) * dz)


def test_fresh_noise_in_backward_is_caught():
    report = check_layer(Sampler(fresh_noise), tuple(arrays((3, 4), (3, 4))))
    assert not report
    assert report.parameter == "input.x1"  # log_var; mu's gradient is right


def test_fresh_noise_from_a_generator_that_goes_on_is_caught_with_the_remedy():
    stream = Rng(0, F64)
    report = check_layer(Sampler(lambda mu, log_var, rng: fresh_noise(mu, log_var, stream)), tuple(arrays((3, 4)) * 2))
    assert not report
    assert "draw from the rng that forward gets" in report.problem


# 14. Gradient summed over the batch where the loss takes the mean, and the other way round.


def summed_gradient(x_hat, x):
    value, gradient = squared_error(x_hat, x)
    return value, gradient * len(x)


def twice_averaged_gradient(x_hat, x):
    value, gradient = squared_error(x_hat, x)
    return value, gradient / len(x)


def test_sum_for_mean_is_caught_and_named():
    x_hat, x = arrays((7, 3), (7, 3))
    report = check_loss(summed_gradient, x_hat, x)
    assert (
        not report and report.hint() == "7 times too large: is it a sum over the batch where the value takes the mean?"
    )
    report = check_loss(twice_averaged_gradient, x_hat, x)
    assert not report and report.hint() == "7 times too small: is the mean over the batch taken twice?"
    assert check_loss(squared_error, x_hat, x)


# 15. Zero compared with zero; the input's gradient skipped.


def test_zero_compared_with_zero_is_no_pass():
    def nothing(x_hat, x):
        return (0 * x_hat).sum(), 0 * x_hat

    report = check_loss(nothing, *arrays((2, 3), (2, 3)))
    assert not report
    assert report.problem == "the analytic gradient is zero everywhere: there is nothing to compare"


class WithoutInputGradient(Linear):
    def __init__(self, n_in, n_out, instead):
        super().__init__(n_in, n_out)
        self.instead = instead

    def forward(self, x, rng):
        y, back = super().forward(x, rng)

        def backward(dy, learn=True, inputs=True):
            back(dy, learn, inputs=False)
            return self.instead(x)

        return y, backward


def weights_alone(layer, x):
    """What a check that forgets the input would see."""
    params = Parameters(Rng(0, F64), layer=layer)

    def objective():
        y, back = layer.forward(x, None)
        value, dy = squared_error(y, np.ones_like(y))
        back(dy)
        return value

    return gradcheck(objective, params)


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        (lambda x: None, "backward returned dx of shape None for x (5, 3)"),
        (np.zeros_like, "the analytic gradient is 0 here: a path was forgotten"),
    ],
)
def test_skipped_input_gradient_is_caught(instead, said):
    (x,) = arrays((5, 3))
    assert weights_alone(WithoutInputGradient(3, 4, instead), x), "the weights' gradients are right"
    report = check_layer(WithoutInputGradient(3, 4, instead), x)
    assert not report and said in str(report)
    assert check_layer(Linear(3, 4), x)


# 16. A closure called after the weights have moved.


def test_stale_closure_is_refused():
    x, dy = arrays((5, 3), (5, 4))
    network = Sequential(Linear(3, 4))
    params = Parameters(Rng(0, F64), network=network)
    adam = Adam(params, lr=0.1)

    _, right = network.forward(x, None)
    dx = right(dy)
    _, stale = network.forward(x, None)
    adam.step()
    with pytest.raises(RuntimeError, match="call forward again"):
        stale(dy)
    silently_wrong = dy @ network.layers[0].W.T  # what the closure would have returned
    assert np.abs(silently_wrong - dx).max() > 0.01


# 17. Dropout: no 1/(1-p); a fresh mask in backward.


class PlainDropout(Dropout):
    def forward(self, x, rng):
        if rng is None:
            return x, lambda dy, learn=True, inputs=True: dy
        mask = (rng.uniform(x.shape) >= self.p).astype(rng.real)
        return x * mask, lambda dy, learn=True, inputs=True: dy * mask


class FreshMaskDropout(Dropout):
    def forward(self, x, rng):
        y, _ = super().forward(x, rng)

        def backward(dy, learn=True, inputs=True):
            return super(FreshMaskDropout, self).forward(x, rng)[1](dy)

        return y, backward


def keeps_the_mean(dropout, n=100_000):
    y = dropout(np.ones((n, 1)), Rng(2, F64))
    return abs(y.mean() - 1) < 5 * np.sqrt(dropout.p / (1 - dropout.p) / n)


def test_unscaled_dropout_is_its_own_derivative_but_shrinks_the_mean():
    assert check_layer(PlainDropout(0.4), (6, 5))
    assert not keeps_the_mean(PlainDropout(0.4))
    assert check_layer(Dropout(0.4), (6, 5))
    assert keeps_the_mean(Dropout(0.4))


def test_fresh_mask_in_backward_is_caught():
    report = check_layer(FreshMaskDropout(0.4), (6, 5))
    assert not report and report.name == "FreshMaskDropout (learning)"


# 18. Batch norm whose mean and variance count as constants.


class ConstantMoments(BatchNorm):
    def __init__(self, n, keep_mean, keep_variance):
        super().__init__(n)
        self.keep_mean, self.keep_variance = keep_mean, keep_variance

    def forward(self, x, rng):
        y, back = super().forward(x, rng)
        if rng is None:
            return y, back
        x_hat, _, _, s, _ = normalise(x, 0, self.eps)

        def backward(dy, learn=True, inputs=True):
            back(dy, learn, inputs)
            g = dy * self.gamma
            path_mean = g.mean(axis=0) if self.keep_mean else 0
            path_variance = x_hat * (g * x_hat).mean(axis=0) if self.keep_variance else 0
            return (g - path_mean - path_variance) / s

        return y, backward


@pytest.mark.parametrize("keep", [(False, False), (True, False), (False, True)])
def test_batch_norm_without_the_paths_through_its_moments_is_caught(keep):
    report = check_layer(ConstantMoments(4, *keep), (6, 4))
    assert not report
    assert (report.name, report.parameter) == ("ConstantMoments (learning)", "input.x0")
    assert check_layer(ConstantMoments(4, True, True), (6, 4)), "with both paths the copy is right"
    assert check_layer(BatchNorm(4), (6, 4)), "and so is the library's"


# The first things anyone gets wrong in y = x W + b.


class WrongLinear(Layer):
    """Linear with one slip: a name of `slips`, or "" for none."""

    slips = ("no db", "dW transposed", "dW a millionth too large", "dx by W", "dW doubled", "db negated", "b twice")

    def __init__(self, n, slip):
        self.W, self.b, self.slip = Weight((n, n), he), Weight((n,)), slip

    def forward(self, x, rng):
        slip = self.slip
        y = x @ self.W + self.b * (2 if slip == "b twice" else 1)

        def backward(dy, learn=True, inputs=True):
            if learn:
                dW = dy.T @ x if slip == "dW transposed" else x.T @ dy
                self.dW += dW * {"dW a millionth too large": 1.000001, "dW doubled": 2}.get(slip, 1)
                self.db += dy.sum(axis=0) * {"no db": 0, "db negated": -1}.get(slip, 1)
            if inputs:
                return dy @ (self.W if slip == "dx by W" else self.W.T)

        return y, backward


@pytest.mark.parametrize(
    ("slip", "parameter", "hint"),
    [
        ("no db", "layer.b", "the analytic gradient is 0 here: a path was forgotten"),
        ("dW transposed", "layer.W", "analytic / numeric"),
        ("dW a millionth too large", "layer.W", "analytic / numeric = 1"),
        ("dx by W", "input.x0", "analytic / numeric"),
        ("dW doubled", "layer.W", "twice too large: a ½ forgotten?"),
        ("db negated", "layer.b", "the sign is wrong"),
        ("b twice", "layer.b", "half of it is missing"),
    ],
)
def test_slips_in_linear_are_caught_and_placed(slip, parameter, hint):
    report = check_layer(WrongLinear(3, slip), (5, 3))
    assert not report
    assert report.parameter == parameter
    assert report.hint().startswith(hint)
    assert f"{parameter}[" in str(report) and hint in str(report)


def test_every_slip_is_tried_and_the_right_linear_passes():
    (tried,) = [mark.args[1] for mark in test_slips_in_linear_are_caught_and_placed.pytestmark]
    assert {slip for slip, _, _ in tried} == set(WrongLinear.slips)
    assert check_layer(WrongLinear(3, ""), (5, 3))


def test_a_millionth_is_measured_as_a_millionth():
    report = check_layer(WrongLinear(3, "dW a millionth too large"), (5, 3))
    assert report.error == pytest.approx(1e-6, rel=0.01)  # central differences, tolerance 1e-6, could not tell


# The KL of a VAE as various notes print it.


def kl_with_flipped_sign(mu, log_var):
    """gan-vae-notes eq 2.2 prints -KL; with KL's gradient beside it one thing is trained and another one plotted."""
    value, *gradients = kl_standard_normal(mu, log_var)
    return -value, *gradients


def minus_kl(mu, log_var):
    """The same with gradients to match: its own derivative, and a loss that blows the posterior up."""
    value, d_mu, d_log_var = kl_standard_normal(mu, log_var)
    return -value, -d_mu, -d_log_var


def kl_reading_log_std(mu, log_var):
    """The value takes its argument for log σ, the gradient for log σ²."""
    _, d_mu, d_log_var = kl_standard_normal(mu, log_var)
    return kl_standard_normal(mu, 2 * log_var)[0], d_mu, d_log_var


def kl_of_log_std(mu, log_var):
    """Both take it for log σ."""
    value, d_mu, d_log_std = kl_standard_normal(mu, 2 * log_var)
    return value, d_mu, 2 * d_log_std


def is_the_divergence(kl):
    """Against ∫ q log(q/p) for q = N(0.7, e^0.8)."""
    z = np.linspace(-15, 15, 20_001)
    log_q = -0.5 * (np.log(2 * np.pi) + 0.8 + (z - 0.7) ** 2 / np.exp(0.8))
    log_p = -0.5 * (np.log(2 * np.pi) + z**2)
    exact = (np.exp(log_q) * (log_q - log_p)).sum() * (z[1] - z[0])
    return np.isclose(kl(np.array([[0.7]]), np.array([[0.8]]))[0], exact, rtol=1e-9)


def test_kl_with_one_sign_flipped_is_caught_by_its_gradient():
    report = check_loss(kl_with_flipped_sign, *arrays((3, 4), (3, 4)))
    assert not report and report.hint() == "the sign is wrong"


def test_kl_that_confuses_log_std_and_log_variance_is_caught_by_its_gradient():
    report = check_loss(kl_reading_log_std, *arrays((3, 4), (3, 4)))
    assert not report and report.parameter == "input.x1"


@pytest.mark.parametrize("wrong", [minus_kl, kl_of_log_std])
def test_consistently_wrong_kl_is_its_own_derivative_but_not_the_divergence(wrong):
    assert check_loss(wrong, *arrays((3, 4), (3, 4)))
    assert not is_the_divergence(wrong)
    assert check_loss(kl_standard_normal, *arrays((3, 4), (3, 4)))
    assert is_the_divergence(kl_standard_normal)


# 2, 3, 7, 13. Adversarial training. (4, the penalty without f″, is in test_second_order.py.)


def objective_report(model_class, objective, **settings):
    """The gradient check of one objective of a tiny model of this class."""
    model, batch = model_class.example(Rng(1, F64), **settings)
    params = getattr(model, model.objectives[objective])

    def value():
        return getattr(model, objective)(rng=Rng(2, F64), **batch)[objective]

    return gradcheck(value, params, together=model.parameters().values())


class Flushed(GAN):
    """numpy-ml's WGAN-GP: what the generator remembers is gone before its backward, so its gradient is 0."""

    def generator_loss(self, x, rng, labels=None):
        losses = super().generator_loss(x, rng)
        self.params_G.zero_grad()
        return losses


def test_a_generator_that_never_trains_is_caught():
    report = objective_report(Flushed, "generator_loss")
    assert not report
    assert report.problem == "the analytic gradient is zero everywhere: there is nothing to compare"
    assert objective_report(GAN, "generator_loss")


class FakesActivations(GAN):
    """gan_numpy: the gradient of D on real examples runs through what the generated ones left in the layers."""

    def discriminator_loss(self, x, rng, labels=None):
        self.params_D.zero_grad()
        fake = self.generator(rng.normal((len(x), self.n_latent)), rng)
        logits_real, _ = self.discriminator.forward(x, rng)
        logits_fake, back_fake = self.discriminator.forward(fake, rng)
        loss, d_real, d_fake = loss_D(logits_real, logits_fake, self.adversarial_loss)
        back_fake(d_real, inputs=False)
        back_fake(d_fake, inputs=False)
        return {"discriminator_loss": loss}


def test_the_activations_of_the_other_batch_are_caught():
    assert not objective_report(FakesActivations, "discriminator_loss", r1=0.0)
    assert objective_report(GAN, "discriminator_loss", r1=0.0)


class Flipped(WGAN):
    """numpy-ml's Wasserstein loss with both signs turned round: D lowers its score on real examples, G on its own."""

    def discriminator_loss(self, x, rng, labels=None):
        losses = super().discriminator_loss(x, rng)
        self.params_D.grad *= -1
        return losses | {"discriminator_loss": -losses["discriminator_loss"]}


def test_flipped_signs_are_their_own_derivative_but_measure_no_distance():
    """A critic is trained between two heaps one apart; it must score the real heap higher."""
    settings = {"n_features": 1, "hidden_D": (16,), "output": "linear", "constraint": "clip", "clip": 0.3, "lr_D": 0.01}

    def measured(model_class):
        model = model_class.example(Rng(0, F64), **settings)[0]
        model.params_G.theta[...] = model.average.average[...] = 0
        for seed in range(50):
            model.discriminator_loss(1 + 0.1 * Rng(seed, F64).normal((32, 1)), Rng(seed, F64))
            model.optimizer_D.step()
            clip_weights(model.params_D, model.clip)
        return model.evaluate(np.ones((32, 1)), Rng(0, F64))["wasserstein"]

    for model_class in (WGAN, Flipped):
        assert objective_report(model_class, "discriminator_loss", constraint="clip")
    assert measured(WGAN) > 0.1
    assert measured(Flipped) < -0.1


@pytest.mark.parametrize("shape", [(2000, 1), (2000, 3)])
def test_a_weight_for_each_pixel_leaves_the_line_between_two_examples(shape):
    """Points α x + (1 - α) x̂ lie on the line from x̂ to x: the distances to both ends add up to its length."""
    real, fake = arrays((2000, 3), (2000, 3))
    alpha = Rng(5, F64).uniform(shape)

    def on_the_line(points):
        ends = np.linalg.norm(points - real, axis=1) + np.linalg.norm(points - fake, axis=1)
        return np.allclose(ends, np.linalg.norm(real - fake, axis=1))

    assert on_the_line(alpha * real + (1 - alpha) * fake) == (shape[1] == 1)
    assert on_the_line(between(real, fake, Rng(6, F64)))


class AtRealPoints(WGAN):
    """The penalty taken at real examples alone, where nothing keeps the slope small on the way to the generated ones."""

    def discriminator_loss(self, x, rng, labels=None):
        losses = super().discriminator_loss(x, rng)
        penalty, _ = gradient_penalty(self.discriminator, x)
        return losses | {"penalty": penalty}


def test_the_penalty_of_a_wgan_is_taken_between_real_and_generated():
    model, batch = WGAN.example(Rng(1, F64))
    replay, x = Rng(2, F64), batch["x"]
    x_hat = model.generator(replay.normal((len(x), model.n_latent)))
    expected = gradient_penalty(model.discriminator, between(x, x_hat, replay))[0]
    assert model.discriminator_loss(x, Rng(2, F64))["penalty"] == expected
    wrong, _ = AtRealPoints.example(Rng(1, F64))
    assert wrong.discriminator_loss(x, Rng(2, F64))["penalty"] != expected


# 11. Importance weights from the error rather than from minus it: the worst draws weigh most (PyTorch-VAE's IWAE).


def test_weights_that_favour_the_worst_draws_are_caught(monkeypatch):
    right = objective_report(VAE, "loss", bound="iwae", n_samples=4)
    monkeypatch.setattr(vae, "log_softmax", lambda log_w: log_softmax(-log_w))
    wrong = objective_report(VAE, "loss", bound="iwae", n_samples=4)
    assert right and not wrong and wrong.error > 0.01
