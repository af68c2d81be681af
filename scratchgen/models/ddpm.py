"""The diffusion model: a network learns to remove noise; to sample, it starts from noise and removes it step by step.

    x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε,   t uniform on 1 ... T,   ε ~ N(0, I);      minimise E‖target - f(x_t, t)‖²

Ho et al. 2020 (DDPM), eq 14, where the target is ε. parts/diffusion.py has the schedules ᾱ and the samplers. A sampler needs
x̂_0, the network's estimate of the data. The setting `predict` chooses what f is, and x̂_0 is computed from f:

    eps     f = ε̂             x̂_0 = (x_t - √(1 - ᾱ) f) / √ᾱ      an error in f grows by 1/√ᾱ, without bound at t = T
    v       f = v̂             x̂_0 = √ᾱ x_t - √(1 - ᾱ) f          v = √ᾱ ε - √(1 - ᾱ) x_0 (Salimans & Ho 2022, appendix D)
    x0      f = x̂_0
    logits  σ(f) = pixels     x̂_0 = 2 σ(f) - 1                    by Bernoulli cross-entropy, whose best σ(f) is E[x | x_t]

To predict ε or v, the network must reproduce the noise of every pixel, which needs a width of at least the number of pixels.
A narrower network can still predict a picture: so use logits for pixels, and v for points.

With `self_conditioning` (Chen et al. 2023, section 3.2) the network also takes its last guess of the data: f(x_t, g, t).
Here g is x̂_0 of the step before, at first 0. It need not find each stroke again in every step, so fewer strokes break. In
training g is 0 for half of the rows. For the others it is the x̂_0 that the network finds with g = 0, as a constant.

With labels the model learns p(x | label). Some labels are withheld, so it also learns p(x). Guidance (Ho & Salimans 2022,
eq 6) then extrapolates: it starts at the prediction without the label and goes past the prediction with it. In the first
steps guidance takes variety away, so they may do without it (`guidance_start`; Kynkäänniemi et al. 2024).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..backend import UsageError, array_module, stop
from ..nn.activations import sigmoid
from ..nn.losses import bernoulli_nll, squared_error
from .parts.denoising import Denoising, standard_normal
from .parts.diffusion import SCHEDULES, VARIANCES, alpha_bars, ancestral, ddim
from .parts.ode import even_times
from .parts.predictions import combined, pair
from .settings import Count, Share

SMALL = 0.1  # up to about this noise the steps of the ODE are equal, then they grow in proportion to the noise


@dataclass(eq=False)
class DDPM(Denoising):
    """The settings come first, then the model. Shapes: x, x_0, x_t (B, n_features), t and labels (B,).

    parts/denoising.py has what it shares with flow matching: the network, labels, averaged weights.
    """

    n_times: Count = 200  # T, the number of noise levels
    schedule: Literal[SCHEDULES] = "cosine"  # how fast the noise grows with t; see models/parts/diffusion.py
    predict: Literal["eps", "v", "x0", "logits"] = "logits"  # what the network predicts; see the top of models/ddpm.py
    sampler: Literal["ddim", "ancestral"] = "ddim"  # ancestral visits every t; ddim takes n_steps jumps
    eta: Share = 0.0  # η of ddim: 0 adds no noise while sampling, 1 adds the most
    ancestral_variance: Literal[VARIANCES] = "beta_tilde"  # variance of the noise that ancestral adds
    clip_x0: bool = True  # keep x̂_0 within the range of the data
    self_conditioning: bool = False  # whether the network also takes its last guess of the data; see models/ddpm.py

    sampler_settings = frozenset(
        {"sampler", "n_steps", "eta", "ancestral_variance", "guidance", "guidance_start", "clip_x0"}
    )
    tiny = {"n_features": 6, "n_classes": 3, "n_times": 20, "width": 5, "n_waves": 4, "batch": 4, "n_steps": 4}

    @property
    def uses_stop(self):
        return self.self_conditioning

    @property
    def n_seen(self):
        return (2 if self.self_conditioning else 1) * self.n_diffused

    def build(self, rng):
        super().build(rng)
        self.alpha_bar = alpha_bars(self.schedule, self.n_times)  # (T + 1,) on the host, used by the samplers
        tables = np.sqrt(self.alpha_bar), np.sqrt(1 - self.alpha_bar)
        self.signal, self.noise = (rng.array(table).real for table in tables)  # √ᾱ, √(1 - ᾱ) on the device, to make x_t
        return self

    # Training.

    def q_sample(self, x_0, t, eps):
        """x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε. Times t (B,) are integers from 0 to T, one for each row of x_0 and eps (B, n)."""
        signal, noise = self.shares(t)
        return signal * x_0 + noise * eps

    def shares(self, t):
        """√ᾱ_t and √(1 - ᾱ_t): two floats for a time t, an int, or two columns (B, 1) for times t (B,)."""
        if isinstance(t, int):
            return math.sqrt(self.alpha_bar[t]), math.sqrt(1 - self.alpha_bar[t])
        return self.signal[t][:, None], self.noise[t][:, None]

    def predicted(self, x, labels, rng):
        """(loss, its gradient in the network's output, the network's backward), with a random time for each row of x."""
        x_0 = self.scaled(x, rng)  # (B, n_diffused)
        t = 1 + rng.integers(self.n_times, len(x))
        eps = rng.normal(x_0.shape)
        x_t = self.q_sample(x_0, t, eps)
        labels = self.drop_labels(labels, rng)
        seen = self.seen(x_t, self.first_guesses(x_t, t, labels) if self.self_conditioning else None)
        f, back_denoiser = self.denoiser.forward((seen, t, *labels), rng)
        if self.predict == "logits":
            return *bernoulli_nll(f, x), back_denoiser
        target = combined(self.predict, x_0, eps, *self.shares(t))
        return *squared_error(f, target), back_denoiser

    def seen(self, x_t, guess=None):
        """What the network takes beside t and the label: x_t, and with self_conditioning also a guess of x_0, at first 0."""
        if not self.self_conditioning:
            return x_t
        xp = array_module(x_t)
        return xp.concatenate([x_t, xp.zeros_like(x_t) if guess is None else guess], axis=1)

    def first_guesses(self, x_t, t, labels):
        """Guesses for training (B, n_diffused): x̂_0 for the first half of the rows, by a pass without a guess, then 0."""
        half, guesses = slice((len(x_t) + 1) // 2), array_module(x_t).zeros_like(x_t)
        x_t, t, labels = x_t[half], t[half], [label[half] for label in labels]
        f = self.denoiser((self.seen(x_t), t, *labels))
        guesses[half] = stop(self.x_0(f, x_t, t))
        return guesses

    # Using the trained model.

    def denoise(self, x_t, t, labels=None, guidance=0.0, clip_x0=True, guess=None):
        """x̂_0 (n, n_diffused) from x_t at time t, an int, by the averaged weights. With labels (n,), guidance is applied.

        guess: with self_conditioning, the x̂_0 of the step before.
        """
        now, seen = array_module(x_t).full(len(x_t), t), self.seen(x_t, guess)

        def predict(*given):
            return self.x_0(self.denoiser((seen, now, *given)), x_t, t)

        with self.average.swapped():
            x_0 = self.guided(predict, x_t, labels, guidance)
        return self.scaler.clip(x_0) if clip_x0 else x_0

    def x_0(self, f, x_t, t):
        """x̂_0 from the network's output f at time t or times t (B,), by the formula at the top of this file."""
        return 2 * sigmoid(f) - 1 if self.predict == "logits" else pair(self.predict, f, x_t, *self.shares(t))[0]

    def denoise_in_turn(self, labels, guidance, guidance_start, clip_x0):
        """The function (x_t, t) -> x̂_0 that a sampler calls in each step. With self_conditioning it keeps its last guess."""
        guess = None

        def denoise(x_t, t):
            nonlocal guess
            w = guidance if t <= (1 - guidance_start) * self.n_times else 0.0
            guess = self.denoise(x_t, t, labels, w, clip_x0, guess)
            return guess

        return denoise

    def ode(self, n_steps, labels=None):
        """(u, times, log_p) of the probability-flow ODE dx̄/ds = ε̂, x̄ = x/√ᾱ, from the data, s = 0, to the noise of t = T.

        s = √((1 - ᾱ)/ᾱ) is the noise in x̄ (Song et al. 2021, DDIM, eq 14). A jump of ddim with η = 0 is a step of Euler's
        method from one s to a smaller one. But s may end at thousands. So the times here are τ, with s = SMALL sinh τ and
        u = dx̄/dτ = √(SMALL² + s²) ε̂: steps are small near the data, and grow with s near the noise. Between two whole t,
        log ᾱ is interpolated. With self_conditioning the network gets no guess here. Raises UsageError if it predicts the
        data: then ε̂ has no value at s = 0.
        """
        if self.predict not in ("eps", "v"):
            raise UsageError(f"predict={self.predict} gives no density of x: train with predict=v")
        log_alpha_bar, whole = np.log(self.alpha_bar), np.arange(self.n_times + 1)

        def u(x, tau):
            s = SMALL * math.sinh(tau)
            t = float(np.interp(math.log1p(s * s), -log_alpha_bar, whole))
            signal = 1 / math.sqrt(1 + s * s)
            now, x_t = array_module(x).full(len(x), t, x.real.dtype), signal * x

            def predict(*given):
                return pair(self.predict, self.denoiser((self.seen(x_t), now, *given)), x_t, signal, s * signal)[1]

            with self.average.swapped():
                return math.hypot(SMALL, s) * self.guided(predict, x_t, labels, 0.0)

        def log_p(x):  # x_T = √ᾱ_T x̄ ~ N(0, I)
            last = 0.5 * float(log_alpha_bar[-1])  # log √ᾱ_T
            return standard_normal(math.exp(last) * x) + last * x.shape[1]

        end = math.asinh(math.sqrt(math.expm1(-log_alpha_bar[-1])) / SMALL)
        return u, even_times(0.0, end, n_steps), log_p

    def path(self, x_T, rng, labels=None, **options):
        """Yields (t, x_t) from T down to 0, starting at noise x_T. x_t (n, n_diffused) is scaled as x_0 is; labels (n,).

        options: those in sampler_settings replace the settings with these names.
        Raises UsageError if the value of an option is not allowed. Raises ValueError for an unknown option, for labels if
        the model was trained without them, and if the number of labels is not n.
        """
        chosen = self.chosen(options)
        self.check_labels(labels, x_T=x_T)
        denoise = self.denoise_in_turn(labels, chosen["guidance"], chosen["guidance_start"], chosen["clip_x0"])
        if chosen["sampler"] == "ancestral":
            return ancestral(denoise, x_T, self.alpha_bar, rng, chosen["ancestral_variance"])
        return ddim(denoise, x_T, self.alpha_bar, rng, chosen["n_steps"], chosen["eta"])
