"""The checks of the exercises. sheet.py copies the one of an exercise into its file, where its arguments are what you write.

Each is a generator of reports. Where a gradient says it all, it is the gradient checker. Where it does not, numbers are
compared that any right answer has: moments of samples, integrals of densities, what depends on what.
"""

import math
from types import SimpleNamespace

import numpy as np

from ...backend import Rng
from ...check.flow import check_flow
from ...check.gradcheck import check_layer, check_loss, gradcheck
from ...check.selfcheck import check_function, check_objective
from ...models.gmm import GMM
from ...models.parts.diffusion import alpha_bars
from ...nn.activations import Tanh
from ...nn.double_backward import Gradient
from ...nn.layer import Sequential
from ...nn.layers import Linear
from ...nn.parameters import Parameters
from .marking import Finding, close


def normal(*shapes, seed=1):
    """Arrays of N(0, 1) of these shapes in double precision."""
    rng = Rng(seed, "float64")
    return [rng.normal(shape) for shape in shapes]


# ---- layers ----


def relu(ReLU):
    yield check_layer(ReLU(), (4, 5))


def linear(Linear):
    yield check_layer(Linear(3, 4), (5, 3))


def residual(Residual):
    yield check_layer(Residual(Linear(3, 3)), (4, 3))


def dropout(Dropout):
    yield check_layer(Dropout(0.4), (6, 5))
    y = Dropout(0.4)(np.ones((100_000, 1)), Rng(2, "float64"))
    error = math.sqrt(0.4 / 0.6 / len(y))  # the standard error of the mean
    yield close(
        "mean of y for x = 1", y.mean(), 1.0, 5 * error, "y must have the mean of x: make up for what is dropped"
    )


def embedding(Embedding):
    yield check_layer(Embedding(4, 3), np.array([2, 0, 1, 2, 2, 3]))


def maxout(Maxout):
    yield check_layer(Maxout(3, 4, n_pieces=3), (5, 3))


def layer_norm(LayerNorm):
    yield check_layer(LayerNorm(5), (3, 5))


def batch_norm(BatchNorm):
    yield check_layer(BatchNorm(4), (6, 4))


def double_backward(Linear, Tanh):
    yield check_layer(Gradient(Linear(3, 4)), ((5, 3), (5, 4)), name="backward of Linear")
    yield check_layer(Gradient(Tanh()), ((5, 4), (5, 4)), name="backward of Tanh")


# ---- losses ----


def gaussian_nll(gaussian_nll):
    x_hat, x = normal((3, 5), (3, 5))
    yield check_loss(gaussian_nll, x_hat, x, 0.3)
    grid, mean = np.linspace(-12, 12, 2401), np.array([[0.4]])
    for c in (0.3, 2.0):
        density = [math.exp(-gaussian_nll(mean, np.array([[at]]), c)[0]) for at in grid]
        yield close(
            f"integral of the density, c = {c}",
            0.01 * sum(density),
            1.0,
            1e-6,
            "is c the variance, and is ½ log 2πc there?",
        )
    parts = [gaussian_nll(x_hat[:, i : i + 1], x[:, i : i + 1], 0.3)[0] for i in range(5)]
    hint = "the value is a sum over the features and a mean over the batch; ½ log 2πc counts once for each feature"
    yield close("sum over the features", gaussian_nll(x_hat, x, 0.3)[0], sum(parts), hint=hint)


def bernoulli(bernoulli_nll):
    (logits,), x = normal((3, 5)), Rng(2, "float64").uniform((3, 5))
    yield check_loss(bernoulli_nll, 3 * logits, x)
    extreme, _ = bernoulli_nll(np.array([[1000.0, -1000.0]]), np.array([[0.0, 0.0]]))
    yield close("value for logits of ±1000", extreme, 1000.0, 1e-6, "it must not overflow")


def softmax(softmax_cross_entropy):
    (logits,), labels = normal((5, 4)), np.array([2, 0, 3, 1, 1])
    yield check_loss(softmax_cross_entropy, 2 * logits, labels)
    with np.errstate(all="ignore"):
        extreme, gradient = softmax_cross_entropy(np.array([[1000.0, 0.0]]), np.array([1]))
    yield close("value for logits of 1000 and 0", extreme, 1000.0, 1e-6, "it must not overflow")
    yield close("gradient for logits of 1000 and 0", gradient, np.array([[1.0, -1.0]]), 1e-6, "it must not overflow")


def gan_losses(minimax, least_squares, hinge):
    (logits,), target = normal((6, 1)), Rng(2, "float64").uniform((6, 1))
    yield check_loss(minimax, 2 * logits)
    yield close("minimax at D = ½", minimax(0 * logits)[0], math.log(0.5), 1e-12, "it is E log(1 - D)")
    yield check_loss(least_squares, 2 * logits, target)
    yield check_loss(hinge, 2 * logits, target)


def kl(kl_standard_normal):
    yield check_loss(kl_standard_normal, *normal((3, 4), (3, 4)))
    z = np.linspace(-15, 15, 20_001)
    log_q = -0.5 * (math.log(2 * math.pi) + 0.8 + (z - 0.7) ** 2 / math.exp(0.8))
    log_p = -0.5 * (math.log(2 * math.pi) + z * z)
    exact = (np.exp(log_q) * (log_q - log_p)).sum() * (z[1] - z[0])
    found, *_ = kl_standard_normal(np.array([[0.7]]), np.array([[0.8]]))
    yield close("KL of N(0.7, e^0.8)", found, exact, 1e-9, "it is not the integral of q log(q / p)")


def reparameterize(reparameterize):
    yield check_function(reparameterize, *normal((3, 4), (3, 4)))
    zeros = np.zeros((100_000, 1))
    z, _ = reparameterize(zeros, zeros + math.log(4), Rng(1, "float64"))
    error = 4 * math.sqrt(2 / len(z))  # of the variance of N(0, 4)
    yield close("variance of z for log σ² = log 4", z.var(), 4.0, 5 * error, "z must have the variance σ²")


def sampler(reparameterize, gaussian_posterior):
    (h,) = normal((3, 8))
    yield check_function(gaussian_posterior, h)
    yield check_function(reparameterize, *normal((3, 4), (3, 4)))
    zeros = np.zeros((100_000, 1))
    z, _ = reparameterize(zeros, zeros + math.log(4), Rng(1, "float64"))
    error = 4 * math.sqrt(2 / len(z))  # of the variance of N(0, 4)
    yield close("variance of z for log σ² = log 4", z.var(), 4.0, 5 * error, "z must have the variance σ²")


# ---- parts of models ----


def masks(MyMaskedMLP):
    (x,) = normal((40, 10))  # two numbers for each of five features
    seen, missed = [], []
    for order, direct in enumerate((True, False, True)):
        network = MyMaskedMLP(5, 2, (9, 8), 3, direct, n_orders=3)
        Parameters(Rng(0, "float64"), network=network).cast("complex128")
        place = network.degree[order, :5].real  # of each feature in this order
        for j in range(5):
            step = x + 1e-20j * np.repeat(np.eye(5)[j], 2)  # a complex step shows what depends on feature j
            moves = np.any(network((step, order)).imag.reshape(40, 5, 3), axis=(0, 2))
            seen += [
                f"output {d + 1} depends on feature {j + 1}" for d in range(5) if moves[d] and place[j] >= place[d]
            ]
            missed += [
                f"output {d + 1} misses feature {j + 1}" for d in range(5) if not moves[d] and place[j] < place[d]
            ]
    yield Finding("no output sees its own feature or a later one", not seen, "".join(seen[:1]))
    yield Finding("every output sees all features before its own", not missed, "".join(missed[:1]))


def coupling(Affine, Coupling):
    yield check_layer(Affine(), ((5, 3), (5, 3, 2)))
    yield check_flow(Coupling(5, Affine(), (4, 6)), (6, 5))


def penalty(gradient_penalty):
    D = Sequential(Linear(4, 6), Tanh(), Linear(6, 1))
    params, (x,) = Parameters(Rng(1, "float64"), D=D), normal((5, 4))
    for centre in (1.0, 0.0):

        def objective(centre=centre):
            params.zero_grad()
            value, backward = gradient_penalty(D, x, centre)
            backward(0.7)
            return 0.7 * value

        yield gradcheck(objective, params, name=f"0.7 gradient_penalty, centre {centre:g}")


def ddim(jump):
    alpha_bar, t, s, n = alpha_bars("cosine", 50), 30, 20, 100_000
    a, b, x_0 = alpha_bar[t], alpha_bar[s], 0.7  # the data is one number, so the exact denoiser always says it
    (eps,) = normal((n, 1))

    def step(x_t, eta):
        return jump(lambda x, t: 0 * x + x_0, x_t, t, s, alpha_bar, Rng(3, "float64"), eta)

    x_t, x_s = (math.sqrt(q) * x_0 + math.sqrt(1 - q) * eps for q in (a, b))
    yield close("η = 0: x_s has the noise of x_t", step(x_t, 0.0), x_s, 1e-9, "ε̂ is added back, scaled to time s")
    for eta in (0.5, 1.0):
        found = step(x_t, eta)
        yield close(f"η = {eta}: mean of q(x_s|x_0)", found.mean(), math.sqrt(b) * x_0, 5 * math.sqrt((1 - b) / n))
        hint = "the squares of the factors of ε̂ and of new noise add up to 1 - ᾱ_s"
        yield close(f"η = {eta}: variance of q(x_s|x_0)", found.var(), 1 - b, 5 * (1 - b) * math.sqrt(2 / n), hint)
    # q(x_s | x_t, x_0) by Bayes' rule: a prior N(√b x_0, 1 - b), and x_t ~ N(√(a/b) x_s, 1 - a/b)
    precision = 1 / (1 - b) + (a / b) / (1 - a / b)
    mean = (math.sqrt(b) * x_0 / (1 - b) + math.sqrt(a / b) * 1.5 / (1 - a / b)) / precision
    found = step(np.full((n, 1), 1.5), 1.0)
    yield close("η = 1: mean of q(x_s|x_t, x_0)", found.mean(), mean, 5 / math.sqrt(precision * n))
    yield close("η = 1: variance of q(x_s|x_t, x_0)", found.var(), 1 / precision, 5 / precision * math.sqrt(2 / n))


# ---- models ----


def vae(MyVAE):
    yield check_objective(MyVAE, "loss", {"beta": 0.5, "n_samples": 2})
    yield check_objective(MyVAE, "loss", {"likelihood": "gaussian", "variance": 0.3})


def iwae(MyVAE):
    yield check_objective(MyVAE, "loss", {"bound": "iwae", "n_samples": 4})


def vqvae(MyVQVAE):
    yield check_objective(MyVQVAE, "loss", {"codebook": "gradient", "beta": 0.3})
    yield check_objective(MyVQVAE, "loss", {"codebook": "ema"})
    found = []
    for beta in (0.1, 1.0):
        model, batch = MyVQVAE.example(Rng(1, "float64"), codebook="gradient", beta=beta)
        model.loss(**batch, rng=Rng(2, "float64"))
        found.append(model.book.dW.copy())
    yield close(
        "gradient of the codebook for two β", *found, hint="β weighs the commitment, which moves z, not the codes"
    )


def gan(MyGAN):
    yield check_objective(MyGAN, "discriminator_loss")
    yield check_objective(MyGAN, "generator_loss")


def wgan(between, MyWGAN):
    yield check_objective(MyWGAN, "discriminator_loss")
    real, fake = normal((1000, 3), (1000, 3))
    points, way = between(real, fake, Rng(2, "float64")), real - fake
    alpha = ((points - fake) * way).sum(axis=1, keepdims=True) / (way * way).sum(axis=1, keepdims=True)
    yield close("points on the line from fake to real", points, fake + alpha * way, 1e-9, "they lie beside the line")
    yield close("mean of the share of real", alpha.mean(), 0.5, 5 * math.sqrt(1 / 12 / 1000))


def q_sample(MyDDPM):
    model, batch = MyDDPM.example(Rng(1, "float64"), predict="eps", batch=30)
    x_0, eps = normal((30, 6), (30, 6))
    t = 1 + np.arange(30) % 20
    a = model.alpha_bar[t][:, None]
    x_t = model.q_sample(x_0, t, eps)
    yield close("q_sample", x_t, np.sqrt(a) * x_0 + np.sqrt(1 - a) * eps, 1e-9, "the variances are ᾱ and 1 - ᾱ")
    yield check_objective(MyDDPM, "loss", {"predict": "eps", "width": 3, "n_blocks": 1})
    x_0 = model.scaled(batch["x"], None)

    def knows_the_noise(inputs, rng):
        x_t, t = inputs
        a = model.alpha_bar[t][:, None]
        return (x_t - np.sqrt(a) * x_0) / np.sqrt(1 - a), lambda df, inputs: None

    model.denoiser = SimpleNamespace(forward=knows_the_noise)
    loss = model.loss(batch["x"], Rng(2, "float64"))["loss"]
    yield close("loss of a network that knows ε", loss, 0.0, 1e-9, "the network learns to predict ε")


def em(MyGMM):
    (x,) = normal((300, 2))
    x += np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])[np.arange(300) % 3]  # three clusters
    ours, mine = (kind(n_features=2, n_components=3).build(Rng(1, "float64")) for kind in (GMM, MyGMM))
    ours.start(x, Rng(2, "float64"))
    mine.params.theta[...] = ours.params.theta
    for name, found, wanted in zip(("log p(x)", "r"), mine.expect(x), ours.expect(x)):
        yield close(f"E step: {name}", found, wanted, 1e-9, "r is the softmax over k of a_k = log π_k N(x; μ_k, Σ_k)")
    likelihoods = []
    for _ in range(10):
        likelihoods.append(mine.log_prob(x).mean())
        r = ours.expect(x)[1]
        ours.maximise(x, r)
        mine.maximise(x, r)
    falls = -np.diff(likelihoods).min()
    yield Finding("EM: the likelihood never falls", falls < 1e-12, "" if falls < 1e-12 else f"it fell by {falls:.3g}")
    mine, ours = mine.gaussians, ours.gaussians
    yield close("M step: log π", mine.log_pi(), ours.log_pi(), 1e-9)
    yield close("M step: μ", mine.mu, ours.mu, 1e-9)
    yield close("M step: P, which is made from S", mine.P, ours.P, 1e-9)
