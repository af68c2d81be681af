"""The meaning of the numbers in a history and in `evaluate`: their unit, and whether higher or lower is better."""

LOW, HIGH, NEITHER = "lower is better", "higher is better", ""
NATS = "nats per example"

MEANINGS = {  # without the prefixes test_ (of the test data) and binarized_ (of a black and white version)
    "loss": ("what a training step minimises: in nats, or in squared errors if the model is trained with these", LOW),
    "negative_elbo": (f"{NATS}; a bound on -log p", LOW),
    "bits_per_dim": ("nll of pixels, in bits and per pixel", LOW),
    "nll": (f"{NATS}: -log p, for a VAE -log p(x|z)", LOW),
    "code_bits": ("bits per picture: -log₂ p of its codes, with prior=masked a bound", LOW),
    "stored_bits": ("bits per picture that its codes take if they are stored as they are", NEITHER),
    "kl": (f"{NATS}: what the code tells about x", NEITHER),
    "denoising_nll": (f"{NATS}: of x given its damaged copy", LOW),
    "denoising_error": ("squared error of the noise that the score implies, per example", LOW),
    "cross_entropy": (NATS, LOW),
    "pseudo_nll": (f"{NATS}: the sum over pixels of -log p(pixel | all others)", LOW),
    "top_pseudo_nll": (f"{NATS}, of the top layer's input", LOW),
    "reconstruction": (f"{NATS}: of x after one Gibbs step; not a likelihood", LOW),
    "top_reconstruction": (f"{NATS}: of the top layer's input after one Gibbs step", LOW),
    "mse": ("squared error per pixel", LOW),
    "squared_error": ("squared error per example", LOW),
    "absolute_error": ("absolute error per pixel", LOW),
    "squares": ("squared error per example", LOW),
    "error": ("the error term, squared or absolute, per example", LOW),
    "commitment": ("squared distance of the features to their codes", LOW),
    "perplexity": ("the effective number of codes in use", HIGH),
    "used": ("the fraction of the codes that are in use", HIGH),
    "adversarial": ("G's adversarial term", NEITHER),
    "lambda": ("weight of the adversarial term", NEITHER),
    "discriminator_loss": ("in units of the chosen loss; says little about the samples", NEITHER),
    "generator_loss": ("in units of the chosen loss; says little about the samples", NEITHER),
    "penalty": ("the gradient penalty, unweighted", NEITHER),
    "wasserstein": ("the critic's estimate of W₁, in units of its slope", LOW),
    "logit_real": ("D's mean logit of test examples", NEITHER),
    "logit_fake": ("D's mean logit of generated examples", NEITHER),
    "accuracy": ("the fraction classified correctly", HIGH),
    "log_p": (f"{NATS}: log p(x)", HIGH),
    "log_p_error": (f"{NATS}: the standard error of log_p", NEITHER),
    "log_p_method": ("", NEITHER),
    "log_std": ("of a table: nats by which -log p in its own units exceeds that of standardised columns", NEITHER),
    "frechet": ("squared Fréchet distance in the classifier's features", LOW),
    "frechet_error": ("how much it varies among sets of samples (standard deviation)", NEITHER),
    "frechet_floor": ("the same for as many real pictures, on average", NEITHER),
    "frechet_floor_error": ("how much it varies among sets of real pictures (standard deviation)", NEITHER),
    "classifier_accuracy": ("the fraction of test pictures that it classifies correctly", NEITHER),
    "rarest_class": ("the smallest share of a class among the samples", HIGH),
    "modes": ("modes with at least one good sample", HIGH),
    "high_quality": ("the fraction of samples within 3σ of a mode", HIGH),
    "reverse_kl": ("nats: how unevenly the modes are hit", LOW),
    "sliced_wasserstein": ("in standard deviations of the data", LOW),
    "sliced_wasserstein_floor": ("the same for real points", NEITHER),
    "seconds": ("of training per epoch", NEITHER),
}


def meaning(name):
    """A number's unit and which way is better, in a few words: "nats per example, lower is better"; "" if unknown."""
    for prefix in ("test_", "binarized_"):
        name = name.removeprefix(prefix)
    unit, better = MEANINGS.get(name, ("", ""))
    return ", ".join(filter(None, [unit, better]))
