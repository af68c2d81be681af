# %% [markdown]
# # Diffusion and flow matching
#
# Both carry noise to data, little by little. Both train one network, by a squared error, on points that lie between noise
# and data. They differ in the way between the two, and in what the network predicts.
#
#     diffusion       x_t = √ᾱ_t x + √(1 - ᾱ_t) ε       t = 0: data,  t = T: noise      Ho et al. 2020
#     flow matching   x_t = t x + (1 - t) ε             t = 1: data,  t = 0: noise      Lipman et al. 2023

# %%
# %matplotlib inline
import numpy as np

from scratchgen import Rng, fit, load
from scratchgen.metrics.transport import ToyJudge
from scratchgen.models.ddpm import DDPM
from scratchgen.models.flow_matching import FlowMatching
from scratchgen.plots import BLUE, GREY, new_figure, show_curves

data = load("moons")
diffusion = DDPM(n_features=2, n_times=100, predict="v", scaling="standard", width=128, n_waves=32, batch=256, lr=2e-3)
flow = FlowMatching(n_features=2, predict="velocity", scaling="standard", width=128, n_waves=32, batch=256, lr=2e-3)
for model in (diffusion, flow):
    model.build(Rng(0))
    model.prepare(data.x_train, Rng(1))  # measures the mean and the spread of the data

# %% [markdown]
# ## From data to noise
#
# This way needs no network. In diffusion the points shrink while noise is added, so that the variance stays 1. In flow
# matching each point goes along a straight line to its noise.

# %%
rng = Rng(2)
x = diffusion.scaled(data.x_train[:1_000], rng)
eps = rng.normal(x.shape)


def draw(axis, x, title):
    axis.scatter(*x.T, s=2, color=BLUE, linewidths=0)
    axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)


figure, axes = new_figure(9.5, 4.2, 2, 5)
for axis, t in zip(axes[0], (0, 25, 50, 75, 100)):
    draw(axis, diffusion.q_sample(x, np.full(len(x), t), eps), f"t = {t}")
for axis, t in zip(axes[1], (1.0, 0.75, 0.5, 0.25, 0.0)):
    draw(axis, t * x + (1 - t) * eps, f"t = {t:g}")
axes[0, 0].set_ylabel("diffusion", fontsize=10)
axes[1, 0].set_ylabel("flow matching", fontsize=10)
figure

# %% [markdown]
# ## What the network learns
#
# A random time, noise, the point between, and a squared error. This is all of it, for diffusion
# (`scratchgen/models/ddpm.py`):
#
# source: models.ddpm:DDPM.predicted
#
# and for flow matching (`scratchgen/models/flow_matching.py`), where the target is the velocity x - ε of the straight line:
#
# source: models.flow_matching:FlowMatching.predicted
#
# Many pairs of x and ε pass through the same x_t, so nobody can know which one it was. The squared error makes the network
# learn their mean. That is enough: points which follow the mean have at each time the same distribution as the points on
# the lines.

# %%
for model in (diffusion, flow):
    history = fit(model, data.x_train, epochs=200, progress=False)
    print(f"{type(model).__name__}: loss {history[0]['loss']:.2f} at first, {history[-1]['loss']:.2f} at last")

# %% [markdown]
# The losses stay far from 0. They must: the network cannot guess the noise, only its mean.
#
# ## From noise to data
#
# Start from noise, and go back in steps. Grey lines are the ways of 60 points.

# %%
rng = Rng(3)
noise = rng.normal((1_000, 2))
figure, axes = new_figure(9.5, 4.8, 1, 2)
for axis, model, title in zip(axes[0], (diffusion, flow), ("diffusion (DDIM)", "flow matching (Heun)")):
    way = np.stack([x_t for _, x_t in model.path(noise, rng, n_steps=50)])
    axis.plot(way[:, :60, 0], way[:, :60, 1], color=GREY, linewidth=0.6)
    draw(axis, way[-1], f"{title}, 50 steps")
figure

# %% [markdown]
# ## How many steps?
#
# A step costs one pass through the network, or two in Heun's method. The distance is the Wasserstein distance between
# samples and new points, divided by that of real points. So 1 is as good as real.

# %%
judge = ToyJudge(data, 2_000)
steps = [1, 2, 4, 8, 16, 32, 64]


def distances(model, **options):
    found = []
    for n_steps in steps:
        *_, (_, x_t) = model.path(Rng(4).normal((2_000, 2)), Rng(5), n_steps=n_steps, **options)
        found.append(judge.over_floor([model.unscaled(x_t)]))
    return found


curves = {"diffusion, DDIM": distances(diffusion), "flow, Euler": distances(flow, solver="euler")}
curves["flow, Heun"] = distances(flow, solver="heun")
figure, axes = new_figure(6, 3.4)
show_curves(axes[0, 0], steps, curves, "distance to new points, real points have 1", "steps")
axes[0, 0].set(xscale="log", yscale="log", xticks=steps, xticklabels=steps)
axes[0, 0].minorticks_off()
figure

# %% [markdown]
# One step is not enough for either. The ways bend, because they follow a mean. `demos/flow_reflow.py` makes them straight,
# and then one step is nearly enough. `demos/diffusion_one_idea.py` shows that noise, data, score and velocity are one idea.
