# %% [markdown]
# # A variational autoencoder
#
# An encoder turns a picture x into a few numbers z, the code. A decoder turns z into a picture again. If codes look like
# draws from N(0, I), then a draw from N(0, I) can be decoded to a new picture. Kingma & Welling 2013.
#
#     encoder   q(z|x) = N(μ(x), diag σ²(x))          decoder   p(x|z)          prior   p(z) = N(0, I)
#     minimise  -E_q[log p(x|z)] + KL(q(z|x) ‖ p(z))      a bound on -log p(x)
#
# The first term wants the picture back. The second term keeps every q(z|x) near N(0, I).

# %%
# %matplotlib inline
import numpy as np

from scratchgen import Rng, check_loss, fit, gradcheck, load
from scratchgen.models.vae import VAE
from scratchgen.plots import new_figure, show_curves, show_images, show_points

data = load("digits")  # 8 × 8 pixels, bundled
figure, axes = new_figure(6, 2)
show_images(axes[0, 0], data.x_train[:30], data.shape, 15, "training pictures", pixels=40)
figure

# %% [markdown]
# ## One step, written out
#
# This is the loss with its gradient, from `scratchgen/models/vae.py`. The forward pass comes first. Then the backward
# functions are called in reverse order.
#
# source: models.vae:VAE.loss
#
# Two pieces are worth a look. The **reparameterization** z = μ + σ ε makes the draw of z a formula, so that a gradient
# passes through it. And the **KL** has a gradient of its own, with no draw at all:
#
# source: nn.losses:kl_standard_normal
#
# Both are checked like every other gradient. Here the KL alone, and then the loss of a small model as a whole, with its
# encoder, its draw and its decoder:

# %%
from scratchgen.nn.losses import kl_standard_normal

h = Rng(0, "float64").normal((4, 6))
print(check_loss(kl_standard_normal, h[:, :3], h[:, 3:]))
model, batch = VAE.example(Rng(0, "float64"))
print(gradcheck(lambda: model.loss(**batch, rng=Rng(1, "float64"))["loss"], model.params))

# %% [markdown]
# ## Training
#
# Two numbers for each code, so that all codes can be drawn.

# %%
model = VAE(n_features=64, hidden=(256, 128), n_latent=2, batch=50).build(Rng(0))
history = fit(model, data.x_train, x_test=data.x_test, epochs=100, progress=False)
epochs = [row["epoch"] for row in history]
curves = {
    "-ELBO, training": [row["loss"] for row in history],
    "-ELBO, test": [row["test_negative_elbo"] for row in history],
}
figure, axes = new_figure(9.5, 3, 1, 2)
show_curves(axes[0, 0], epochs, curves, "both terms", "epoch", "nats")
terms = {"-log p(x|z)": [row["nll"] for row in history], "KL": [row["kl"] for row in history]}
show_curves(axes[0, 1], epochs, terms, "each term", "epoch", "nats")
figure

# %% [markdown]
# ## Where the digits are
#
# Left: the mean code of each test digit. Nobody told the model which digit is which. Right: what the decoder draws at each
# place of the plane.

# %%
mu, log_var = model.encode(data.x_test)
figure, axes = new_figure(9.5, 4.6, 1, 2)
show_points(axes[0, 0], mu, data.labels_test, "codes of test digits", names=("z₁", "z₂"))
side = np.linspace(2.2, -2.2, 13, dtype=np.float32)
places = np.stack(np.meshgrid(-side, side), axis=2).reshape(-1, 2)
show_images(axes[0, 1], model.decode(places), data.shape, len(side), "decoded from there")
figure

# %% [markdown]
# ## New pictures
#
# With eight numbers for each code. Draw z from N(0, I), decode it, and that is all.

# %%
model = VAE(n_features=64, hidden=(256, 128), n_latent=8, batch=50).build(Rng(0))
fit(model, data.x_train, epochs=200, progress=False)
figure, axes = new_figure(9.5, 2.6, 1, 2)
show_images(axes[0, 0], model.sample(50, model.rng(1)), data.shape, 10, "samples", pixels=40)
x = data.x_test[:25]
both = np.concatenate([x.reshape(5, 5, -1), model.reconstruct(x).reshape(5, 5, -1)], axis=1).reshape(50, -1)
show_images(axes[0, 1], both, data.shape, 10, "test digits (left half) and restored (right half)", pixels=40)
figure

# %% [markdown]
# ## Without the KL
#
# With beta = 0 nothing keeps the codes near N(0, I). The encoder spreads them out, as a plain autoencoder does. Pictures
# are restored a little better, and samples are no digits, because N(0, I) is not where the codes are. The training notices:
# the first line below is a warning of `scratchgen/train/doctor.py`.

# %%
plain = VAE(n_features=64, hidden=(256, 128), n_latent=8, batch=50, beta=0).build(Rng(0))
fit(plain, data.x_train, epochs=200, progress=False)
print("spread of the codes:", *(f"{m.encode(data.x_test)[0].std():.1f}" for m in (model, plain)), "(with KL, without)")
figure, axes = new_figure(5, 2.6)
show_images(axes[0, 0], plain.sample(50, plain.rng(1)), data.shape, 10, "samples without the KL", pixels=40)
figure

# %% [markdown]
# Next: `diffusion_and_flow.ipynb`. To watch every number of one step: `scratchgen explain vae`.
