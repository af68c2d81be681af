"""All exercises, easy ones first, and after them the bugs to find. Each is made from parts of this library."""

import difflib
from itertools import pairwise

from ...backend import UsageError
from ...models import gmm, vqvae
from ...models.ddpm import DDPM
from ...models.gan import GAN
from ...models.gmm import GMM
from ...models.parts import diffusion, masked
from ...models.parts.coupling import Affine, Coupling
from ...models.parts.masked import MaskedMLP
from ...models.vae import VAE
from ...models.vqvae import VQVAE
from ...models.wgan import WGAN
from ...nn import activations, distributions, double_backward, embeddings, layers, losses, norms
from . import checks
from .sheet import Blank, Exercise, Part


def layer(what, wanted, methods=("__init__", "forward")):
    """A layer without the body of its backward."""
    return Part(what, methods, (Blank("forward.backward", wanted),))


def without(what, wanted, first="", last="", hide=()):
    """A function or method without some of its statements, as Blank says."""
    return Part(what, blanks=(Blank("", wanted, first, last),), hide=hide)


def without_gradient(loss, *names, first="return"):
    """A loss that returns names in place of its gradients. first: how the first statement begins that is taken out."""
    return Part(loss, blanks=(Blank("", " and ".join(names), first, values=names),))


EXERCISES = {
    "relu": Exercise(
        1,
        "the slope of max(x, 0)",
        (Part(activations.ReLU, ("f", "df"), (Blank("df", "f′(x), of the shape of x"),)),),
        checks.relu,
        "ReLU extends Activation, which computes y = f(x) and dx = f′(x) dy. f is there. Write df, which returns f′(x).",
    ),
    "linear": Exercise(
        1,
        "the gradient of a matrix product",
        (layer(layers.Linear, "dW, db and dx"),),
        checks.linear,
    ),
    "residual": Exercise(
        1,
        "where x is used twice, two gradients add up",
        (layer(layers.Residual, "dx"),),
        checks.residual,
        "back_body(dy, learn, inputs) is the backward of f. It returns the gradient that reaches x through f.",
    ),
    "dropout": Exercise(
        1,
        "backward uses the random numbers of forward",
        (layer(layers.Dropout, "dx"),),
        checks.dropout,
    ),
    "embedding": Exercise(
        1,
        "a row of a table, and which rows learn",
        (layer(embeddings.Embedding, "dW"),),
        checks.embedding,
        "Labels are whole numbers and have no gradient, so backward returns nothing.",
    ),
    "gaussian_nll": Exercise(
        2,
        "the loss of a Gaussian decoder, with its constant",
        (without(losses.gaussian_nll, "the value in nats per example, and its gradient in x̂", "value, d ="),),
        checks.gaussian_nll,
        "A loss is a sum over the features D and a mean over the batch B. Return the loss, with its constant "
        "½ D log 2πc, and its gradient in x̂.",
    ),
    "kl": Exercise(
        2,
        "the KL of a VAE, by mean and log-variance",
        (without_gradient(losses.kl_standard_normal, "d_mu", "d_log_var"),),
        checks.kl,
        "The second input is log σ², not σ: σ² = exp(log σ²).",
    ),
    "bernoulli": Exercise(
        2,
        "cross-entropy from logits: a long formula, a short gradient",
        (
            without(
                losses.bernoulli,
                "t, the derivative of nll in the logits",
                "t *= 0.5",
                "t *= scale",
                hide=(" scale (p - x)",),
            ),
            Part(losses.bernoulli_nll),
        ),
        checks.bernoulli,
        "p = 1 / (1 + e⁻ˡ) for a logit l. In terms of t = tanh(l/2), p = ½ + ½ t.",
    ),
    "softmax": Exercise(
        2,
        "cross-entropy of K classes, by the softmax's whole Jacobian",
        (without_gradient(losses.softmax_cross_entropy, "d_logits"),),
        checks.softmax,
        "A logit l_j changes every p_k, not only p_j.",
    ),
    "gan_losses": Exercise(
        2,
        "three losses of GANs",
        (
            without(losses.minimax, "the value and its gradient in the logits"),
            without_gradient(losses.least_squares, "d_logits"),
            without_gradient(losses.hinge, "d_logits", first="inside ="),
        ),
        checks.gan_losses,
        "Logits l are (B, 1), and D = 1 / (1 + e⁻ˡ). binary_cross_entropy(logits, y) returns "
        "-E [y log D + (1 - y) log(1 - D)] and its gradient.",
    ),
    "reparameterize": Exercise(
        2,
        "a gradient through a random number",
        (Part(distributions.reparameterize, blanks=(Blank("backward", "d_mu and d_log_var"),)),),
        checks.reparameterize,
        "backward returns (d_mu, d_log_var). The second is the gradient in log σ², not in σ.",
    ),
    "maxout": Exercise(
        2,
        "only the winner gets the gradient",
        (
            Part(
                layers.Maxout,
                ("__init__", "forward", "winners"),
                (Blank("winners", "scatter", "return", values=("scatter",)),),
            ),
        ),
        checks.maxout,
        "gather(h) takes the largest piece of each unit. scatter goes the other way, from (B, n_out) to (B, n_out "
        "n_pieces).",
    ),
    "layer_norm": Exercise(
        2,
        "scale and shift behind a standardised x",
        (layer(norms.LayerNorm, "dgamma, dbeta and dx"),),
        checks.layer_norm,
        "back_normalise(d_x_hat) turns the gradient of x̂ into that of x. You will write it in the exercise batch_norm; "
        "here you only call it.",
    ),
    "batch_norm": Exercise(
        3,
        "mean and variance have gradients too",
        (Part(norms.normalise, blanks=(Blank("backward", "dx, from g = dx̂"),)), Part(norms.BatchNorm)),
        checks.batch_norm,
        "The backward of normalise gets g, the gradient of x̂, and returns that of x. Each x changes m and s, and "
        "so every x̂.",
    ),
    "masks": Exercise(
        3,
        "what each unit of a MADE may see",
        (without(MaskedMLP.masks, "the masks, by `yield M` for each"),),
        checks.masks,
        "self.degree[k] has the degrees of all features, and after them those of each hidden layer. self.cuts says "
        "where to cut it. A mask M (n_in, n_out) of booleans says whether output j sees input i. In the network's "
        "input each feature has self.n_in numbers side by side, and in its output self.n_out. If self.direct is "
        "true, the output layer sees the last hidden layer, and after it the input.",
        formula=(masked, ("Every unit has a degree", "x_1")),
    ),
    "q_sample": Exercise(
        3,
        "noisy data, and the loss that learns to find the noise",
        (
            without(DDPM.q_sample, "x_t"),
            without(DDPM.predicted, "the loss, its gradient in f, and back_denoiser", "target ="),
        ),
        checks.q_sample,
        "self.shares(t) returns √ᾱ_t and √(1 - ᾱ_t) as columns. Only predict=eps is marked: the network's output f "
        "shall be ε, by the squared error.",
    ),
    "vae": Exercise(
        3,
        "the backward half of the ELBO",
        (
            without(
                VAE.loss,
                "the gradients of both networks: call each back_... in reverse order",
                "dz =",
                "back_encoder(",
            ),
        ),
        checks.vae,
        "Each back_... takes the gradients of what its forward returned. It returns those of what its forward was "
        "given, and the networks' also add to the gradients of their weights. back_posterior takes a pair, the "
        "gradients of z and of kl.",
    ),
    "iwae": Exercise(
        3,
        "how much each of k draws counts",
        (without(VAE.iwae_loss, "share (k, B)", "share =", "share ="),),
        checks.iwae,
        "share / B is minus the gradient of the loss in log w_i. A column of log_w (k, B) has the k draws of one example.",
    ),
    "gan": Exercise(
        3,
        "which gradient goes to whom",
        (
            without(GAN.discriminator_loss, "D's gradient, from both batches", "back_real(", "back_fake("),
            without(GAN.generator_loss, "G's gradient, through a frozen D", "dx_hat =", "back_generator("),
        ),
        checks.gan,
        "back_...(d, learn=False) leaves a network as it is, and only returns the gradient of its input. With "
        "inputs=False a network only learns.",
    ),
    "straight_through": Exercise(
        4,
        "a gradient past a choice that has none",
        (without(VQVAE.loss, "the gradients of decoder, codebook and encoder", "straight_through =", "back_encoder("),),
        checks.vqvae,
        "stop(x), the sg[x] of papers, has the value of x and no gradient. So z + stop(e - z) has the value of e, and its "
        "gradient goes to z. d_x_hat is the gradient in x̂, which back_head takes. Call back_book(self.as_tokens(de)) in "
        "any case: it adds to the codebook's gradient, or does nothing if codebook=ema, where a moving average moves the "
        "codes. Ignore what it returns.",
        formula=(vqvae, ("z = encoder",)),
    ),
    "ddim": Exercise(
        4,
        "a jump from noise level t to s",
        (without(diffusion.jump, "x_s", "x_0 ="),),
        checks.ddim,
        "denoise(x, t) returns x̂_0. Draw ε by rng.normal(x.shape).",
        formula=(diffusion.ddim, ("x_s = ",)),
    ),
    "em": Exercise(
        4,
        "the two steps of EM",
        (
            without(GMM.expect, "log_p (N,) and r (K, N)", "log_p ="),
            without(GMM.maximise, "to.logits[...], to.mu[...] and S", "to.logits[...] =", "for k in"),
        ),
        checks.em,
        "a (K, N) holds log π_k + log N(x; μ_k, Σ_k), and n (K,) holds N_k. π is the softmax of to.logits (K,). S "
        "(K, D, D) is still 0.",
        formula=(gmm, ("EM (Dempster", "r_k = π_k")),
    ),
    "coupling": Exercise(
        4,
        "an invertible layer, and the gradient of its log-determinant",
        (
            layer(Affine, "the gradients of x and h", ("__init__", "split", "forward", "undo")),
            layer(Coupling, "dx (B, n)", ("__init__", "net", "forward", "inverse")),
        ),
        checks.coupling,
        "A flow layer returns (y, log_det), so its backward gets d = (dy, d_log_det). h (B, n, 2) holds t and a "
        "side by side in its last axis. Call back_net(dh, learn, inputs) in any case: it adds to the network's gradients "
        "and returns the gradient that reaches x_a through the network, or None if inputs is false. Coupling uses "
        "Affine, so write that first.",
    ),
    "gradient_penalty": Exercise(
        5,
        "a loss on the slope of D",
        (
            Part(
                double_backward.gradient_penalty,
                blanks=(Blank("backward", "v, and a call of double_backward with it"),),
            ),
        ),
        checks.penalty,
        "g (B, n) is the slope of D at each x. Let v be the gradient in g of weight times the penalty. Then "
        "double_backward(v, inputs=False) adds to the gradients of D's weights.",
    ),
    "double_backward": Exercise(
        5,
        "the backward pass of a backward pass",
        (
            Part(
                layers.Linear,
                ("__init__", "forward", "forward_twice"),
                (Blank("forward_twice.gradient.double_backward", "dW, du and dx"),),
            ),
            Part(activations.Tanh, ("f", "df", "ddf"), (Blank("ddf", "f″(x)"),)),
        ),
        checks.double_backward,
        "gradient(u) is the backward pass, g = u Wᵀ. double_backward gets v, the gradient of g. It adds to self.dW "
        "and returns (du, dx), with None in place of a dx that is always 0.",
    ),
    # ---- find the bug ----
    "bug_cross_entropy": Exercise(
        1,
        "cross-entropy of K classes",
        (
            Part(layers.log_softmax),
            Part(layers.one_hot),
            Part(
                losses.softmax_cross_entropy,
                plant=("(p - labels) / len(logits)", "p - labels"),
            ),
        ),
        checks.softmax,
        seen="Several programs sum a gradient over the batch where their loss is a mean.",
    ),
    "bug_softmax": Exercise(
        1,
        "the softmax, its logarithm, and its cross-entropy",
        (
            Part(layers.log_sum_exp),
            Part(
                layers.log_softmax,
                plant=(
                    """shifted = logits - logits.max(axis=1, keepdims=True)  # the largest becomes 0: exp cannot overflow
    return shifted - xp.log(xp.exp(shifted)""",
                    "return logits - xp.log(xp.exp(logits)",
                ),
            ),
            Part(losses.softmax_cross_entropy),
        ),
        checks.softmax,
        seen="Without this line the softmax is right until a logit exceeds 709. Then it is nan.",
    ),
    "bug_dropout": Exercise(
        1,
        "dropout",
        (Part(layers.Dropout, plant=(".astype(rng.real) * (1 / (1 - self.p))", ".astype(rng.real)")),),
        checks.dropout,
        seen="Several programs forget the factor. The gradient still fits, but a trained network then gets larger numbers.",
    ),
    "bug_kl": Exercise(
        2,
        "two KL divergences",
        (
            Part(
                losses.kl_standard_normal,
                plant=(
                    "kl = 0.5 * (mu * mu + variance - 1 - log_var)",
                    "kl = -0.5 * (1 + log_var - mu * mu + variance)",
                ),
            ),
            Part(losses.kl_gaussians),
        ),
        checks.kl,
        seen="Papers write -½ Σ (1 + log σ² - μ² - σ²), and one of these signs is easily lost.",
    ),
    "bug_sampler": Exercise(
        2,
        "a draw from a VAE's posterior, and its KL",
        (
            Part(distributions.gaussian_head),
            Part(
                distributions.reparameterize,
                plant=(
                    """.exp(0.5 * log_var) * rng.normal(mu.shape)  # σ = √exp(log σ²)

    def backward(dz):
        return dz, 0.5 * sigma_eps * dz""",
                    """.exp(log_var) * rng.normal(mu.shape)

    def backward(dz):
        return dz, sigma_eps * dz""",
                ),
            ),
            Part(distributions.gaussian_posterior),
        ),
        checks.sampler,
        seen="numpy-ml's VAE takes the variance for the standard deviation. The gradient fits, so a gradient check passes.",
    ),
    "bug_batch_norm": Exercise(
        2,
        "batch norm",
        (
            Part(
                norms.normalise,
                plant=(
                    "(g - g.mean(axis, keepdims=True) - x_hat * (g * x_hat).mean(axis, keepdims=True)) / s",
                    "(g - g.mean(axis, keepdims=True)) / s",
                ),
            ),
            Part(norms.BatchNorm),
        ),
        checks.batch_norm,
        seen="Several programs take the mean or the variance of the batch for a constant.",
    ),
    "bug_vae": Exercise(
        3,
        "the loss of a VAE, and of a β-VAE",
        (Part(VAE.loss, plant=("back_posterior((dz, self.beta))", "back_posterior((self.beta * dz, 1.0))")),),
        checks.vae,
        seen="β is on the wrong term. With β = 1 nothing is wrong, so a check with β = 1 passes.",
    ),
    "bug_iwae": Exercise(
        3,
        "the bound of importance weights",
        (Part(VAE.iwae_loss, plant=("log_softmax(log_w.T)", "log_softmax(-log_w.T)")),),
        checks.iwae,
        seen="PyTorch-VAE's IWAE weighs by the error in place of minus the error, so the worst draws count most.",
    ),
    "bug_gan": Exercise(
        3,
        "the two losses of a GAN",
        (
            Part(GAN.discriminator_loss),
            Part(
                GAN.generator_loss, plant=("back_discriminator(d_logits, learn=False)", "back_discriminator(d_logits)")
            ),
        ),
        checks.gan,
        seen="G's loss leaves a gradient in D: elsewhere a forgotten detach, or a forgotten zero_grad.",
    ),
    "bug_wgan": Exercise(
        3,
        "a critic with a gradient penalty",
        (
            Part(double_backward.between, plant=("rng.uniform((len(real), 1))", "rng.uniform(real.shape)")),
            Part(WGAN.discriminator_loss),
        ),
        checks.wgan,
        seen="Several programs draw an α for each number, so that the point lies in a box and not on a line.",
    ),
    "bug_masks": Exercise(
        3,
        "the masks of a MADE",
        (Part(MaskedMLP.masks, plant=("yield below[:, None] < xp", "yield below[:, None] <= xp")),),
        checks.masks,
        seen="Off by one, each output sees its own feature: the likelihood becomes perfect, and the samples useless.",
    ),
    "bug_ddim": Exercise(
        4,
        "a jump of DDIM",
        (
            Part(
                diffusion.jump,
                plant=("x_0 + math.sqrt(max(0.0, 1 - then - variance)) * eps", "x_0 + math.sqrt(1 - then) * eps"),
            ),
        ),
        checks.ddim,
        formula=(diffusion.ddim, ("x_s = ",)),
        seen="All old noise is kept, and new noise added. With η = 0 nothing is wrong. numpy-diffusion had a sign wrong "
        "here.",
    ),
    "bug_vqvae": Exercise(
        4,
        "the loss of a VQ-VAE",
        (
            Part(
                VQVAE.loss,
                plant=(
                    """back_book(self.as_tokens(de), inputs=False)
    back_encoder(straight_through + self.beta * dz, inputs=False)
    loss = error + self.beta * commitment + (codebook if""",
                    """back_book(self.as_tokens(self.beta * de), inputs=False)
    back_encoder(straight_through + dz, inputs=False)
    loss = error + commitment + (self.beta * codebook if""",
                ),
            ),
        ),
        checks.vqvae,
        "The last term is the commitment.",
        formula=(vqvae, ("z = encoder",)),
        seen="Several programs weigh the term that moves the codes. Both terms have the same value, so no loss shows it.",
    ),
}


def find(name):
    """The exercise of this name. Raises UsageError for another name, which says the nearest ones."""
    if name not in EXERCISES:
        near = difflib.get_close_matches(name, EXERCISES, 3, 0.5)
        remedy = f"do you mean {' or '.join(near)}?" if near else "scratchgen exercise lists them all"
        raise UsageError(f"exercise {name!r} is unknown: {remedy}")
    return EXERCISES[name]


def following(name):
    """The name of the next exercise in the list, or ""."""
    return dict(pairwise(EXERCISES)).get(name, "")
