"""The demos of maximum likelihood claim what is so: gradients arrive at the closed forms, and densities at their samples."""

import math

import numpy as np
import pytest

from scratchgen import Rng
from scratchgen.check.gradcheck import check_layer, check_loss, gradcheck
from scratchgen.metrics.divergences import grid
from scratchgen.models.vae import VAE
from scratchgen.nn.activations import sigmoid
from scratchgen.nn.distributions import gaussian_log_prob, sample_gaussian

# A coin and a picture of coins.


@pytest.mark.parametrize(("heads", "tails"), [(9, 1), (3, 7), (1, 1)])
def test_a_coin_has_the_frequency_of_its_tosses(demo, heads, tails):
    coin = demo("likelihood_coin")
    _, path = coin.ascend(coin.tosses(heads, tails), 300)
    assert sigmoid(path[-1, 0]) == pytest.approx(heads / (heads + tails), abs=1e-9)
    climbed = coin.log_likelihood(sigmoid(path[:, 0]), heads, tails)
    assert (np.diff(climbed) > -1e-12).all()
    assert check_layer(coin.Coins(3), (4, 3)).error <= 1e-12


def test_without_tails_the_logit_grows_as_the_logarithm_of_the_steps(demo):
    coin = demo("likelihood_coin")
    _, path = coin.ascend(coin.tosses(10, 0), 3_000)
    for n in (1_000, 3_000):
        assert path[n, 0] == pytest.approx(math.log(2 * n), abs=0.01)
    _, path = coin.ascend(coin.tosses(11, 1), 300)  # one of each imagined
    assert sigmoid(path[-1, 0]) == pytest.approx(11 / 12, abs=1e-9)


@pytest.mark.parametrize("n", [100, 1_000])
def test_the_width_of_the_likelihood_is_the_standard_error(demo, n):
    assert demo("likelihood_coin").half_width(9 * n // 10, n // 10) == pytest.approx(math.sqrt(0.09 / n), rel=0.02)


def test_independent_pixels_learn_the_mean_picture_and_lose_all_correlation(demo):
    pixels = demo("likelihood_independent_pixels")
    rng = Rng(0, "float64")
    side = (rng.uniform((400, 1)) < 0.3).astype(float)
    x = np.concatenate([side, 1 - side, (rng.uniform((400, 1)) < 0.6) * 1.0, np.ones((400, 1))], axis=1)
    assert pixels.correlation(x)[0, 1] == pytest.approx(-1)
    assert (pixels.correlation(x)[3] == 0).all()
    x = np.concatenate([x, np.full((1, 4), 0.5)])
    logits = pixels.learn(x, 2_000, rng)
    np.testing.assert_allclose(sigmoid(logits), x.mean(axis=0), atol=1e-8)
    drawn = pixels.sample_bernoulli(np.tile(logits, (20_000, 1)), rng)
    assert np.abs(pixels.correlation(drawn)[0, 1]) < 5 / math.sqrt(20_000)
    stripes = np.array(
        [[0.0, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0]]
    )  # pictures of 2×3 pixels, the last column always white
    assert pixels.between_neighbours(stripes, (2, 3)) == pytest.approx(1)


# Gaussians.


def test_the_gradients_of_log_n_are_right(demo):
    fit = demo("likelihood_gaussian_fit")
    x = Rng(0, "float64").normal((20, 2)) @ fit.A.T
    log_p = check_loss(lambda mu, log_var: fit.nll(mu, log_var, x[:, :1]), np.array([0.3]), np.array([0.2]))
    white, params = fit.whitener(2)
    assert log_p.error <= 1e-12
    assert gradcheck(lambda: fit.whitened_nll(white, params, x), params).error <= 1e-12
    W, b = np.array([[0.7, 0.2], [-0.4, 1.1]]), np.array([0.3, -0.2])
    white.W[...], white.b[...] = W, b
    root = np.linalg.inv(W).T
    expected = -gaussian_log_prob(x, -root @ b, root @ root.T).mean()
    assert fit.whitened_nll(white, params, x) == pytest.approx(expected, rel=1e-12)


def test_a_gaussian_fitted_by_gradient_is_the_closed_form(demo):
    fit = demo("likelihood_gaussian_fit")
    x = Rng(1, "float64").normal((50, 2)) @ fit.A.T + fit.CENTRE
    path = fit.fit_line(x[:, :1], -2.0, 2.0, 1_500)
    np.testing.assert_allclose(path[-1], [x[:, 0].mean(), x[:, 0].std()], atol=1e-6)
    mu, cov, root = fit.fit_plane(x, 1_500)
    np.testing.assert_allclose(mu, x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(cov, np.cov(x.T, bias=True), atol=1e-6)  # 1/N
    np.testing.assert_allclose(root @ root.T, cov, rtol=1e-12)
    for form in fit.three_forms(x, mu, np.sqrt(np.diag(cov)))[1:]:
        np.testing.assert_allclose(form, fit.three_forms(x, mu, np.sqrt(np.diag(cov)))[0], rtol=1e-12)
    drawn = sample_gaussian(100_000, mu, cov, Rng(2, "float64"))
    np.testing.assert_allclose(np.cov(drawn.T), root @ root.T, atol=0.05)


# A network's density.


def test_the_backward_of_a_network_gives_its_jacobian(demo):
    ring, density = demo("density_gaussian_to_ring"), demo("density_on_a_line")
    network, h = density.network([2, 6, 6, 2], 3), 1e-6
    z = Rng(0, "float64").normal((5, 2))
    numeric = [(network(z + h * step) - network(z - h * step)) / (2 * h) for step in np.eye(2)]
    np.testing.assert_allclose(ring.jacobian(network, z), np.stack(numeric, axis=2), atol=1e-8)
    step = 1e-6 * np.array([[0.6, 0.8]])
    longest = np.linalg.norm(network(z + step) - network(z), axis=1) / 1e-6
    assert (longest <= ring.steepness(network, z) + 1e-4).all()


def test_a_network_that_makes_a_ring_fails_where_z_is_small(demo):
    ring = demo("density_gaussian_to_ring")
    network = ring.learn(16, 600, 0)
    z = Rng(1).normal((20_000, 2))
    error, radius = ((network(z) - ring.to_ring(z)) ** 2).sum(axis=1), np.linalg.norm(z, axis=1)
    assert error[radius < 0.1].mean() > 10 * error[radius > 0.5].mean()
    near, far = z[:50] * (1e-3 / radius[:50, None]), z[:50] / radius[:50, None]
    assert ring.steepness(network, near).max() < 100  # where z/‖z‖ has 1,000
    assert ring.steepness(network, far).mean() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("seed", [0, 21, 28])
def test_the_density_of_a_network_is_that_of_its_samples(demo, seed):
    density = demo("density_on_a_line")
    G = density.network([1, 8, 8, 1], seed, 1.2)
    bends = density.turns(G)
    assert len(bends) >= 3
    np.testing.assert_allclose(density.slope(G, bends), 0, atol=1e-9)
    x, weights = density.nodes(G)
    mass = weights * density.density(G, x)
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    n = 50_000
    made = np.sort(density.value(G, Rng(1, "float64").normal(n)))
    assert np.abs(np.cumsum(mass) - mass / 2 - np.searchsorted(made, x) / n).max() < 1.95 / math.sqrt(n)  # 1 in 1,000
    which, z = density.roots(G, x[::40])
    np.testing.assert_allclose(density.value(G, z), x[::40][which], atol=1e-12)


def test_a_line_fills_no_plane_and_its_likelihood_is_that_of_the_noise(demo):
    density = demo("density_on_a_curve")
    plane, z = density.network([1, 8, 8, 2], 21, 1.2), Rng(0, "float64").normal((100_000, 1))
    shares = [density.touched(plane(z), k) for k in (32, 64, 128)]
    assert shares[1] / shares[0] == pytest.approx(0.5, abs=0.1) and shares[2] / shares[1] == pytest.approx(0.5, abs=0.1)
    fine = np.linspace(-8, 8, 40_001)[:, None]
    log_weights = -0.5 * fine[:, 0] ** 2 - 0.5 * math.log(2 * math.pi) + math.log(fine[1, 0] - fine[0, 0])
    on = plane(np.array([[0.3]]))
    off = on + np.array([[1.0, 0.0]])
    wide, narrow = (density.log_p_noisy(plane(fine), log_weights, np.concatenate([on, off]), s) for s in (0.04, 0.02))
    assert narrow[0] - wide[0] == pytest.approx(math.log(2), abs=0.1)  # a curve has one dimension fewer than the plane
    assert narrow[1] < 3 * wide[1] < 0
    line = np.stack([fine[:, 0], 0 * fine[:, 0]], axis=1)  # G(z) = (z, 0): N(0, 1 + σ²) times N(0, σ²)
    exact = gaussian_log_prob(np.array([[0.5, 0.1]]), np.zeros(2), np.diag([1.04, 0.04]))
    np.testing.assert_allclose(density.log_p_noisy(line, log_weights, np.array([[0.5, 0.1]]), 0.2), exact, rtol=1e-9)


# Importance sampling.


def test_both_importance_estimates_are_unbiased_and_the_encoders_varies_less(demo):
    why, rng = demo("vae_why_encoder"), Rng(0, "float64")
    x = np.repeat(np.kron(np.eye(4), np.ones(6)), 8, axis=0)  # a bar at one of four places
    x = np.abs(x - (rng.uniform(x.shape) < 0.1))
    model = VAE(n_features=24, hidden=(16,), n_latent=1, batch=32, lr=1e-2).build(rng)
    for _ in range(600):
        model.train_step(x, rng)
    x = x[:1]
    z, cell = grid(-8, 8, 20_000)
    black = model.decode(z)  # p(x_d = 1 | z) at each z
    p_x_given_z = np.where(x == 1, black, 1 - black).prod(axis=1)
    exact = (p_x_given_z * np.exp(-0.5 * z[:, 0] ** 2)).sum() * cell / math.sqrt(2 * math.pi)
    found = {source: why.log_weights(model, x, source, 100_000, rng)[0] for source in why.SOURCES}
    again, _ = why.log_weights(model, x, why.encoder, 50, Rng(3, "float64"))
    np.testing.assert_allclose(again, model.log_weights(x, 50, Rng(3, "float64"))[:, 0], rtol=1e-12)
    for log_w in found.values():
        w = np.exp(log_w)
        assert w.mean() == pytest.approx(exact, abs=5 * w.std() / math.sqrt(len(w)))
        assert why.log_mean(log_w) == pytest.approx(math.log(w.mean()), rel=1e-9)
        assert why.effective(log_w) == pytest.approx(w.sum() ** 2 / (w * w).sum(), rel=1e-9)
    assert np.exp(found[why.encoder]).std() < 0.5 * np.exp(found[why.prior]).std()
    few = why.estimates(found[why.prior], (1, 10, 100), most=1_000)  # the log of a mean lies too low
    assert few[1].mean() + 1 < few[10].mean() < few[100].mean() - 0.1 < math.log(exact)
