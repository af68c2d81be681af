"""Rules that involve several settings of a model, and what a model needs from its data besides a range of numbers.

The range of a single setting belongs to its type (settings.py). Each function here returns one line that says what is wrong
and what to do, or None if all is well. A model obeys the rules of its own file and those of the models that it extends: a
DBN, for example, is also an RBM. If you write a model of your own, you need no entry here: override check_settings and
check_data instead.
"""


def entries(table, model_class):
    """The entries of a table {name of a file: ...} for a model: first of its own file, then of the models it extends."""
    files = [kind.__module__.rpartition(".") for kind in model_class.__mro__]
    return [table[name] for package, _, name in files if package == __package__ and name in table]


def broken(rules, model, *data):
    """The line of the first broken rule, or "". rules is SETTINGS, or DATA, whose functions also take x and labels."""
    return next(filter(None, (rule(model, *data) for rule in entries(rules, type(model)))), "")


def remedy(model_class):
    """What to do if the data has numbers outside a model's data_range."""
    for settings in entries(ANY_NUMBERS, model_class):
        return f"use --set {settings} for other numbers"
    return "use another model (vae, gan, wgan, ddpm, ebm, flow, flow_matching and gmm take any numbers), or rescale"


def table_settings(model_class):
    """["name=value", ...]: the settings with which a model takes a table, besides those of a model inside it."""
    return [setting for setting in next(iter(entries(ANY_NUMBERS, model_class)), "").split() if "." not in setting]


ONE_LEVEL = "levels: pixels need 2 levels or more; use the number that the data has, or 0"

# ---- settings: the line begins with the name of the setting to change ----


def code_prior(model):
    if model.vqvae.n_embeddings < 2:
        return "vqvae: its codebook has a single code, so there is nothing to learn; give one with n_embeddings >= 2"
    return in_features(model)


def conditional_gan(model):
    if model.n_classes < 2 and model.condition == "label":
        return "n_classes: expected 2 or more, because D must also see each example with a wrong label"
    if model.batch < 2 and model.condition == "vector":
        return "batch: expected 2 or more, because each example takes its wrong vector from a neighbour in the batch"


def dbn(model):
    if hasattr(model.rbm, "rbm"):
        return "rbm: expected an RBM, got a DBN; a DBN stacks exactly two machines"
    return same_pictures(model, "rbm")


def ddpm(model):
    if model.n_steps > model.n_times and model.sampler == "ddim":
        return f"n_steps: {model.n_steps} steps are more than n_times={model.n_times}; use n_steps={model.n_times}"
    if model.n_times < 20 and model.schedule == "linear":
        return f"n_times: {model.n_times} is too small for schedule=linear; use 20 or more, or schedule=cosine"
    return denoising(model, "predict=v")


def denoising(model, instead):
    """A line about what diffusion and flow matching have in common. instead: what can predict any numbers."""
    if model.predict == "logits" and model.scaling != "pixels":
        return f"predict: logits can predict pixels only; with scaling=standard use {instead}"
    if model.guidance and not (model.conditional and model.label_dropout):
        return "guidance: it needs conditional=true and label_dropout > 0; set both, or use guidance=0"
    if model.levels and hasattr(model, "vqvae"):
        return "levels: features have no grey levels; use levels=0"
    if model.levels and model.predict == "logits":
        return f"levels: logits predict pixels without the noise of the levels; use {instead}, or levels=0"
    if model.levels == 1:
        return ONE_LEVEL


def ebm(model):
    if model.sigma_max <= model.sigma_min:
        return f"sigma_max: expected more than sigma_min={model.sigma_min:g}, got {model.sigma_max:g}"
    if model.objective == "contrastive" and model.n_chains < model.batch:
        return f"n_chains: an update continues batch={model.batch} chains; use n_chains={model.batch} or more"


def flow(model):
    if model.levels == 1:
        return ONE_LEVEL
    if not model.hidden:
        return "hidden: the network of a layer needs a hidden layer; use hidden=64,64"
    if model.transform == "spline" and model.n_bins > 500:
        return "n_bins: each bin takes at least 1/1000 of the interval; use 500 or fewer"


def flow_matching(model):
    if model.pairing == "optimal" and model.conditional:
        return (
            "pairing: optimal would make the noise depend on the label; with conditional=true use pairing=independent"
        )
    return denoising(model, "predict=velocity")


def gan(model):
    if model.batch % model.pack:
        return f"pack: batch={model.batch} must be a multiple of pack={model.pack}"


def in_features(model):
    return same_pictures(model, "vqvae")


def pix2pix(model):
    if model.side**2 != model.n_features:
        return f"n_features: expected a square number, because the pictures must be square, got {model.n_features}"
    if model.side % model.scale:
        return f"factor: expected a divisor of the side of {model.side} pixels, got {model.factor}"


def reflow(model):
    if hasattr(model.flow, "vqvae"):
        return f"flow: expected a flow of examples, got a {type(model.flow).__name__}, which is one of features"
    return same_pictures(model, "flow")


def vae(model):
    if model.bound == "iwae" and model.beta != 1:
        return f"beta: {model.beta:g} is for bound=elbo, where it weighs the KL; bound=iwae needs beta=1"
    if model.binarize and model.likelihood != "bernoulli":
        return "binarize: black-and-white pixels need likelihood=bernoulli"


def same_pictures(model, part):
    """A line if the model inside another one takes pictures of another size."""
    theirs, ours = getattr(model, part).n_features, model.n_features
    if theirs != ours:
        size = f"it takes pictures of {theirs} numbers, but this model's pictures have {ours}"
        return f"{part}: {size}; give one that was trained on the same data"


SETTINGS = {
    "code_prior": code_prior,
    "conditional_gan": conditional_gan,
    "dbn": dbn,
    "ddpm": ddpm,
    "ebm": ebm,
    "flow": flow,
    "flow_matching": flow_matching,
    "gan": gan,
    "latent_diffusion": in_features,
    "latent_flow": in_features,
    "pix2pix": pix2pix,
    "reflow": reflow,
    "vae": vae,
}


# ---- data: x (N, n_features) and labels (N,) or None, on the host ----


def conditional_gan_data(model, x, labels):
    wanted = {"label": (len(x),), "vector": (len(x), model.n_classes)}[model.condition]
    if labels is not None and labels.shape != wanted:
        needs = f"condition={model.condition} needs labels of shape {wanted}, but these have shape {labels.shape}"
        return f"{needs}; use --set condition=label for classes, condition=vector for rows of n_classes numbers"


def conditional_data(model, x, labels):
    if model.conditional and labels is None:
        return "conditional=true needs labels, also for the test data, and this data has none; use conditional=false"


def denoising_data(model, x, labels):
    if line := conditional_data(model, x, labels):
        return line
    if model.levels and not are_levels(x, model.levels):
        return f"levels={model.levels} needs pixels 0, 1/{model.levels - 1}, ... 1; use as many levels as the data has"


def are_levels(x, levels):
    """Whether all numbers of x are pixels of so many grey levels: 0, 1/(levels - 1), ... 1."""
    k = (levels - 1) * x
    return x.min() >= 0 and x.max() <= 1 and abs(k - k.round()).max() < 1e-3


def levels_of(x):
    """The number of grey levels of pixels x, if it is one of the usual ones; otherwise 0."""
    return next((L for L in (2, 17, 256) if are_levels(x, L)), 0)


def flow_data(model, x, labels):
    if not model.levels and (found := levels_of(x)):
        return f"pixels of {found} grey levels have no density without noise: use --set levels={found}"
    return denoising_data(model, x, labels)


def gmm_data(model, x, labels):
    if max(x.max(), -x.min()) > 1e15:
        return "numbers beyond 1e15 have squares too large for float32: divide the data by its standard deviation"


def made_data(model, x, labels):
    low, high, whole = x.min(), x.max(), (x == x.round()).all()
    if low >= 0 and high < model.n_values and (whole if model.tokens else high <= 1):
        return None
    wanted = f"whole numbers 0 ... {model.n_values - 1}" if model.tokens else "pixels in [0, 1]"
    remedy = "make them whole numbers 0 ... K - 1 and use --set n_values=K"
    if low >= 0 and (whole or high <= 1):
        remedy = f"use --set n_values={max(3, int(high) + 1) if whole else 2}"
    return f"n_values={model.n_values} needs {wanted}, but this data ranges from {low:g} to {high:g}; {remedy}"


DATA = {
    "conditional_gan": conditional_gan_data,
    "ddpm": denoising_data,
    "flow": flow_data,
    "flow_matching": denoising_data,
    "gmm": gmm_data,
    "made": made_data,
    "masked_diffusion": made_data,
    "vae": conditional_data,
}


# ---- the --set with which a model takes any numbers and makes such, if its present settings allow only pixels ----

ANY_NUMBERS = {
    "autoencoder": "likelihood=squares",
    "code_prior": "vqvae.output=linear",
    "conditional_gan": "output=linear",
    "ddpm": "scaling=standard predict=v",
    "ebm": "scaling=standard",
    "flow": "levels=0",
    "flow_matching": "scaling=standard predict=velocity",
    "gan": "output=linear",
    "reflow": "flow.scaling=standard flow.predict=velocity",
    "vae": "likelihood=gaussian draw_x=true",
    "vqvae": "output=linear",
    "wgan": "output=linear",
}
