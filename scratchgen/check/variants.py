"""Settings with which each model is checked, in addition to those of its example. They cover every choice of a setting.

selfcheck.py checks the gradients of all of them. The tests also run them on other devices, resume them and record them.
"""

VARIANTS = {
    "autoencoder": (
        {},
        {"likelihood": "bernoulli", "noise": 0.3, "mask": 0.2},
        {"activation": "silu", "init": "glorot"},
    ),
    "classifier": ({}, {"hidden": (7, 5), "dropout": 0.3, "decay_steps": 3}),
    "code_prior": (
        {},
        {"prior": "masked", "hidden": (7, 5), "averaging": 0.0, "n_steps": 2},
        {"hidden": (), "decay_steps": 3},
    ),
    "conditional_gan": (
        {},
        {"condition": "vector", "adversarial_loss": "hinge", "r1": 0.0, "dropout": 0.0, "d_steps": 2, "averaging": 0.0},
        {"adversarial_loss": "least_squares", "output": "linear", "decay_steps": 3},
        {"adversarial_loss": "wasserstein"},
        {"adversarial_loss": "minimax"},
    ),
    "dbn": ({}, {"n_hidden": 4, "persistent": False, "gibbs_steps": 2, "weight_decay": 0.1, "decay_steps": 3}),
    "ddpm": (
        {},
        {"predict": "v", "scaling": "standard", "schedule": "linear", "sampler": "ancestral", "decay_steps": 3},
        {
            "predict": "eps",
            "scaling": "standard",
            "sampler": "ancestral",
            "ancestral_variance": "beta",
            "clip_x0": False,
            "averaging": 0.0,
        },
        {"predict": "x0", "conditional": True, "guidance": 1.5, "eta": 0.5, "n_steps": 3, "levels": 4},
        {"self_conditioning": True, "conditional": True},
    ),
    "ebm": (
        {},
        {"dual": 0.7, "scaling": "standard", "activation": "tanh", "decay_steps": 3},
        {"dual": 0.0, "averaging": 0.0},
        {"objective": "contrastive", "restart": 0.3, "averaging": 0.0},
        {"objective": "contrastive", "r1": 0.5, "scaling": "standard", "activation": "softplus"},
    ),
    "flow": (
        {},
        {"transform": "spline", "order": "random", "levels": 4, "decay_steps": 3},
        {"conditioner": "autoregressive", "conditional": True, "averaging": 0.0},
        {"conditional": True, "levels": 4, "max_norm": 0.5},
        {"conditioner": "autoregressive", "transform": "spline"},
    ),
    "flow_matching": (
        {},
        {"predict": "velocity", "scaling": "standard", "time_law": "uniform", "pairing": "optimal", "decay_steps": 3},
        {"predict": "velocity", "levels": 4, "solver": "euler", "noise": 0.5, "averaging": 0.0},
        {"predict": "x0", "conditional": True, "guidance": 1.5, "solver": "rk4", "n_steps": 2},
    ),
    "gan": (
        {},
        {"adversarial_loss": "minimax", "optimizer": "sgd", "d_steps": 2, "dropout": 0.3, "r1": 0.0},
        {
            "adversarial_loss": "least_squares",
            "output": "linear",
            "pack": 2,
            "noise": 0.2,
            "spared": 0.5,
            "label_noise": 0.3,
            "label_smoothing": 0.1,
        },
        {"adversarial_loss": "hinge", "g_steps": 2, "decay_steps": 3, "noise": 0.1, "noise_steps": 5},
        {"adversarial_loss": "wasserstein", "averaging": 0.0},
    ),
    "gmm": ({}, {"covariance": "diagonal", "n_init": 2}, {"covariance": "spherical"}, {"by": "gradient"}),
    "gsn": (
        {},
        {
            "corruption": "mask",
            "walk_steps": 1,
            "samples_per_chain": 2,
            "activation": "tanh",
            "decay_steps": 3,
            "averaging": 0.0,
        },
        {"activation": "sigmoid"},
    ),
    "latent_diffusion": (
        {},
        {"predict": "eps", "conditional": True, "guidance": 1.0, "sampler": "ancestral"},
        {"predict": "x0", "schedule": "linear", "sampler": "ancestral", "ancestral_variance": "beta"},
    ),
    "latent_flow": (
        {},
        {"conditional": True, "guidance": 1.0, "solver": "rk4", "time_law": "uniform"},
        {"pairing": "optimal", "solver": "euler"},
        {"predict": "x0", "n_steps": 1},
    ),
    "made": (
        {},
        {"hidden": (7, 5), "order": "agnostic", "averaging": 0.0},
        {"n_values": 3, "direct": False, "decay_steps": 3},
        {"n_values": 4, "hidden": (), "order": "agnostic", "n_orders": 2},
    ),
    "masked_diffusion": (
        {},
        {"n_values": 4, "hidden": (7, 5), "decay_steps": 3, "n_steps": 2},
        {"n_values": 3, "hidden": (), "order": "confidence", "averaging": 0.0},
    ),
    "pix2pix": (
        {},
        {
            "condition": "low_resolution",
            "output": "residual",
            "error": "squares",
            "dropout": 0.3,
            "adversarial_loss": "hinge",
        },
        {"adversarial_loss": "wasserstein", "output": "linear", "averaging": 0.0},
        {"condition": "low_resolution", "adversarial_loss": "least_squares", "d_steps": 2, "r1": 0.0, "decay_steps": 3},
        {"adversarial_loss": "minimax"},
    ),
    "rbm": ({}, {"persistent": False, "gibbs_steps": 2, "weight_decay": 0.1, "decay_steps": 3}),
    "reflow": (
        {},
        {"predict": "velocity", "scaling": "standard", "conditional": True, "time_law": "logit_normal"},
        {"predict": "x0", "levels": 4, "solver": "heun", "n_steps": 3},
        {"predict": "velocity", "scaling": "standard", "solver": "rk4"},
    ),
    "vae": (
        {},
        {
            "likelihood": "gaussian",
            "variance": 0.3,
            "draw_x": True,
            "beta": 2.0,
            "activation": "tanh",
            "n_samples": 3,
        },
        {"bound": "iwae", "n_samples": 4, "binarize": True, "decay_steps": 3},
        {"bound": "iwae", "n_samples": 2, "likelihood": "gaussian", "activation": "tanh"},
        {"activation": "elu", "init": "he"},
        {"conditional": True, "n_samples": 2},
        {"conditional": True, "bound": "iwae", "n_samples": 2},
    ),
    "vqgan": (
        {},
        {
            "adversarial_loss": "non_saturating",
            "codebook": "gradient",
            "r1": 0.0,
            "adversarial_weight": 0.5,
            "decay_steps": 5,
        },
        {"output": "linear", "restart_every": 0, "hidden": ()},
    ),
    "vqvae": (
        {},
        {"codebook": "gradient", "restart_every": 2, "activation": "tanh"},
        {"output": "linear", "restart_every": 0, "decay_steps": 3, "hidden": ()},
        {"activation": "gelu", "init": "orthogonal"},
    ),
    "wgan": (
        {},
        {"one_sided": True, "activation_D": "tanh", "d_steps": 2, "lam": 1.0, "output": "linear"},
        {"constraint": "clip", "optimizer": "rmsprop", "d_steps": 2, "clip": 0.1, "decay_steps": 3},
        {"activation_D": "softplus", "d_steps": 1, "averaging": 0.0},
    ),
}


def variants(name):
    """The variants of the model of this name: a tuple of dicts of settings."""
    return VARIANTS.get(name, ({},))
