"""What the numbers of a history and of `evaluate` are: their unit, and which way is better."""

LOW, HIGH, NEITHER = "lower is better", "higher is better", ""
NATS = "nats an example"

MEANINGS = {  # without the prefixes test_ (of the test data) and binarized_ (of a black and white version)
    "loss": ("what a training step lowers; in nats, or squared errors where the model is trained by these", LOW),
    "negative_elbo": (f"{NATS}; a bound on -log p", LOW),
    "nll": (f"{NATS}: -log p, of a VAE -log p(x|z)", LOW),
    "kl": (f"{NATS}: what the code says of x", NEITHER),
    "denoising_nll": (f"{NATS}: of x given its damaged copy", LOW),
    "cross_entropy": (NATS, LOW),
    "pseudo_nll": (f"{NATS}: the sum over pixels of -log p(pixel | all others)", LOW),
    "top_pseudo_nll": (f"{NATS}, of the top layer's input", LOW),
    "reconstruction": (f"{NATS}: of x after one Gibbs step; no likelihood", LOW),
    "top_reconstruction": (f"{NATS}: of the top layer's input after one Gibbs step", LOW),
    "mse": ("squared error a pixel", LOW),
    "squared_error": ("squared error an example", LOW),
    "absolute_error": ("absolute error a pixel", LOW),
    "squares": ("squared error an example", LOW),
    "error": ("the error term: squared or absolute, an example", LOW),
    "commitment": ("squared distance of the features to their codes", LOW),
    "perplexity": ("codes in use, each weighed by how often", HIGH),
    "used": ("the fraction of the codes in use at all", HIGH),
    "adversarial": ("G's adversarial term", NEITHER),
    "lambda": ("weight of the adversarial term", NEITHER),
    "discriminator_loss": ("in units of the loss chosen; says little of the samples", NEITHER),
    "generator_loss": ("in units of the loss chosen; says little of the samples", NEITHER),
    "penalty": ("the gradient penalty, unweighted", NEITHER),
    "wasserstein": ("the critic's estimate of W₁, in units of its slope", LOW),
    "logit_real": ("D's mean logit of test examples", NEITHER),
    "logit_fake": ("D's mean logit of generated ones", NEITHER),
    "accuracy": ("the fraction read right", HIGH),
    "log_p": (f"{NATS}: log p(x)", HIGH),
    "log_p_error": (f"{NATS}: the standard error of log_p", NEITHER),
    "log_p_method": ("", NEITHER),
    "frechet": ("squared Fréchet distance in the classifier's features", LOW),
    "frechet_floor": ("the same of as many test pictures", NEITHER),
    "classifier_accuracy": ("test pictures that this classifier reads right", NEITHER),
    "rarest_class": ("the smallest share of a class among the samples", HIGH),
    "modes": ("modes with at least one good sample", HIGH),
    "high_quality": ("the fraction of samples within 3σ of a mode", HIGH),
    "reverse_kl": ("nats: how unevenly the modes are hit", LOW),
    "sliced_wasserstein": ("in standard deviations of the data", LOW),
    "sliced_wasserstein_floor": ("the same of real points", NEITHER),
    "seconds": ("of training, an epoch", NEITHER),
}


def meaning(name):
    """A number's unit and which way is better, in a few words: "nats an example, lower is better"; "" of an unknown one."""
    for prefix in ("test_", "binarized_"):
        name = name.removeprefix(prefix)
    unit, better = MEANINGS.get(name, ("", ""))
    return ", ".join(filter(None, [unit, better]))
