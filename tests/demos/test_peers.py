"""Each contestant of demos/benchmark.py is given the same work: PyTorch, JAX and scikit-learn compute what ours computes.

From equal weights and equal noise the losses and the gradients of every case are compared, and the examples that are drawn.
"""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from scratchgen import Rng
from scratchgen.kernels.native import compiled_kernels
from scratchgen.models.conditional_gan import ConditionalGAN
from scratchgen.models.gan import GAN
from scratchgen.nn.optim import Adam

ALONE = "AutoEncoder", "VAE", "IWAE", "VQVAE", "MADE", "DDPM"
IN_PAIRS = "GAN", "WGAN", "ConditionalGAN"
B = 16


def models_of(demo, peer):
    """The models of the cases with this peer, built for batches of B, and examples x (B, n_features) for each."""
    for case in demo("peers.cases").CASES:
        if case.peer == peer:
            changes = {"batch": B} | ({"d_steps": 1} if peer in IN_PAIRS else {})
            model, x = dataclasses.replace(case.model, **changes), Rng(1).uniform((B, case.model.n_features))
            yield model.build(Rng(0)), (x > 0.5).astype(x.dtype) if peer == "MADE" else x


def drawn(peer, model, rng):
    """What ours draws in a loss, in the same order. MADE's x is black and white already, so its noise does not matter."""
    if peer in ("VAE", "IWAE"):
        return [rng.normal((model.n_samples * B, model.n_latent))]
    if peer == "DDPM":
        return [1 + rng.integers(model.n_times, B), rng.normal((B, model.n_features))]
    return []


def our_loss(model, x):
    """Without the constant of the Gaussian decoder."""
    loss = model.loss(x, Rng(2))["loss"]
    if getattr(model, "likelihood", "") == "gaussian":
        loss -= 0.5 * model.n_features * math.log(2 * math.pi * model.variance)
    return loss


def same_gradients(params, theirs):
    """theirs: {name: gradient in our shape, or None for 0}."""
    scale = np.abs(params.grad).max()
    assert scale > 0 and theirs.keys() == params.named_grads().keys()
    for name, ours in params.named_grads().items():
        expected = 0 if theirs[name] is None else np.asarray(theirs[name])
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * scale, err_msg=name)


def test_every_case_is_held_to_the_same_work(demo):
    cases = demo("peers.cases")
    assert {case.peer for case in cases.CASES} == {*ALONE, *IN_PAIRS}
    assert {case.peer for case in cases.SAMPLINGS} <= {*ALONE, *IN_PAIRS}


@pytest.mark.slow
def test_the_floor_multiplies_what_a_step_multiplies(demo, native, monkeypatch):
    for case in demo("peers.cases").CASES:
        counted, gemm = [], native.gemm
        with monkeypatch.context() as patched, compiled_kernels():
            patched.setattr(
                native, "gemm", lambda a, b, *out: (counted.append((*a.shape, b.shape[1])), gemm(a, b, *out))[1]
            )
            model = case.model.build(Rng(0))
            labels = {"labels": Rng(3).integers(10, model.examples_per_step)} if model.needs_labels else {}
            model.train_step(Rng(1).uniform((model.examples_per_step, model.n_features)), Rng(2), **labels)
        ours, floor = Counter(counted), Counter(case.products)
        assert not floor - ours, case.name
        spare = sum(n * math.prod(product) for product, n in (ours - floor).items())  # DDPM: a gradient of the time
        assert spare < 0.01 * sum(map(math.prod, case.products)), case.name


def pairs(network, params):
    """(PyTorch's weight, the name of ours) of a network whose weights stand in the same order."""
    theirs = list(network.parameters())
    assert len(theirs) == len(params.named())
    return list(zip(theirs, params.named()))


def give(torch, matched, params):
    for weight, name in matched:
        weight.data[...] = torch.tensor(params.named()[name].T)


def as_ours(matched):
    return {name: None if weight.grad is None else weight.grad.numpy().T for weight, name in matched}


def denoiser_pairs(network, params):
    theirs = dict(network.named_parameters())
    ends = {".W": ".weight", ".b": ".bias", ".gamma": ".weight", ".beta": ".bias"}
    matched = []
    for name in params.named():
        short = name.removeprefix("denoiser.").replace("time.1.", "time.")
        matched += [(theirs[short[: -len(end)] + new], name) for end, new in ends.items() if short.endswith(end)]
    assert len(matched) == len(theirs) == len(params.named())
    return matched


@pytest.mark.needs("torch")
@pytest.mark.parametrize("peer", ALONE)
def test_pytorch_computes_the_same_losses_and_gradients(demo, peer):
    import torch

    for model, x in models_of(demo, peer):
        network = getattr(demo("peers.pytorch"), peer)(model)
        matched = (denoiser_pairs if peer == "DDPM" else pairs)(network, model.params)
        give(torch, matched, model.params)
        if peer == "VQVAE":
            network.codes[...] = torch.tensor(model.book.W)
        noise = drawn(peer, model, Rng(2))
        loss = network(torch.tensor(x), *map(torch.tensor, noise))
        loss.backward()
        assert our_loss(model, x) == pytest.approx(loss.item(), rel=1e-4)
        same_gradients(model.params, as_ours(matched))
        if peer == "VQVAE":
            model.book.follow(model.decay)
            np.testing.assert_allclose(model.book.W, network.codes, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(model.book.N, network.counts, rtol=1e-6)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("peer", IN_PAIRS)
def test_pytorch_plays_the_same_game(demo, peer):
    import torch

    for model, x in models_of(demo, peer):
        labels = []
        if peer == "ConditionalGAN":  # PyTorch draws its dropout by itself
            model, labels = dataclasses.replace(model, dropout=0.0).build(Rng(0)), [Rng(3).integers(10, B)]
        networks = getattr(demo("peers.pytorch_adversaries"), peer)(model)
        sides = [
            (pairs(network, params), params)
            for network, params in ((networks.D, model.params_D), (networks.G, model.params_G))
        ]
        for matched, params in sides:
            give(torch, matched, params)
        rng = Rng(2)
        shift = [1 + rng.integers(9, B)] if labels else []
        for_D = [*shift, rng.normal((B, model.n_latent))] + ([rng.uniform((B, 1))] if peer == "WGAN" else [])
        for_G = Rng(2).normal((B, model.n_latent))
        batch = [torch.tensor(part) for part in (x, *labels)]
        losses = [
            networks.discriminator_loss(*batch, *map(torch.tensor, for_D)),
            networks.generator_loss(*batch, torch.tensor(for_G)),
        ]
        for loss, name, (matched, params) in zip(losses, ("discriminator_loss", "generator_loss"), sides):
            networks.zero_grad()
            loss.backward()
            assert getattr(model, name)(x, Rng(2), *labels)[name] == pytest.approx(loss.item(), rel=1e-4)
            same_gradients(params, as_ours(matched))


@pytest.mark.needs("jax")
@pytest.mark.parametrize("peer", ALONE)
def test_jax_computes_the_same_losses_and_gradients(demo, peer):
    import jax

    for model, x in models_of(demo, peer):
        theirs = getattr(demo("peers.jax_models"), peer)(model)
        weights, *_ = state = theirs.start()  # of the same seed, 0
        shapes = [part.shape for part in theirs.draw(jax.random.key(0), x)]
        if peer == "VQVAE":
            given = [state[2][0]]
        elif peer == "MADE":
            given = [0 * x]
        else:
            given = drawn(peer, model, Rng(2))
            assert [part.shape for part in given] == shapes
        value = jax.jit(jax.value_and_grad(theirs.loss, has_aux=peer == "VQVAE"))
        loss, gradients = value(weights, x, *given)
        loss, *moved = loss if peer == "VQVAE" else (loss,)
        assert our_loss(model, x) == pytest.approx(float(loss), rel=1e-4)
        same_gradients(model.params, gradients)
        if peer == "VQVAE":
            codes, counts = theirs.follow(*state[2], *moved[0])
            model.book.follow(model.decay)
            np.testing.assert_allclose(model.book.W, codes, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(model.book.N, counts, rtol=1e-6)


@pytest.mark.needs("jax")
@pytest.mark.parametrize("peer", IN_PAIRS)
def test_jax_plays_the_same_game(demo, peer):
    import jax

    for model, x in models_of(demo, peer):
        theirs, labels = getattr(demo("peers.jax_adversaries"), peer)(model), []
        (G, _), (D, _) = theirs.start()

        def for_G(rng, model=model):
            z = [rng.normal((B, model.n_latent))]
            hidden = model.hidden_G if peer == "ConditionalGAN" else ()
            return z + [(rng.uniform((B, n)) >= model.dropout).astype("float32") for n in hidden]

        rng = Rng(2)
        for_D = [1 + rng.integers(9, B)] if peer == "ConditionalGAN" else []
        for_D += for_G(rng) + ([rng.uniform((B, 1))] if peer == "WGAN" else [])
        if peer == "ConditionalGAN":
            labels = [Rng(3).integers(10, B)]
        key = jax.random.key(0)
        assert [part.shape for part in for_D] == [part.shape for part in theirs.draw_D(key, x)]
        games = [
            ("discriminator_loss", (D, G), for_D, model.params_D),
            ("generator_loss", (G, D), for_G(Rng(2)), model.params_G),
        ]
        for name, weights, noise, params in games:
            loss, gradients = jax.jit(jax.value_and_grad(getattr(theirs, name)))(*weights, x, *labels, *noise)
            assert getattr(model, name)(x, Rng(2), *labels)[name] == pytest.approx(float(loss), rel=1e-4)
            same_gradients(params, gradients)


@pytest.mark.needs("jax")
def test_jax_updates_as_adam_does(demo):
    jax_models, params = demo("peers.jax_models"), GAN(**GAN.tiny).build(Rng(0)).params_G
    ours, weights = Adam(params, 0.01, 0.5, 0.9), jax_models.weights_of(params)
    moments = jax_models.first_moments(weights)
    for i in range(3):
        params.grad[...] = Rng(i).normal(params.grad.shape)
        weights, moments = jax_models.adam(weights, dict(params.named_grads()), moments, 0.01, 0.5, 0.9)
        ours.step()
    for name, weight in params.named().items():
        np.testing.assert_allclose(weight, weights[name], rtol=1e-4, atol=1e-6)


def our_examples(case, n):
    model = case.model.build(Rng(0))
    z = Rng(2).normal((n, getattr(model, "n_latent", model.n_features)))
    return model, z, model.sample(n, Rng(2))


@pytest.mark.needs("torch")
def test_pytorch_draws_the_same_examples(demo):
    import torch

    for case in demo("peers.cases").SAMPLINGS:
        model, z, x = our_examples(case, 3)
        network = demo("peers.contestants").torch_class(case)[0](model)
        if case.peer == "GAN":
            give(torch, pairs(network.G, model.params_G), model.params_G)
        else:
            matched = (denoiser_pairs if case.peer == "DDPM" else pairs)(network, model.params)
            give(torch, matched, model.params)
        with torch.no_grad():
            np.testing.assert_allclose(network.sample(torch.tensor(z)), x, atol=1e-4)
            assert network.code(3).shape == z.shape


@pytest.mark.needs("jax")
def test_jax_draws_the_same_examples(demo):
    import jax

    for case in demo("peers.cases").SAMPLINGS:
        _, z, x = our_examples(case, 3)
        peer = demo("peers.contestants").jax_peer(case)
        np.testing.assert_allclose(jax.jit(peer.sample)(peer.weights(), z), x, atol=1e-4)
        assert peer.code(jax.random.key(0), 3).shape == z.shape


@pytest.mark.needs("sklearn")
def test_scikit_learn_makes_the_same_iterations(demo):
    mixture = demo("peers.mixture")
    case = mixture.Mixture(n=500, n_components=3, n_features=2, iterations=7)
    step, _, model = mixture.ours(case, "float64")
    their_step, _, theirs = mixture.scikit_learn(case, "float64")
    for _ in range(2):  # each time from the same start
        step()
        their_step()
        assert theirs.n_iter_ == model.steps.t[0] == 7
        np.testing.assert_allclose(theirs.means_, model.gaussians.mu, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(theirs.weights_, np.exp(model.gaussians.log_pi()), rtol=1e-4)


@pytest.mark.needs("jax")
def test_jax_takes_every_example_and_its_label(demo, monkeypatch):
    contestants = demo("peers.contestants")
    monkeypatch.setattr(contestants, "N", 40)
    (case,) = (case for case in demo("peers.cases").CASES if case.peer == "ConditionalGAN")
    tiny = dataclasses.replace(case, model=ConditionalGAN(**ConditionalGAN.tiny))
    step, synchronise = contestants.jax_step(tiny, "cpu")
    losses = [float(loss) for _ in range(12) for loss in step()]
    synchronise()
    assert np.isfinite(losses).all() and len(set(losses)) == 24
