"""The doctor of a training: now and then it looks at the model and says what goes wrong, how it knows, and what to change.

Each function below is one illness: its symptom, how that is measured, and why the threshold is where it is. It returns a
line that ends with the remedy, or "". `fit` shows that line once, and only if the illness was there in LOOKS looks in a row:
early in training many things look wrong for a moment.

A look takes place between two steps. It reads what the last step has left, the losses and the gradient of every weight, and
makes a forward pass or two with ROWS examples. It draws from a random stream of its own and changes nothing. So a training
gives the same weights, bit for bit, as it would without a doctor. Looks are so rare that they take SHARE of the time.
"""

import math
import time
from itertools import pairwise

from ..backend import array_module, to_host
from ..models.ebm import EBM
from ..models.gsn import GSN
from ..models.parts.adversarial import Adversarial
from ..models.parts.codebook import perplexity
from ..models.rbm import RBM
from ..models.vae import VAE
from ..models.vqvae import VQVAE
from ..nn.activations import ReLU
from ..nn.distributions import sample_bernoulli
from ..nn.layer import Layer, Sequential
from ..nn.layers import one_hot
from ..nn.optim import Optimizer
from .run import test_loss

LOOK_EVERY, SHARE = 100, 0.01  # steps between two looks, at least; and the most time that looks may take
LOOKS, ROWS = 3, 256


class Doctor:
    """look(losses, n) is called after n more steps, and read() after an epoch. Both return the lines to show.

    given: {"x": (N, n_features), "labels": (N,) if the model learns from them}, the training data on the model's device.
    rows: the history, to which the caller adds a row after each epoch. The illnesses also read: losses, {name: mean over the
    last steps}; batch, ROWS random rows of the data; rng; memory, a dict for what they compare with later. What they
    measured last is in `measured`, {name: number}.
    """

    def __init__(self, model, given, rows, seed):
        self.model, self.given, self.rows, self.rng = model, given, rows, model.rng((seed, 0, 6))
        self.steps, self.cost, self.looked = 0, 0.0, time.perf_counter()
        self.losses, self.batch, self.memory, self.measured = {}, {}, {}, {}
        self.counts = {}  # {illness: in how many looks in a row it was there}

    def look(self, losses, n):
        started, self.steps = time.perf_counter(), self.steps + n
        if self.steps < LOOK_EVERY or started - self.looked < self.cost / SHARE:
            return []
        self.steps, self.losses, self.batch = 0, losses, self.draw()
        lines = self.certain(ILLNESSES)
        self.looked = time.perf_counter()
        self.cost = self.looked - started
        return lines

    def read(self):
        return self.certain((overfitting,))

    def certain(self, illnesses):
        """The lines of those illnesses that were there in LOOKS looks in a row, each once."""
        lines = []
        for illness in illnesses:
            if self.counts.get(illness, 0) < LOOKS:
                line = illness(self)
                self.counts[illness] = self.counts.get(illness, 0) + 1 if line else 0
                lines += [line] * (self.counts[illness] == LOOKS)
        return lines

    def draw(self):
        """{"x": ROWS random rows of the training data, perhaps with their "labels"}."""
        chosen = self.rng.integers(len(self.given["x"]), ROWS)
        return {name: array[chosen] for name, array in self.given.items()}

    def note(self, **arrays):
        """The values of 0-d arrays as floats, kept in `measured`. This is where a GPU has to be waited for."""
        xp = array_module(*arrays.values())
        found = dict(zip(arrays, to_host(xp.stack(list(arrays.values()))).tolist()))
        self.measured |= found
        return found

    def remedies(self, **words):
        """ "; try ..., or ...": the words for those settings that the model has. {lr:g} in them becomes the value."""
        settings = self.model.settings()
        known = [text.format(**settings) for name, text in words.items() if name in settings]
        now = {f"{name}={str(value).lower().removesuffix('.0')}" for name, value in settings.items()}
        known = [text for text in known if text not in now]  # what it has already is no remedy
        return f"; try {', or '.join(known)}" if known else ""


# ---- any network ----


def networks(model):
    """{name: Sequential} of the networks that this model trains, also those inside other layers."""
    ours, found = {id(part.params) for part in vars(model).values() if isinstance(part, Optimizer)}, {}

    def walk(name, layer):
        if isinstance(layer, Sequential) and id(layer.params) in ours and layer not in found.values():
            found[name] = layer
        for below, child in layer.children():
            walk(f"{name}.{below}", child)

    for name, part in vars(model).items():
        if isinstance(part, Layer):
            walk(name, part)
    return found


def gradients(layer, ndim):
    """The gradients of a layer's own learned weights that have this number of axes: 2 for W, 1 for b."""
    declared = vars(layer).get("_weights", {}).items()
    return [getattr(layer, f"d{name}") for name, weight in declared if weight.learned and len(weight.shape) == ndim]


SLOWER = {
    "lr": "a smaller lr (now {lr:g})",
    "lr_G": "a smaller lr_G (now {lr_G:g})",
    "lr_D": "a smaller lr_D (now {lr_D:g})",
}
MOSTLY_DEAD = 0.9


def dead_relus(doctor):
    """Symptom: a ReLU is 0 for every example. It passes no gradient, so the weights before it never change again.

    Measured: its bias has the gradient 0, exactly, in the batches of LOOKS looks in a row. More than 90 % of a layer must be
    so: of a wide layer most units may well be idle. A VQ-VAE of digits learns well with two thirds of a layer idle. And some
    weight must have a gradient, or it is the loss that is flat.
    Remedy: a smaller learning rate, because one large step may push a bias so far down, or an activation with no flat part.
    """
    shares = {}
    for name, network in networks(doctor.model).items():
        bias = []
        for i, layer in enumerate(network.layers):
            if isinstance(layer, ReLU) and bias:
                idle = (bias[-1] == 0) & network.params.grad.any()
                idle = (doctor.memory.get((name, i), 0) + 1) * idle  # for how many looks each unit has been idle
                doctor.memory[name, i] = idle
                shares[f"{name}.{i}"] = (idle >= LOOKS).mean()
            bias = gradients(layer, 1) or bias
    found = doctor.note(**shares) if shares else {}
    dead = {name: share for name, share in found.items() if share > MOSTLY_DEAD}
    if not dead:
        return ""
    layers = ", ".join(f"{share:.0%} of the ReLUs of {name}" for name, share in dead.items())
    return f"dead ReLUs: {layers} are 0 for every example and will stay so" + doctor.remedies(
        **SLOWER, activation="activation=leaky_relu"
    )


VANISHING, EXPLODING = 1e-4, 1e4


def vanishing_or_exploding_gradient(doctor):
    """Symptom: the first layers of a network learn nothing, because each layer makes the gradient smaller on its way back.

    Measured: the ratio of √mean(dW²) in a network's first and last layer. It is 0.01 to 3 in every default run. A sigmoid
    layer multiplies the gradient by at most 1/4, so a few of them make it vanish (Glorot & Bengio 2010). 10⁻⁴ is far outside
    of both, and so is 10⁴, at which the gradient explodes on its way.
    Remedy: an activation whose slope is 1, weights that start at the right size, fewer layers.
    """
    sizes = {}
    for name, network in networks(doctor.model).items():
        weights = [dW for layer in network.layers for dW in gradients(layer, 2)]
        if len(weights) > 2:  # two layers have only one activation between them
            sizes |= {f"{name} {end}": (dW * dW).mean() for end, dW in (("first", weights[0]), ("last", weights[-1]))}
    found = doctor.note(**sizes) if sizes else {}
    for (first, a), (_, b) in list(pairwise(found.items()))[::2]:
        usable = 0 < a < math.inf and 0 < b < math.inf  # at 0 units are dead, which is another illness
        ratio = math.sqrt(a / b) if usable else 1.0
        if not VANISHING < ratio < EXPLODING:
            word = "vanishing" if ratio < 1 else "exploding"
            network = first.removesuffix(" first")
            return f"{word} gradient: in the first layer of {network} it is {ratio:.1g} of that in the last" + (
                doctor.remedies(activation="activation=relu", init="init=he", hidden="fewer layers in hidden")
            )
    return ""


GROWTH = 100


def growing_gradient(doctor):
    """Symptom: steps become larger and larger, and soon a loss is not finite.

    Measured: ‖dW‖ of each layer against its median in the first LOOKS looks. In default runs it grows by less than a factor
    of 2, in a VAE of 7, in a VQ-VAE, whose encoder learns little at first, of 25. A hundred is far outside.
    Remedy: a smaller learning rate, and whatever holds back the quantity that grows.
    """
    grads = {
        f"{of}.{name}": dW
        for of, params in doctor.model.parameters().items()
        for name, dW in params.named_grads().items()
        if dW.ndim == 2
    }
    norms = doctor.note(**{name: (dW * dW).sum() for name, dW in grads.items()}) if grads else {}
    first = doctor.memory.setdefault("norms", [])
    if len(first) < LOOKS:
        first.append(norms)
        return ""
    usual = {name: sorted(look[name] for look in first)[LOOKS // 2] for name in norms}
    growth = {name: math.sqrt(norms[name] / usual[name]) for name in norms if usual[name] > 0}
    worst = max(growth, key=growth.get, default=None)
    if worst is None or growth[worst] < GROWTH:
        return ""
    return f"exploding gradient: that of {worst} is {growth[worst]:.2g} times as large as at first" + doctor.remedies(
        **SLOWER, beta="another beta (now {beta:g})"
    )


# ---- models with a discriminator ----

# D's loss if it cannot tell real from generated at all: D = ½, or a logit of 0 for the hinge.
UNSURE = {"minimax": 2 * math.log(2), "non_saturating": 2 * math.log(2), "least_squares": 0.25, "hinge": 2.0}
TOO_GOOD = 0.1


def winning_D(doctor):
    """Symptom: D is right and certain about every example. Then D is flat at G's examples, and G gets almost no gradient.

    Measured: D's loss, without the penalty, is below a tenth of the loss of a D that always answers ½. With cross-entropy, D
    then gives the right answer a probability of 0.93 on average. Default runs end at 0.5 to 1 of that loss.
    Remedy: whatever makes D's task harder or D smoother.
    """
    model, losses = doctor.model, doctor.losses
    if not isinstance(model, Adversarial) or "discriminator_loss" not in losses:
        return ""
    value = losses["discriminator_loss"] - 0.5 * model.r1 * losses.get("penalty", 0)
    if value > TOO_GOOD * UNSURE.get(model.adversarial_loss, -math.inf):
        return ""
    return (
        f"D wins: discriminator_loss fell to {value:.2g}: D tells real from generated examples almost perfectly, so G gets "
        "almost no gradient"
    ) + doctor.remedies(r1="a larger r1", noise="noise=0.1", d_steps="d_steps=1", lr_D="a smaller lr_D")


def critic_of_wrong_sign(doctor):
    """Symptom: a WGAN's critic scores generated examples above real ones, and its penalty keeps it from changing that.

    Measured: the estimate of W₁ is below -0.05. A distance is not negative; an estimate on a batch may be so, by chance.
    Remedy: a penalty that fits the distances in the data.
    """
    value = doctor.losses.get("wasserstein", 0)
    if not isinstance(doctor.model, Adversarial) or value > -0.05:
        return ""
    return (
        f"D has the wrong sign: wasserstein fell to {value:.2g}: D scores generated examples above real ones, and its "
        "penalty keeps it from changing"
    ) + doctor.remedies(lam="a smaller lam (0.1 for points in the plane)", one_sided="one_sided=true")


STILL = 1e-3


def still_G(doctor):
    """Symptom: G stays as it is, because its loss is flat (minimax against a good D) or its rate is too small.

    Measured: ‖θ_now - θ_before‖ / ‖θ_now‖ between two looks, 100 steps or more. Default runs give 0.015 to 0.1. At a
    thousandth, the whole of G would take 100,000 steps to change. Falling rates lower the threshold with them.
    Remedy: a loss with a slope where D is sure, or a larger rate.
    """
    model = doctor.model
    if not isinstance(model, Adversarial) or not hasattr(model, "params_G"):
        return ""
    theta, optimizer, memory = model.params_G.theta, model.optimizer_G, doctor.memory
    before, memory["theta_G"] = memory.get("theta_G"), theta.copy()
    if before is None:
        return ""
    change = theta - before
    moved = doctor.note(moved=((change * change).sum() / (theta * theta).sum()) ** 0.5)["moved"]
    if moved > STILL * optimizer.rate(int(optimizer.t[0])) / optimizer.rate(1):
        return ""
    return f"G does not move: its weights changed by {moved:.1g} of their size since the last look" + doctor.remedies(
        adversarial_loss="adversarial_loss=non_saturating", lr_G="a larger lr_G (now {lr_G:g})", r1="a larger r1"
    )


FEW = 0.25


def mode_collapse(doctor):
    """Symptom: G makes only a few kinds of examples. Its losses do not show that.

    Measured: each sample is given to the nearest of ROWS real examples. How many of these get any, against how many get any
    of as many other real examples? If G makes k of 8 equally frequent kinds, and these well, the ratio is about k/8. Default
    runs give 0.55 to 1 on digits, and 0.3 on a ring, of which they learn little. Failing ones give 0.05 to 0.2.
    Remedy: a D that sees several examples at once, or one that learns faster.
    """
    model, rng = doctor.model, doctor.rng
    if not isinstance(model, Adversarial) or not model.judged_by_samples or model.labels_are_vectors:
        return ""
    real = doctor.batch["x"]
    hit = (hits(real, x) for x in (model.sample(ROWS, rng), doctor.draw()["x"]))
    found = doctor.note(**dict(zip(("made", "others"), hit)))
    if found["made"] > FEW * found["others"]:
        return ""
    return (
        f"mode collapse: {ROWS} samples are nearest to only {found['made']:.0f} of {ROWS} real examples, as many other real "
        f"ones to {found['others']:.0f}"
    ) + doctor.remedies(pack="pack=2", lr_D="a larger lr_D (now {lr_D:g})", d_steps="more d_steps", r1="r1=1")


def hits(real, x):
    """How many rows of real (M, D) are the nearest one to some row of x (N, D)."""
    centre = real.mean(axis=0)  # taken from both, so that squares of large numbers do not drown the differences
    real, x = real - centre, x - centre
    chosen = (2 * x @ real.T - (real * real).sum(axis=1)).argmax(axis=1)  # (N,)
    return one_hot(chosen, len(real), real.dtype).max(axis=0).sum()


# ---- models with codes ----

SILENT, FEWEST = 0.01, 0.1


def posterior_collapse(doctor):
    """Symptom: q(z|x) is N(0, I) for every x, so codes say nothing about x, and the decoder makes one mean picture.

    Measured: the mean over x of KL(q(z_j|x) ‖ N(0, 1)) of each code. A code with less than 0.01 nats is silent (Burda et al.
    2015 have a like threshold). A healthy VAE has silent codes too, 15 of 20 on digits: those it does not need. So a warning
    comes if less than a tenth of them speaks.
    Remedy: a smaller weight of the KL, or less noise in the decoder.
    """
    model = doctor.model
    if not isinstance(model, VAE):
        return ""
    mu, log_var = model.encode(doctor.batch["x"], doctor.batch.get("labels"))
    kl = to_host(0.5 * (mu * mu + array_module(mu).exp(log_var) - 1 - log_var).mean(axis=0))  # (n_latent,)
    doctor.measured["kl of codes"] = kl.tolist()
    silent = [j for j, value in enumerate(kl) if value < SILENT]
    if len(silent) <= (1 - FEWEST) * len(kl):
        return ""
    codes = f"codes {', '.join(map(str, silent))}" if len(silent) < len(kl) else f"all {len(kl)} codes"
    return f"posterior collapse: {codes} say nothing about x (KL below {SILENT} nats)" + doctor.remedies(
        beta="a smaller beta (now {beta:g})", hidden="fewer layers in hidden"
    )


WIDE = 3.0


def codes_off_the_prior(doctor):
    """Symptom: the codes of data lie where the prior N(0, I) hardly ever draws. So samples are bad, whatever the loss says.

    Measured: E[z²], the mean over x and over codes. It is 1 for the prior. With the ELBO it stays within 0.8 and 1.2, with a
    tenth of the KL (beta=0.1) below 1.5, and without the KL it reaches 5 to 10.
    Remedy: a larger weight of the KL; after steps that were too large, a smaller learning rate.
    """
    model = doctor.model
    if not isinstance(model, VAE):
        return ""
    mu, log_var = model.encode(doctor.batch["x"], doctor.batch.get("labels"))
    square = doctor.note(square=(mu * mu + array_module(mu).exp(log_var)).mean())["square"]
    if square < WIDE:
        return ""
    return f"codes off the prior: E[z²] is {square:.2g}, but sample() draws z with E[z²] = 1" + doctor.remedies(
        beta="a larger beta (now {beta:g}; 1 gives the ELBO)", lr="a smaller lr (now {lr:g})"
    )


FEW_CODES = 0.1


def codebook_collapse(doctor):
    """Symptom: nearly all tokens choose the same few codes. The others get no token, so they never move.

    Measured: the perplexity of the codes of ROWS examples, the number of evenly used codes with the same entropy, against
    the number of codes (or of tokens, if they are fewer). Default runs have 0.3 after 100 steps, and later 0.7 to 0.8.
    Remedy: move unused codes to where tokens are.
    """
    model = doctor.model
    if not isinstance(model, VQVAE):
        return ""
    codes = model.codes(doctor.batch["x"]).ravel()
    counts = one_hot(codes, model.n_embeddings, model.params.theta.dtype).sum(axis=0)
    used, most = doctor.note(perplexity=perplexity(counts))["perplexity"], min(model.n_embeddings, len(codes))
    if used > FEW_CODES * most:
        return ""
    return f"codebook collapse: of {model.n_embeddings} codes only about {used:.0f} are in use (perplexity)" + (
        doctor.remedies(restart_every="restart_every=200", codebook="codebook=ema", lr="a smaller lr (now {lr:g})")
    )


# ---- models with chains ----

SHIFT, SPREAD, STEPS = 0.5, 4.0, 5  # STEPS of the doctor's own chain in each look


def chains(doctor):
    """(x, v, F(x) - F(v)): data and states of chains, (B, D) and (M, D), and the gap of their energies, or None if there is
    no energy or no chain that goes on from step to step. A new model with chains needs its lines here, and no others."""
    model, rng, x = doctor.model, doctor.rng, doctor.batch["x"]
    if isinstance(model, RBM):
        W = model.energy.W
        gap = doctor.losses.get("loss", 0.0) - 0.5 * model.weight_decay * (W * W).sum()
        return model.visible(x, rng), model.energy.chains if model.persistent else None, gap
    if isinstance(model, GSN):
        x = model.binarized(x, rng)
        v = doctor.memory.get("chain", x[:64])
        for _ in range(STEPS):
            v = sample_bernoulli(model.network(model.damaged(v, rng)), rng)
        doctor.memory["chain"] = v
        return x, v, None
    if isinstance(model, EBM) and model.objective == "contrastive":
        return model.scaler(x), model.buffer.states, None  # energies of real numbers have no such bound
    return x, None, None


def diverging_chain(doctor):
    """Symptom: the chains are not where the data is, so they teach the model nothing about the data's surroundings.

    Measured: for an energy, the gap F(x) - F(v) between data and chains. If chains draw from p, the cross-entropy of the
    data is at least the gap. So at a gap above D log 2 the model is worse than a coin tossed for each of D units.
    For any chain, it is ‖E[v] - E[x]‖² against the variance of the data. For 64 independent states this would be 1/64.
    Default runs start at 0.2 and fall. At a half, the chains' centre is nearly as far off as a single example would be. And
    the variance of the states may be four times that of the data, but not more: chains of real numbers can run away.
    Remedy: a smaller learning rate, so that chains can follow; more steps of the chain.
    """
    (x, v, gap), said = chains(doctor), ""
    if gap is not None and abs(doctor.note(gap=gap)["gap"]) > x.shape[1] * math.log(2):
        said = f"the energies of data and chains differ by {abs(doctor.measured['gap']):.0f} nats"
    if v is not None:
        distance = v.mean(axis=0) - x.mean(axis=0)
        variance = x.var(axis=0).sum()
        found = doctor.note(shift=(distance * distance).sum() / variance, spread=v.var(axis=0).sum() / variance)
        away, wide = math.sqrt(found["shift"]), math.sqrt(found["spread"])
        if found["shift"] > SHIFT:
            said = f"the mean of the chains is {away:.1f} standard deviations of the data away from the data's"
        elif found["spread"] > SPREAD:
            said = f"the standard deviation of the chains is {wide:.1f} times the data's"
    return said and f"diverging chain: {said}" + doctor.remedies(
        lr="a smaller lr (now {lr:g})",
        gibbs_steps="more gibbs_steps",
        walk_steps="more walk_steps",
        chain_steps="more chain_steps",
    )


# ---- any model with a test loss ----

RISE, SPAN = 1 / 3, 5


def overfitting(doctor):
    """Symptom: the loss on the test data rises while that on the training data falls: the model learns examples by heart.

    Measured: the mean test loss of the last SPAN epochs, because a loss with random times or codes is noisy. It must be
    above the least such mean by a third of all that was gained since the first epoch, and by twice what neighbouring epochs
    usually differ by. A third is worth going back for. EM for a mixture loses a quarter for a while, and wins it back.
    Remedy: the best epoch, a smaller network, more data.
    """
    rows, (losses, means) = doctor.rows, doctor.memory.setdefault("tests", ([], []))
    for row in rows[len(losses) :]:
        name, value = test_loss(doctor.model, row) or ("", math.nan)
        losses.append(value)
        means.append(sum(losses[-SPAN:]) / SPAN if len(losses) >= SPAN else math.inf)
    if len(rows) <= SPAN or math.isnan(sum(losses)):
        return ""
    noise = sum(abs(a - b) for a, b in pairwise(losses)) / (len(losses) - 1)
    risen, gained = means[-1] - min(means), max(losses[0], means[SPAN - 1]) - min(means)
    best, now = rows[losses.index(min(losses))], rows[-1]
    if risen <= max(2 * noise, RISE * gained) or now.get("loss", -math.inf) > best.get("loss", math.inf):
        return ""
    return (
        f"overfitting: {name} was least in epoch {best['epoch']} and has risen by {risen:.2g} since; use the best "
        "epoch (--best), a smaller network or more data"
    )


ILLNESSES = (
    dead_relus, vanishing_or_exploding_gradient, growing_gradient, winning_D, critic_of_wrong_sign, still_G, mode_collapse,
    posterior_collapse, codes_off_the_prior, codebook_collapse, diverging_chain,
)  # fmt: skip
