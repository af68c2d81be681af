"""Flow matching: a network learns the velocity that carries noise to data, along straight lines.

    x_t = (1 - t) ε + t x,   t in [0, 1],   ε ~ N(0, I);      u = x - ε;      minimise E‖f(x_t, t) - u‖²
    to sample, start at x_0 = ε and follow dx/dt = f(x, t) until t = 1

Lipman et al. 2023, eq 23, with σ_min = 0; Liu et al. 2023 (rectified flow), eq 1. Each pair of a noise ε and an example x
has its own line, and these lines cross. But a field has one velocity at each point and time. So the best f is the mean
E[u | x_t] over all lines that pass through x_t at time t. Paths that follow the mean bend, so that they never cross. Yet at
each time they have the same distribution as the points on the lines.

A network that is too narrow to reproduce the noise of every pixel can predict the data, and then û is computed from it:

    velocity   f = û
    x0         f = x̂                         û = (x̂ - x_t) / (1 - t)
    logits     σ(f) = pixels, x̂ = 2 σ(f) - 1, by Bernoulli cross-entropy, whose best σ(f) is E[x | x_t]

parts/predictions.py has the table of all such changes. parts/ode.py has the solvers, and log p(x) by the divergence of f.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ..backend import UsageError, array_module, to_host
from ..nn.activations import sigmoid
from ..nn.losses import bernoulli_nll, squared_error
from .parts.denoising import Denoising, standard_normal
from .parts.ode import SOLVERS, even_times, solve, solve_sde
from .parts.predictions import converted
from .settings import NonNegative, Positive

TIMES = 100.0  # the network is given 100 t: the cosines and sines that encode a time are made for such numbers
LAST = 1 - 1e-3  # the last time at which x̂ gives a velocity: (x̂ - x_t) / (1 - t) has no value at t = 1


@dataclass(eq=False)
class FlowMatching(Denoising):
    """The settings come first, then the model. Shapes: x, x_t, eps (B, n_features), t and labels (B,).

    parts/denoising.py has what it shares with diffusion: the network, labels, averaged weights.
    """

    predict: Literal["velocity", "x0", "logits"] = "logits"  # what the network predicts; see models/flow_matching.py
    time_law: Literal["uniform", "logit_normal"] = "logit_normal"  # of t in training; logit_normal: σ(time_std N(0, 1))
    time_std: Positive = 1.0  # the spread of logit_normal: a small one trains mostly the middle of the way
    pairing: Literal["independent", "optimal"] = "independent"  # optimal: in a batch, noise goes to near examples
    solver: Literal[tuple(SOLVERS)] = "heun"  # a step of heun takes two velocities, one of rk4 four
    noise: NonNegative = 0.0  # η: 0 follows the ODE; more adds noise on the way, with steps of Euler–Maruyama

    sampler_settings = frozenset({"solver", "n_steps", "noise", "guidance", "guidance_start"})
    tiny = {"n_features": 6, "n_classes": 3, "width": 5, "n_waves": 4, "batch": 4, "n_steps": 4}

    @property
    def same_every_step(self):
        return self.pairing == "independent"  # optimal pairs are found on the host

    # Training.

    def predicted(self, x, labels, rng):
        """(loss, its gradient in the network's output, the network's backward), with a random time for each row of x."""
        x_1, eps, labels = self.ends(x, labels, rng)
        t = self.draw_times(len(x), rng)  # (B,)
        x_t = (1 - t)[:, None] * eps + t[:, None] * x_1
        f, back_denoiser = self.denoiser.forward((x_t, TIMES * t, *self.drop_labels(labels, rng)), rng)
        if self.predict == "logits":
            return *bernoulli_nll(f, self.scaler.undo(x_1)), back_denoiser
        return *squared_error(f, x_1 if self.predict == "x0" else x_1 - eps), back_denoiser

    def ends(self, x, labels, rng):
        """(x_1, eps, labels): data and noise (B, n_diffused), the two ends of each line, and the labels of the data."""
        x_1 = self.scaled(x, rng)
        eps = rng.normal(x_1.shape)
        if self.pairing == "optimal":  # batch by batch, also if evaluate gives all of the test data
            parts = [slice(i, i + self.batch) for i in range(0, len(x), self.batch)]
            eps = array_module(eps).concatenate([eps[part][optimal_order(x_1[part], eps[part])] for part in parts])
        return x_1, eps, labels

    def draw_times(self, n, rng):
        """Times (n,) in [0, 1] by the law of the settings. Esser et al. 2024, section 3.1, has logit_normal."""
        return rng.uniform(n) if self.time_law == "uniform" else sigmoid(self.time_std * rng.normal(n))

    # Using the trained model.

    def velocity(self, x_t, t, labels=None, guidance=0.0):
        """û (n, n_diffused) at x_t and a time t, a float, by the averaged weights. With labels (n,), guidance is applied.

        If the network predicts the data, û at t = 1 is that at the time LAST.
        """
        t = t if self.predict == "velocity" else min(t, LAST)
        now = array_module(x_t).full(len(x_t), TIMES * t, x_t.real.dtype)

        def predict(*given):
            f = self.denoiser((x_t, now, *given))
            if self.predict == "velocity":
                return f
            x_hat = f if self.predict == "x0" else 2 * sigmoid(f) - 1
            return converted("x0", x_hat, "velocity", x_t, *line(t))

        with self.average.swapped():
            return self.guided(predict, x_t, labels, guidance)

    def ode(self, n_steps, labels=None):
        """(u, times, log_p): the velocity u(x, t), times from 1, the data, to 0, the noise, and log N(x; 0, I) of the noise.

        Raises UsageError if the network predicts the data: then the velocity has no value at t = 1.
        """
        if self.predict != "velocity":
            raise UsageError(f"predict={self.predict} gives no density of x: train with predict=velocity")
        return lambda x, t: self.velocity(x, t, labels), even_times(1.0, 0.0, n_steps), standard_normal

    def path(self, eps, rng, labels=None, **options):
        """Yields (t, x_t) from t = 0 to 1, starting at noise eps. x_t (n, n_diffused) is scaled as x_1 is; labels (n,).

        options: those in sampler_settings replace the settings with these names. Raises UsageError if the value of
        an option is not allowed. Raises ValueError for an unknown option, for labels if the model was trained without them,
        and if the number of labels is not n.
        """
        chosen = self.chosen(options)
        self.check_labels(labels, eps=eps)
        times, eta = even_times(0.0, 1.0, chosen["n_steps"]), chosen["noise"]
        last = None if self.predict == "velocity" else "euler"  # it ends at x̂; u at t = 1 would magnify the errors of x̂

        def u(x, t):
            return self.velocity(x, t, labels, chosen["guidance"] if t >= chosen["guidance_start"] else 0.0)

        def u_and_score(x, t):
            velocity = u(x, t)
            return velocity, converted("velocity", velocity, "score", x, *line(t))

        def g(t):
            return math.sqrt(2 * eta * (1 - t)) if t < times[-2] else 0.0  # the last step only removes noise

        if eta == 0:
            return solve(u, eps, times, chosen["solver"], last)
        return solve_sde(u_and_score, g, eps, times, rng)


def line(t):
    """a, b, a′, b′ of the straight way x_t = a x + b ε: a = t and b = 1 - t. parts/predictions.py takes these four."""
    return t, 1 - t, 1.0, -1.0


def optimal_order(x, eps):
    """The order of eps (B, n), an index array (B,), that makes Σ ‖x - eps‖² least: each example x gets a noise near it.

    Tong et al. 2024, section 3.2. Then the lines of a batch hardly cross, and the paths of the flow are straighter. SciPy
    finds the order. Raises UsageError if SciPy is missing.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise UsageError("pairing=optimal needs SciPy: pip install scipy, or use pairing=independent") from None
    a, b = to_host(x.real), to_host(eps.real)
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return array_module(x).asarray(linear_sum_assignment(squares)[1])
