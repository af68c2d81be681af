"""Every number that evaluate gives, by its formula: from a model's networks and densities, in plain NumPy.

With settings that are not neutral: a weight of a term that is 1, or a pack of one, hides where it was left out or put twice.
A model of this library has its formulas in FORMULAS; a model of your own may have, and is tried as soon as it has.
"""

import contextlib
import itertools
import math

import numpy as np
import pytest
from watching import F64, cases, example, machine, with_settings

from scratchgen import Rng
from scratchgen.models import kind_of
from scratchgen.models.base import Model

N = 11  # not a multiple of a batch or a pack


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def minus_log_bernoulli(x, p):
    """-Σ [x log p + (1 - x) log(1 - p)] of each row."""
    return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)


def squares(a, b):
    return ((a - b) ** 2).sum(axis=1)


@contextlib.contextmanager
def averaged(model):
    """The averaged weights in place of the weights, by hand."""
    params = model.average.params
    kept = params.theta.copy()
    params.theta[...] = model.average.average
    yield
    params.theta[...] = kept
    params.changed()


def coins(x, rng):
    """Black with a probability that is the grey value."""
    return (rng.uniform(x.shape) < x).astype(float)


# ---- {name: number} of each model ----


def vae(model, x, rng, labels):
    prefix = "binarized_" if model.binarize else ""
    x = coins(x, rng) if model.binarize else x
    c = np.eye(model.n_classes)[labels] if model.conditional else x[:, :0]  # beside what each network takes
    h = model.encoder(np.hstack([x, c]))
    mu, log_var = h[:, : model.n_latent], h[:, model.n_latent :]
    z = mu + np.exp(0.5 * log_var) * rng.normal(mu.shape)
    out, at_mean = (model.decoder(np.hstack([code, c])) for code in (z, mu))
    if model.likelihood == "bernoulli":
        nll, at_mean = minus_log_bernoulli(x, sigmoid(out)), sigmoid(at_mean)
    else:
        c, D = model.variance, x.shape[1]
        nll = squares(out, x) / (2 * c) + 0.5 * D * math.log(2 * math.pi * c)
    kl = 0.5 * (mu**2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
    found = {"negative_elbo": (nll + kl).mean(), "nll": nll.mean(), "kl": kl.mean(), "mse": ((at_mean - x) ** 2).mean()}
    return {prefix + key: value for key, value in found.items()}  # the bound itself: of weight 1, whatever beta is


def autoencoder(model, x, rng, labels):
    out = model.decoder(model.encoder(x))  # of the clean x
    error = squares(sigmoid(out) if model.likelihood == "bernoulli" else out, x).mean()
    return {"squared_error": error, "mse": error / x.shape[1]}


def classifier(model, x, rng, labels):
    logits = model.head(model.body(x))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = [row.argmax() == label for row, label in zip(p, labels)]
    return {"accuracy": np.mean(right), "cross_entropy": -np.mean([np.log(row[k]) for row, k in zip(p, labels)])}


def made_by_G(model, n, rng):
    with averaged(model):
        return model.generator(rng.normal((n, model.n_latent)))


def gan(model, x, rng, labels):
    n = len(x) // model.pack * model.pack
    x_hat = made_by_G(model, n, rng)
    D = [
        model.discriminator(rows.reshape(n // model.pack, -1)) for rows in (x[:n], x_hat)
    ]  # clean: noise is training's
    return {"logit_real": D[0].mean(), "logit_fake": D[1].mean()}


def wgan(model, x, rng, labels):
    return {"wasserstein": model.discriminator(x).mean() - model.discriminator(made_by_G(model, len(x), rng)).mean()}


def pix2pix(model, x, rng, labels):
    c = model.conditions(x)
    with averaged(model):
        x_hat = model.generator(c, rng)  # dropout stays on
    if model.output == "residual":
        side = model.side // model.scale
        x_hat = x_hat + np.kron(c.reshape(-1, side, side), np.ones((1, model.scale, model.scale))).reshape(x.shape)
    found = {"absolute_error": np.abs(x_hat - x).sum(axis=1).mean(), "squared_error": squares(x_hat, x).mean()}
    found["mse"] = ((x_hat - x) ** 2).mean()
    if model.adversarial_weight:
        found["logit_real"] = model.discriminator(np.hstack([x, c])).mean()
        found["logit_fake"] = model.discriminator(np.hstack([x_hat, c])).mean()
    return found


def restored(model, x):
    """(x̂, codes) of a VQ-VAE, by looking at all codes."""
    z = model.encoder(x).reshape(-1, model.n_dim)
    codes = ((z[:, None] - model.book.W) ** 2).sum(axis=2).argmin(axis=1)
    return model.decoder(model.book.W[codes].reshape(len(x), -1)), codes


def vqvae(model, x, rng, labels):
    x_hat, codes = restored(model, x)
    p = np.bincount(codes, minlength=model.n_embeddings) / len(codes)
    H = -(p[p > 0] * np.log(p[p > 0])).sum()
    return {"mse": ((x_hat - x) ** 2).mean(), "perplexity": np.exp(H), "used": (p > 0).mean()}


def vqgan(model, x, rng, labels):
    logits = {
        "logit_real": model.discriminator(x).mean(),
        "logit_fake": model.discriminator(restored(model, x)[0]).mean(),
    }
    return vqvae(model, x, rng, labels) | logits


def clean(model, x, rng):
    """What is diffused of x, as the network would see it without noise."""
    if model.levels:
        x = (x * (model.levels - 1) + rng.uniform(x.shape)) / model.levels
    return ((model.vqvae.encoder(x) if hasattr(model, "vqvae") else x) - model.scaler.mean) / model.scaler.std


def told(model, labels, rng):
    """(the labels that the network is told,), or () without labels."""
    if not model.conditional:
        return ()
    return (np.where(rng.uniform(len(labels)) < model.label_dropout, model.n_classes, labels),)


def ddpm(model, x, rng, labels):
    x_0 = clean(model, x, rng)
    t = 1 + rng.integers(model.n_times, len(x))
    eps, a = rng.normal(x_0.shape), model.alpha_bar[t][:, None]
    x_t = np.sqrt(a) * x_0 + np.sqrt(1 - a) * eps
    labels = told(model, labels, rng)
    with averaged(model):
        if model.self_conditioning:
            half, guess = (len(x) + 1) // 2, 0 * x_t
            f = model.denoiser((np.concatenate([x_t, guess], axis=1), t, *labels))[:half]
            guess[:half] = 2 * sigmoid(f) - 1
            x_t = np.concatenate([x_t, guess], axis=1)
        f = model.denoiser((x_t, t, *labels))
    if model.predict == "logits":
        return {"loss": minus_log_bernoulli(x, sigmoid(f)).mean()}
    target = {"eps": eps, "v": np.sqrt(a) * eps - np.sqrt(1 - a) * x_0, "x0": x_0}[model.predict]
    return {"loss": squares(f, target).mean()}


def least(x, eps):
    """eps in that order of its rows, of all, in which Σ ‖x - eps‖² is least."""
    orders = [list(order) for order in itertools.permutations(range(len(x)))]
    return eps[min(orders, key=lambda order: squares(x, eps[order]).sum())]


def flow_matching(model, x, rng, labels):
    if hasattr(model, "pairs"):  # of another flow: the loss is on these
        i = rng.integers(model.n_pairs, len(x))
        x_1, eps, labels = (part if part is None else part[i] for part in model.pairs)
    else:
        x_1 = clean(model, x, rng)
        eps = rng.normal(x_1.shape)
    if model.pairing == "optimal":
        parts = [slice(i, i + model.batch) for i in range(0, len(x), model.batch)]
        eps = np.concatenate([least(x_1[part], eps[part]) for part in parts])
    normal = model.time_law == "logit_normal"
    t = sigmoid(model.time_std * rng.normal(len(x))) if normal else rng.uniform(len(x))
    x_t = (1 - t)[:, None] * eps + t[:, None] * x_1
    with averaged(model):
        f = model.denoiser((x_t, 100 * t, *told(model, labels, rng)))
    if model.predict == "logits":
        return {"loss": minus_log_bernoulli(x_1 / 2 + 0.5, sigmoid(f)).mean()}
    return {"loss": squares(f, x_1 - eps if model.predict == "velocity" else x_1).mean()}


def made(model, x, rng, labels):
    x = x.astype(int) if model.tokens else coins(x, rng)
    log_p = []
    with averaged(model):
        for k in range(len(model.network.degree)):
            rows = model.embedding(x.reshape(-1)).reshape(len(x), -1) if model.tokens else x
            y = model.network((rows, k))
            if model.tokens:
                y = y.reshape(*x.shape, model.n_values)
                p = np.exp(y) / np.exp(y).sum(axis=2, keepdims=True)
                log_p.append(np.log(np.take_along_axis(p, x[:, :, None], axis=2)).sum(axis=(1, 2)))
            else:
                log_p.append(-minus_log_bernoulli(x, sigmoid(y)))
    nll = -np.log(np.exp(log_p).mean(axis=0)).mean()
    return {"nll" if model.tokens else "binarized_nll": nll}


def masked_diffusion(model, x, rng, labels):
    """The mean over twenty draws of the mask of each x. Which tokens are hidden is decided by one t each."""
    x = x.astype(int) if model.tokens else coins(x, rng).astype(int)
    D, found = x.shape[1], []
    with averaged(model):
        for _ in range(20):
            hidden = rng.uniform(x.shape) < rng.uniform((len(x), 1))
            rows = model.embedding.W[np.where(hidden, model.n_values, x)]
            y = model.network(rows.reshape(len(x), -1)).reshape(*x.shape, model.n_values)
            p = np.exp(y) / np.exp(y).sum(axis=2, keepdims=True)
            nll = -np.log(np.take_along_axis(p, x[:, :, None], axis=2)[:, :, 0])
            found += [(D + 1) / k * row[mask].sum() if (k := mask.sum()) else 0.0 for row, mask in zip(nll, hidden)]
    return {"negative_elbo" if model.tokens else "binarized_negative_elbo": np.mean(found)}


def code_prior(model, x, rng, labels):
    codes = restored(model.vqvae, x)[1].reshape(len(x), -1)
    formula = {"made": made, "masked": masked_diffusion}[model.prior]
    (nats,) = formula(model.over_codes, codes, rng, None).values()
    return {"code_bits": nats / math.log(2), "stored_bits": math.log2(model.vqvae.n_embeddings ** codes.shape[1])}


def flow(model, x, rng, labels):
    """With the determinant of the whole Jacobian, by the complex step."""
    D, L = x.shape[1], model.levels
    x = (x * (L - 1) + rng.uniform(x.shape)) / L if L else x
    labels = labels if model.conditional else None
    with averaged(model):
        z = model.flow.forward(x, None, labels)[0][0]
        model.params.cast("complex128")
        J = [model.flow.forward(x + 1e-30j * e, None, labels)[0][0].imag / 1e-30 for e in np.eye(D)]
        model.params.cast(F64)
    log_det = np.linalg.slogdet(np.stack(J, axis=2))[1]
    nll = (squares(z, 0) / 2 + 0.5 * D * math.log(2 * math.pi) - log_det).mean() + (D * math.log(L) if L else 0)
    return {"nll": nll} | ({"bits_per_dim": nll / D / math.log(2)} if L else {})


def gmm(model, x, rng, labels):
    g, p = model.gaussians, 0
    pi = np.exp(g.logits) / np.exp(g.logits).sum()
    for k in range(len(pi)):
        P = np.tril(g.P[k]) if g.full else np.diag(np.broadcast_to(g.P[k], x.shape[1]))
        cov, d = np.linalg.inv(P @ P.T), x - g.mu[k]
        exponent = -0.5 * (d @ np.linalg.inv(cov) * d).sum(axis=1)
        p = p + pi[k] * np.exp(exponent) / np.sqrt(np.linalg.det(2 * math.pi * cov))
    return {"nll": -np.log(p).mean()}


def of_a_machine(energy, v, rng):
    """What can be said of one layer of a Boltzmann machine on v, by sums over the two values of one unit."""
    W, b, c = energy.W, energy.b, energy.c
    h = sigmoid(v @ W + c)
    i = rng.integers(v.shape[1], len(v))
    rows, other = np.arange(len(v)), v.copy()
    other[rows, i] = 1 - other[rows, i]
    weight, weight_other = (np.exp(u @ b) * (1 + np.exp(u @ W + c)).prod(axis=1) for u in (v, other))  # e^-F
    pseudo = -np.log(weight / (weight + weight_other)).mean() * v.shape[1]
    return {"reconstruction": minus_log_bernoulli(v, sigmoid(h @ W.T + b)).mean(), "pseudo_nll": pseudo}


def rbm(model, x, rng, labels):
    return of_a_machine(model.energy, coins(x, rng), rng)


def dbn(model, x, rng, labels):
    low = model.rbm.energy
    h = coins(sigmoid(coins(x, rng) @ low.W + low.c), rng)
    return {f"top_{key}": value for key, value in of_a_machine(model.energy, h, rng).items()}


def ebm(model, x, rng, labels):
    """With the gradient of the energy by the complex step."""
    x_0, D = (x - model.scaler.mean) / model.scaler.std, x.shape[1]
    low, high = model.sigma_min, model.sigma_max
    u = rng.uniform((len(x), 1)) if model.objective == "score" else 0.0
    sigma, eps = low * (high / low) ** u + np.zeros((len(x), 1)), rng.normal(x_0.shape)
    noisy = x_0 + sigma * eps

    def energy(x):
        c = 2 * np.log(sigma / low) / np.log(high / low) - 1
        f = model.network(np.concatenate([x / np.sqrt(1 + sigma**2), c], axis=1))
        return (0.5 * (x**2).sum(axis=1, keepdims=True) / (1 + sigma**2) + math.sqrt(D) * f)[:, 0]

    with averaged(model):
        dE = np.stack([energy(noisy + 1e-30j * e).imag / 1e-30 for e in np.eye(D)], axis=1)
    return {"denoising_error": squares(sigma * dE, eps).mean()}


def gsn(model, x, rng, labels):
    bits = coins(x, rng)
    struck = rng.uniform(x.shape) < model.corruption_rate
    damaged = np.where(struck, 0 if model.corruption == "mask" else coins(np.full(x.shape, 0.5), rng), bits)
    with averaged(model):
        p = sigmoid(model.network(damaged))
    return {"denoising_nll": minus_log_bernoulli(x, p).mean()}  # against the grey x


FORMULAS = {f.__name__: f for f in (vae, autoencoder, classifier, gan, wgan, pix2pix, vqvae, vqgan, made, gmm)}
FORMULAS |= {f.__name__: f for f in (rbm, dbn, gsn, ddpm, ebm, flow, flow_matching, masked_diffusion, code_prior)}
FORMULAS |= {"latent_diffusion": ddpm}
FORMULAS |= {"latent_flow": flow_matching, "reflow": flow_matching}

UNEVEN = {"beta": 3.0, "variance": 0.3, "n_samples": 4, "binarize": True, "pack": 2, "averaging": 0.7, "noise": 0.5}
UNEVEN |= {"mask": 0.3, "dropout": 0.4, "label_noise": 0.2, "label_smoothing": 0.1, "label_dropout": 0.4, "lam": 0.7}
UNEVEN |= {"r1": 3.0, "corruption_rate": 0.4, "adversarial_weight": 0.6, "weight_decay": 0.3, "guidance": 1.5}
UNEVEN |= {"rbm": machine(9), "time_std": 0.7, "levels": 5}


@pytest.mark.parametrize("uneven", [False, True], ids=["", "uneven"])
@cases(lambda model: type(model).evaluate is not Model.evaluate and kind_of(type(model)) in FORMULAS)
def test_what_evaluate_gives_is_what_its_formulas_say(name, settings, uneven):
    model, batch = example(name, with_settings(name, settings, UNEVEN) if uneven else settings)
    for step in range(3):
        model.train_step(**batch, rng=model.rng(step))
    for params in model.parameters().values():  # far from where training starts: nothing is next to 0
        params.theta += 0.3 * Rng(40, F64).normal(params.theta.shape)
        params.changed()
    other, labels = Rng(41, F64), None
    x = other.integers(model.n_values, (N, model.n_features)) if model.tokens else other.uniform((N, model.n_features))
    if model.needs_labels:
        labels = other.integers(model.n_classes, N)
    wanted = FORMULAS[name](model, x, model.rng(42), labels)
    found = model.evaluate(x, model.rng(42), labels)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert float(found[key]) == pytest.approx(float(value), rel=1e-9), key
