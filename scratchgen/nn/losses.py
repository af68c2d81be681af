"""Losses: each returns its value and its gradients with respect to its leading arguments.

Every loss is a sum over an example's features and a mean over the batch of B examples. Values are in nats per example, or in
squared units per example for plain distances. Probabilities are given as logits l, with p = 1 / (1 + e⁻ˡ), because log p
computed from l never becomes log 0.
"""

import math

import numpy as np

from ..backend import Array, array_module
from ..kernels import operation
from .layer import example, same_shape
from .layers import log_softmax, one_hot


@operation
def square(x_hat: Array, x: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """scale · (x̂ - x)² and its derivative 2 scale (x̂ - x), elementwise."""
    difference = x_hat - x
    return difference * difference * scale, difference * (2 * scale)


@operation
def bernoulli(logits: Array, x: Array | float, scale: float = 1.0) -> tuple[Array, Array]:
    """-scale · log p(x), p = sigmoid(l), and its derivative scale (p - x), elementwise: see bernoulli_nll."""
    xp = array_module(logits)
    t = xp.tanh(0.5 * logits)
    nll = xp.maximum(logits, 0)  # in place from here on, for speed: nll = max(l, 0) - x l - log(½ + ½ |t|)
    nll -= logits * x
    nll -= xp.log(0.5 + 0.5 * xp.maximum(t, -t))
    nll *= scale
    t *= 0.5  # t becomes the gradient: p - x = ½ t + ½ - x
    t += 0.5 - x
    t *= scale
    return nll, t


@example(lambda rng: (rng.normal((3, 5)), rng.normal((3, 5))))
def squared_error(x_hat: Array, x: Array) -> tuple[Array, Array]:
    """Σ (x̂ - x)².      ∂/∂x̂ = 2 (x̂ - x).      Both (B, D). No ½ and no mean over D."""
    same_shape("squared_error", x_hat=x_hat, x=x)
    value, d = square(x_hat, x, 1 / len(x))
    return value.sum(), d


@example(lambda rng: (rng.normal((3, 5)), rng.normal((3, 5))))
def absolute_error(x_hat: Array, x: Array) -> tuple[Array, Array]:
    """The L1 distance Σ |x̂ - x|.      ∂/∂x̂ = sign(x̂ - x), 0 where they are equal.      Both (B, D)."""
    same_shape("absolute_error", x_hat=x_hat, x=x)
    xp = array_module(x_hat)
    difference = x_hat - x
    sign = (difference > 0).astype(difference.dtype) - (difference < 0).astype(difference.dtype)
    return xp.maximum(difference, -difference).sum() / len(x), sign / len(x)


@example(lambda rng: (2 * rng.normal((3, 5)), rng.normal((3, 5)), 0.3))
def gaussian_nll(x_hat: Array, x: Array, variance: float) -> tuple[Array, Array]:
    """-log N(x; x̂, c I) = ‖x - x̂‖² / 2c + ½ D log 2πc.      ∂/∂x̂ = (x̂ - x) / c.      Both (B, D); c > 0 the variance.

    For c = ½ it is ‖x - x̂‖² plus a constant. The constant does not change the gradient, but without it values for different
    c cannot be compared.
    """
    same_shape("gaussian_nll", x_hat=x_hat, x=x)
    (batch, n), c = x.shape, float(variance)  # an np.float64 would raise the precision
    value, d = square(x_hat, x, 0.5 / (c * batch))
    return value.sum() + 0.5 * n * math.log(2 * math.pi * c), d


@example(lambda rng: (3 * rng.normal((3, 5)), rng.uniform((3, 5))))
def bernoulli_nll(logits: Array, x: Array) -> tuple[Array, Array]:
    """-Σ [x log p + (1 - x) log(1 - p)], p = sigmoid(l).      ∂/∂l = p - x.      Both (B, D), x in [0, 1].

    Derivation: log p = l - s and log(1 - p) = -s with s = softplus(l) = log(1 + eˡ), so the value is Σ (s - x l), and
    ds/dl = p. With t = tanh(l/2): p = ½ + ½ t and s = max(l, 0) - log(½ + ½ |t|), so one tanh serves both.
    Grey pixels are soft targets. The value is then not -log of a density of x. It is the mean of -log p(b) over
    black-and-white versions b of x, in which each pixel is 1 with probability x.
    """
    same_shape("bernoulli_nll", logits=logits, x=x)
    nll, d = bernoulli(logits, x, 1 / len(logits))
    return nll.sum(), d


def _checked(name, logits, target):
    """The target: an array of the logits' shape, or a Python number (an np.float64 would raise the precision)."""
    if getattr(target, "shape", ()) != ():
        same_shape(name, logits=logits, target=target)
    return target.item() if isinstance(target, np.generic) else target


@example(lambda rng: (3 * rng.normal((6, 1)), 0.9))
def binary_cross_entropy(logits: Array, target: Array | float) -> tuple[Array, Array]:
    """-Σ [y log p + (1 - y) log(1 - p)] of a two-class classifier.      ∂/∂l = p - y.      logits (B, 1) or (B,).

    target: one number for the whole batch (1: all real, 0: all generated, between them: smoothed) or an array of the logits'
    shape. The formula is that of bernoulli_nll.
    """
    target = _checked("binary_cross_entropy", logits, target)
    nll, d = bernoulli(logits, target, 1 / len(logits))
    return nll.sum(), d


@example(lambda rng: (2 * rng.normal((5, 4)), rng.integers(4, 5)))
@operation
def softmax_cross_entropy(logits: Array, labels: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """-Σ_k y_k log p_k, p = softmax(l).      ∂/∂l = p - y.      logits (B, K); labels (B,) integers or (B, K) rows of sum 1.

    Derivation: log p_k = l_k - log Σ_j exp l_j, so ∂log p_k/∂l_j = [j = k] - p_j and ∂/∂l_j = p_j Σ_k y_k - y_j = p_j - y_j.
    This uses the whole Jacobian of the softmax, diag(p) - p pᵀ, and not only its diagonal. Logits must be finite. weights
    (B,), if given, multiply the rows: the value is Σ_b w_b (-log p of row b) / B, so the gradient of row b gets w_b too.
    """
    xp = array_module(logits)
    if labels.ndim == 1:
        labels = one_hot(labels, logits.shape[1], logits.dtype)
    same_shape("softmax_cross_entropy", logits=logits, labels=labels)
    log_p = log_softmax(logits)
    p = xp.exp(log_p)
    if weights is not None:
        same_shape("softmax_cross_entropy", first_column=logits[:, 0], weights=weights)
        labels, p = weights[:, None] * labels, weights[:, None] * p
    return -(labels * log_p).sum() / len(logits), (p - labels) / len(logits)


@example(lambda rng: (rng.normal((3, 4)), rng.normal((3, 4))))
def kl_standard_normal(mu: Array, log_var: Array) -> tuple[Array, Array, Array]:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² - 1 - log σ²).      ∂/∂μ = μ,   ∂/∂log σ² = ½ (σ² - 1).      Both (B, D).

    Derivation: KL = E_q[log q - log p]. The constants ½ log 2π cancel, E_q[(z - μ)²/σ²] = 1 and E_q[z²] = μ² + σ².
    Kingma & Welling 2013, appendix B. The minimum is 0, at μ = 0 and σ² = 1. The term μ² penalises the code, not the
    weights.
    """
    same_shape("kl_standard_normal", mu=mu, log_var=log_var)
    batch, variance = len(mu), array_module(mu).exp(log_var)
    kl = 0.5 * (mu * mu + variance - 1 - log_var)
    return kl.sum() / batch, mu / batch, 0.5 * (variance - 1) / batch


@example(lambda rng: tuple(rng.normal((3, 4)) for _ in range(4)))
def kl_gaussians(
    mu_q: Array, log_var_q: Array, mu_p: Array, log_var_p: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """KL(N(μ_q, σ_q²) ‖ N(μ_p, σ_p²)) = ½ Σ (log σ_p² - log σ_q² + (σ_q² + (μ_q - μ_p)²) / σ_p² - 1).      All (B, D).

    ∂/∂μ_q = (μ_q - μ_p) / σ_p² = -∂/∂μ_p,   ∂/∂log σ_q² = ½ (σ_q²/σ_p² - 1),
    ∂/∂log σ_p² = ½ (1 - (σ_q² + (μ_q - μ_p)²) / σ_p²).      For μ_p = log σ_p² = 0 it is kl_standard_normal.
    """
    same_shape("kl_gaussians", mu_q=mu_q, log_var_q=log_var_q, mu_p=mu_p, log_var_p=log_var_p)
    xp = array_module(mu_q)
    precision = xp.exp(-log_var_p)  # 1 / σ_p²
    difference = mu_q - mu_p
    ratio = xp.exp(log_var_q - log_var_p)  # σ_q² / σ_p²
    spread = ratio + difference * difference * precision
    half = 0.5 / len(mu_q)
    d_mu = difference * precision * (1 / len(mu_q))
    kl = half * (log_var_p - log_var_q + spread - 1).sum()
    return kl, d_mu, half * (ratio - 1), -d_mu, half * (1 - spread)


# ---- adversarial losses ----
# They take the logits l of a discriminator D, (B, 1) or (B,). The target y is 1 for real examples and 0 for generated ones.
# A y between the two is a smoothed label. An array y of l's shape gives each example its own target (flipped labels).


@example(lambda rng: (2 * rng.normal((6, 1)), rng.uniform((6, 1))))
def least_squares(logits: Array, target: Array | float) -> tuple[Array, Array]:
    """½ Σ (l - y)².      ∂/∂l = l - y.      Mao et al. 2017, eq 2, with targets 0 and 1 (a = 0, b = c = 1)."""
    target = _checked("least_squares", logits, target)
    batch, difference = len(logits), logits - target
    return (difference * difference).sum() * (0.5 / batch), difference * (1 / batch)


@example(lambda rng: (2 * rng.normal((6, 1)), rng.uniform((6, 1))))
def hinge(logits: Array, target: Array | float) -> tuple[Array, Array]:
    """Σ [y max(0, 1 - l) + (1 - y) max(0, 1 + l)].      ∂/∂l = (1 - y) [l > -1] - y [l < 1].

    Miyato et al. 2018, eq 16.
    """
    target = _checked("hinge", logits, target)
    xp, scale = array_module(logits), 1 / len(logits)
    value = target * xp.maximum(1 - logits, 0) + (1 - target) * xp.maximum(1 + logits, 0)
    inside = [(logits > -1).astype(logits.dtype), (logits < 1).astype(logits.dtype)]
    return value.sum() * scale, ((1 - target) * inside[0] - target * inside[1]) * scale


@example(lambda rng: (2 * rng.normal((6, 1)), rng.uniform((6, 1))))
def wasserstein(logits: Array, target: Array | float) -> tuple[Array, Array]:
    """Σ (1 - 2 y) l.      ∂/∂l = 1 - 2 y.      l may be any real number.

    D raises the score l of real examples and lowers that of generated ones. With y = 1 and 0 the sum of both means is
    E[D(G(z))] - E[D(x)]. For the best D of slope <= 1 this is -W₁ (Arjovsky et al. 2017, eq 2 and 3). models/wgan.py keeps
    the slope small.
    """
    target = _checked("wasserstein", logits, target)
    weight = (1 - 2 * target) * (1 / len(logits)) + array_module(logits).zeros_like(logits)
    return (weight * logits).sum(), weight


@example(lambda rng: (2 * rng.normal((6, 1)),))
def minimax(logits: Array) -> tuple[Array, Array]:
    """E log(1 - D), which G minimises in the theory.      ∂/∂l = -D, almost 0 while D recognises generated examples."""
    value, d = binary_cross_entropy(logits, 0)
    return -value, -d


# {name: (D's loss from logits and targets, G's loss from the logits of generated examples)}
ADVERSARIAL = {
    "minimax": (binary_cross_entropy, minimax),
    "non_saturating": (binary_cross_entropy, lambda logits: binary_cross_entropy(logits, 1)),
    "least_squares": (least_squares, lambda logits: least_squares(logits, 1)),
    "hinge": (hinge, lambda logits: wasserstein(logits, 1)),
    "wasserstein": (wasserstein, lambda logits: wasserstein(logits, 1)),
}


@example(lambda rng: (2 * rng.normal((4, 1)), 2 * rng.normal((6, 1))), kind=ADVERSARIAL)
def loss_D(
    real: Array,
    fake: Array,
    kind: str = "non_saturating",
    y_real: Array | float = 1,
    y_fake: Array | float = 0,
) -> tuple[Array, Array, Array]:
    """D's loss, d_real and d_fake. The loss is the mean over real examples plus the mean over generated ones.

    real (B, 1), fake (B′, 1): D's logits. kind: a name in ADVERSARIAL. y_real, y_fake: the targets. For minimax and
    non_saturating it is -V(D, G) = -E log D(x) - E log(1 - D(G(z))), Goodfellow et al. 2014, eq 1. This is a classifier's
    cross-entropy, which is 2 log 2 where D = ½. For the best D, V = -2 log 2 + 2 JSD (metrics/divergences.py has the proof).
    So JSD = log 2 - loss / 2: the *smaller* D's loss, the larger the divergence.
    """
    f = ADVERSARIAL[kind][0]
    (value, d_real), (other, d_fake) = f(real, y_real), f(fake, y_fake)
    return value + other, d_real, d_fake


@example(lambda rng: (2 * rng.normal((6, 1)),), kind=ADVERSARIAL)
def loss_G(fake: Array, kind: str = "non_saturating") -> tuple[Array, Array]:
    """G's loss and d_fake, from D's logits of generated examples, (B, 1). No real example is needed.

    minimax: E log(1 - D), ∂/∂l = -D.   non_saturating: -E log D, ∂/∂l = -(1 - D).   least_squares: ½ E (l - 1)².
    hinge, wasserstein: -E l. G minimises each of them. The first two push each sample the same way, but they minimise
    different divergences: at the best D, 2 JSD and KL(p_g ‖ p_data) - 2 JSD (Arjovsky & Bottou 2017, theorem 2.5). The
    first is flat as a function of D's logit where D recognises G's examples. It is not flat as a function of D: its slope is
    -1 at D = 0.
    """
    return ADVERSARIAL[kind][1](fake)
