"""Reflow: a second flow learns from pairs that a first flow has connected, and its paths are nearly straight.

    ε ~ N(0, I),   x = the end of the first flow's path from ε;      then as in flow_matching.py, on these pairs

Liu et al. 2023, section 2.2. In flow matching each noise is paired with any example, so lines cross and the mean velocity
bends. The pairs of a flow come from paths that never cross. So the lines between them hardly cross, their mean velocity
hardly bends, and one step of Euler's method goes nearly all the way. The price: what the first flow gets wrong, this one
learns.
"""

from dataclasses import dataclass, field
from typing import Literal

from ..backend import UsageError, array_module
from .flow_matching import FlowMatching
from .settings import Count

SHARED = (
    "n_classes",
    "conditional",
    "scaling",
    "width",
    "n_blocks",
    "n_waves",
    "predict",
)  # settings of the first flow
ROWS = 1_000  # pairs that are made at once


@dataclass(eq=False)
class Reflow(FlowMatching):
    """What differs from a FlowMatching. Its network has the size of the first flow's, and starts from its weights."""

    flow: FlowMatching = field(default_factory=FlowMatching)  # the first flow, trained
    n_pairs: Count = 50_000  # pairs of noise and example that the first flow makes, once
    pair_steps: Count = 50  # steps of its solver for each pair
    time_law: Literal["uniform", "logit_normal"] = "uniform"
    n_steps: Count = 1

    tiny = FlowMatching.tiny | {"n_pairs": 12, "pair_steps": 2, "n_steps": 1}
    same_every_step = False  # the pairs are made in the first step

    def check_settings(self):
        for name in SHARED:
            setattr(self, name, getattr(self.flow, name))
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

    def ends(self, x, labels, rng):
        """(x_1, eps, labels) of as many pairs as x has rows, drawn from the first flow's."""
        if self.pairs is None:
            self.pairs = self.make_pairs()
        i = rng.integers(self.n_pairs, len(x))
        return tuple(part if part is None else part[i] for part in self.pairs)

    def make_pairs(self):
        """(x_1, eps, labels or None) of n_pairs pairs. They are the same for the same first flow, also after a resume."""
        rng, made = self.rng((0, 0, 7)), []
        self.flow.average.average[...] = self.flow.params.theta
        options = {"n_steps": self.pair_steps, "solver": "heun", "noise": 0.0}
        for start in range(0, self.n_pairs, ROWS):
            n = min(ROWS, self.n_pairs - start)
            labels = self.classes.draw(n, rng) if self.conditional else None
            eps = rng.normal((n, self.n_diffused))
            self.flow.classes.seen[...] = self.classes.seen
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
