# %% [markdown]
# # A layer, its gradient, and how to check it
#
# A layer is a formula and the gradient of that formula, written by hand. Here is the whole of `Linear`, from
# `scratchgen/nn/layers.py`. `forward` returns y, and a function that computes the gradients when it is given dy, the
# gradient of some loss in y.

# %%
# %matplotlib inline
import numpy as np

from scratchgen import Layer, Parameters, Rng, Sequential, Weight, check_layer
from scratchgen.nn.layer import operation
from scratchgen.nn.layers import check_width, he, pytorch, zeros
from scratchgen.plots import new_figure, show_curves


# %%
# source: nn.layers:Linear

# %% [markdown]
# The three formulas in its docstring come from one rule. A small change of the loss is Σ dy · (change of y). For y = x W +
# b the change of y is δx W + x δW + δb. Collect what stands beside δW, δb and δx:
#
#     Σ dy · (x δW) = Σ (xᵀ dy) · δW          so dW = xᵀ dy
#     Σ dy · δb     = Σ (Σ_batch dy) · δb     so db = Σ_batch dy
#     Σ dy · (δx W) = Σ (dy Wᵀ) · δx          so dx = dy Wᵀ
#
# Try it. A layer gets its weights, and room for their gradients, from `Parameters`.

# %%
linear = Linear(3, 2)
params = Parameters(Rng(0, "float64"), linear=linear)
x = Rng(1, "float64").normal((4, 3))  # four examples of three numbers
y, backward = linear.forward(x, None)
dy = np.ones_like(y)
print("y ", y.shape, " dx", backward(dy).shape, " dW", linear.dW.shape, " db", linear.db)

# %% [markdown]
# ## The check
#
# `check_layer` compares each of these gradients with the derivative of the forward pass itself.

# %%
print(check_layer(Linear(3, 2), (4, 3)))

# %% [markdown]
# How can a measured derivative be right to sixteen digits? A difference quotient (f(x + h) - f(x - h)) / 2h is not: if h is
# large, the formula is wrong, and if h is small, f(x + h) and f(x - h) agree in most of their digits, which then cancel.
# The **complex step** takes no difference. It goes into the imaginary direction, where f(x + ih) = f(x) + ih f′(x) + ...,
# so that f′(x) = Im f(x + ih) / h. Nothing cancels, and h may be 1e-30.


# %%
def loss(w):
    """Σ dy · y with w in place of W[0, 0]. A complex w makes the whole pass complex."""
    W = linear.W.astype(complex if np.iscomplexobj(w) else float)
    W[0, 0] = w
    return (dy * np.tanh(x @ W + linear.b)).sum()


w = float(linear.W[0, 0])
exact = ((1 - np.tanh(y) ** 2) * dy)[:, 0] @ x[:, 0]  # the chain rule, by hand
steps = 10.0 ** np.arange(-16, 0, 0.25)
central = [abs((loss(w + h) - loss(w - h)) / (2 * h) - exact) + 1e-17 for h in steps]
complex_step = [abs(loss(w + 1j * h).imag / h - exact) + 1e-17 for h in steps]
figure, axes = new_figure(6.5, 3.4)
show_curves(
    axes[0, 0], steps, {"central difference": central, "complex step": complex_step}, "error of a derivative", "h"
)
axes[0, 0].set(xscale="log", yscale="log")
figure

# %% [markdown]
# The central difference is never better than 1e-11 here, and that only for the best h. The complex step is exact for every
# h below 1e-8. A wrong gradient of 1 part in a million cannot hide from it.
#
# ## Break it
#
# A common mistake: the gradient of b is averaged over the batch, not summed.


# %%
class Mistaken(Linear):
    def forward(self, x, rng):
        y, right = super().forward(x, rng)

        def backward(dy, learn=True, inputs=True):
            before = self.db.copy()
            dx = right(dy, learn, inputs)
            self.db[...] = before + dy.mean(axis=0)
            return dx

        return y, backward


print(check_layer(Mistaken(3, 2), (4, 3)))

# %% [markdown]
# The report says which gradient is wrong, where, and by which factor.
#
# ## A layer of your own
#
# Here is a layer with a weight of its own: y = x · s, with one factor s for each feature. The formula gives ds = Σ_batch x
# · dy and dx = dy · s. Change a line, and see what the check says.


# %%
class Scale(Layer):
    """y = x s.      ds = Σ_batch x dy,   dx = s dy"""

    def __init__(self, n):
        self.s = Weight((n,), he)

    def forward(self, x, rng):  # x (B, n)
        y = x * self.s

        def backward(dy, learn=True, inputs=True):  # dy (B, n)
            if learn:
                self.ds += (x * dy).sum(axis=0)
            if inputs:
                return self.s * dy  # dx (B, n)

        return y, backward


print(check_layer(Scale(3), (4, 3)))

# %% [markdown]
# ## Layers that follow each other
#
# A network calls its layers one after the other, and their backward functions in reverse order. That is all that
# backpropagation is. Here a network learns sin x: the loss is the squared error, its gradient in y is 2 (y - sin x) / B,
# and Adam makes the steps.

# %%
from scratchgen.nn.activations import Tanh
from scratchgen.nn.optim import Adam

network = Sequential(Linear(1, 32), Tanh(), Linear(32, 32), Tanh(), Linear(32, 1))
params = Parameters(Rng(0), network=network)
adam = Adam(params, 1e-2)
rng = Rng(1)
for _ in range(1_000):
    x = 2 * np.pi * (2 * rng.uniform((64, 1)) - 1)
    params.zero_grad()
    y, backward = network.forward(x, rng)
    backward(2 * (y - np.sin(x)) / len(x), inputs=False)
    adam.step()

x = np.linspace(-3 * np.pi, 3 * np.pi, 400, dtype=np.float32)[:, None]
figure, axes = new_figure(6.5, 3)
axes[0, 0].axvspan(-2 * np.pi, 2 * np.pi, color="0.94")
show_curves(
    axes[0, 0],
    x[:, 0],
    {"network": network(x)[:, 0], "sin x": np.sin(x[:, 0])},
    "the network saw x of the grey part only",
    "x",
)
figure

# %% [markdown]
# Inside the grey part, where it had examples, the network is right. Outside, nothing told it what to do.
#
# Next: `vae.ipynb`. More to write and check: `scratchgen exercise`.
