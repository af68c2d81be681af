"""Reflow: a second flow learns from pairs that a first flow has connected, and its paths are nearly straight.

    ε ~ N(0, I),   x = the end of the first flow's path from ε;      then as in flow_matching.py, on these pairs

Liu et al. 2023, section 2.2. In flow matching any noise is paired with any example. So the lines cross, and paths that
follow their mean velocity bend. Here each pair is connected by a path of the first flow, and such paths never cross. So the
lines between the pairs hardly cross, the mean velocity hardly changes along a path, and one step of Euler's method goes
nearly all the way. The price: this flow also learns what the first one does wrong.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from ..backend import UsageError, array_module
from .flow_matching import FlowMatching
from .parts.ode import SOLVERS
from .settings import Count

# Settings that are taken from the first flow.
SHARED = ("n_classes", "conditional", "scaling", "levels", "width", "n_blocks", "n_waves", "predict")
ROWS = 1_000  # pairs that are made at once


@dataclass(eq=False)
class Reflow(FlowMatching):
    """What differs from a FlowMatching. Its network has the size of the first flow's, and starts from its weights."""

    flow: FlowMatching = field(default_factory=FlowMatching)  # the first flow, from which width, predict, ... are taken
    n_pairs: Count = 50_000  # pairs of noise and example that the first flow makes, once
    pair_steps: Count = 50  # steps of its solver for each pair
    time_law: Literal["uniform", "logit_normal"] = "uniform"
    pairing: Literal["independent"] = "independent"  # the pairs are the first flow's
    solver: Literal[tuple(SOLVERS)] = "euler"
    n_steps: Count = 1

    tiny = FlowMatching.tiny | {"n_pairs": 12, "pair_steps": 2, "n_steps": 1}
    same_every_step = False  # the first step makes the pairs

    def check_settings(self):
        for setting in dataclasses.fields(self):
            if (name := setting.name) in SHARED:
                ours, theirs = getattr(self, name), getattr(self.flow, name)
                if ours not in (setting.default, theirs) and name != "n_classes":  # which comes from the data
                    raise UsageError(
                        f"Reflow setting {name}: {ours} is not the first flow's, {theirs}; leave it out, "
                        f"or train the flow with --set flow.{name}={ours}"
                    )
                setattr(self, name, theirs)
        super().check_settings()

    def build(self, rng):
        trained, averaged = self.flow.has_stepped(), getattr(self.flow, "average", None)
        self.trained, self.flow, self.pairs = trained, FlowMatching.copy_of(self.flow, rng), None
        if trained:
            self.flow.params.theta[...] = rng.array(averaged.average)  # the weights that sample best
        return super().build(rng)

    def prepare(self, x, rng, labels=None):
        if not self.trained:
            raise UsageError(
                "Reflow setting flow: expected a trained FlowMatching; train one first and give it as Reflow(flow=...)"
            )
        super().prepare(x, rng, labels)
        for array, theirs in zip(self.params.state().values(), self.flow.params.state().values(), strict=True):
            array[...] = theirs  # weights, and the scale of the data
        self.params.changed()
        self.average.average[...] = self.params.theta

    def load_state(self, arrays):
        super().load_state(arrays)
        self.pairs = None  # those that another first flow has made, or other threads with other last digits

    def ends(self, x, labels, rng):
        """(x_1, eps, labels) of pairs drawn from the first flow's, as many as x has rows. Nothing else of x is used."""
        if self.pairs is None:
            self.pairs = self.make_pairs()
        i = rng.integers(self.n_pairs, len(x))
        return tuple(part if part is None else part[i] for part in self.pairs)

    def make_pairs(self):
        """(x_1, eps, labels or None) of n_pairs pairs. A first flow always makes the same ones, so a run can be resumed."""
        rng, made = self.rng((0, 0, 7)), []
        self.flow.average.average[...] = self.flow.params.theta
        options = {"n_steps": self.pair_steps, "solver": "heun", "noise": 0.0}
        for start in range(0, self.n_pairs, ROWS):
            n = min(ROWS, self.n_pairs - start)
            labels = self.classes.draw(n, rng) if self.conditional else None
            eps = rng.normal((n, self.n_diffused))
            *_, (_, x_1) = self.flow.path(eps, rng, labels, **options)
            made.append((x_1, eps, labels))
        xp = array_module(eps)
        return tuple(None if parts[0] is None else xp.concatenate(parts) for parts in zip(*made))

    @classmethod
    def example(cls, rng, **settings):
        inner = {name: settings.pop(name) for name in SHARED if name in settings}
        flow, batch = FlowMatching.example(rng, **inner)
        flow.train_step(**batch, rng=rng)
        return super().example(rng, **{"flow": flow} | settings)
