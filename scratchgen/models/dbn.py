"""The deep belief network: a restricted Boltzmann machine over the hidden units of another one, which was trained before.

    p(x, h) = p(x|h) p_top(h),      p_top(h) = e^-F_top(h) / Z_top
    log p(x) >= E_q[log p(x|h) - F_top(h)] + H(q(h|x)) - log Z_top,      q(h|x) = Π_j q(h_j|x)

Hinton, Osindero & Teh 2006. The lower machine gives p(x|h) and q(h|x), and is frozen; the prior that it gives h is
replaced by the upper one, trained on h ~ q(h|x) as if that were data. With the lower W transposed the upper one starts as
the lower one seen from its other side: then both models are the same, the bound is exact, and it rises as p_top learns.
To draw an x: Gibbs sampling above, then one pass down. The slides put it among the models of tractable likelihood. It is
not: log p(x) needs a sum over all h, and Z_top as well, so what is given is a bound, by an estimate of log Z_top.
"""

from dataclasses import dataclass, field

from ..backend import UsageError, on_host
from ..nn.distributions import bernoulli_log_prob, sample_bernoulli
from .rbm import RBM


@dataclass(eq=False)
class DBN(RBM):
    """The settings, then what differs from an RBM. Shapes: x (B, n_features), h (B, rbm.n_hidden), top units (B, n_hidden).

    What an RBM does with pixels, the top does with h: loss, gibbs, free_energy, log_z and log_p are of h.
    """

    rbm: RBM = field(default_factory=RBM)  # the layer below, trained first

    def build(self, rng):
        self.trained, self.rbm = self.rbm.has_stepped(), RBM.copy_of(self.rbm, rng)
        return super().build(rng)

    @property
    def n_visible(self):
        return self.rbm.n_hidden

    def prepare(self, x, rng, labels=None):
        """As an RBM, by E[h|x]; and from the lower machine seen from its other side, if the top has as many units as x."""
        if not self.trained:
            raise UsageError("DBN setting rbm: train an RBM first, and give it as DBN(rbm=...)")
        super().prepare(self.rbm.hidden(self.rbm.visible(x, rng)), rng)
        if self.n_hidden == self.n_features:
            top, lower = self.energy, self.rbm.energy
            top.W[...], top.b[...], top.c[...] = lower.W.T, lower.c, lower.b
            self.params.changed()

    def visible(self, x, rng):
        """h ~ q(h|x) (B, rbm.n_hidden) of x (B, n_features), binarized if grey."""
        return sample_bernoulli(self.rbm.energy.up(self.rbm.visible(x, rng)), rng)

    def bound(self, x, log_z, rng, n_draws=10):
        """The bound on log p(x) in nats, (N,), its expectation by n_draws of h, of x (N, n_features) of zeros and ones.

        log_z: of the top; one estimated by metrics/annealed.py is too low on average, and raises the bound by as much.
        """
        if on_host(x) and not ((x == 0) | (x == 1)).all():
            raise ValueError("bound: x must be 0 or 1 everywhere; binarize grey pixels first")
        a, total = self.rbm.energy.up(x), 0.0  # a: logits of q(h|x)
        for _ in range(n_draws):
            h = sample_bernoulli(a, rng)
            # -log q(h|x), whose mean is H, and not H itself: most of what varies with h then cancels
            total = (
                total + bernoulli_log_prob(x, self.rbm.energy.down(h)) - bernoulli_log_prob(h, a) - self.free_energy(h)
            )
        return total * (1 / n_draws) - log_z

    def evaluate(self, x, rng, labels=None):
        """What an RBM's evaluate finds, of h ~ q(h|x): "top_reconstruction" and "top_pseudo_nll"."""
        return {f"top_{name}": value for name, value in super().evaluate(x, rng).items()}

    def sample(self, n, rng, label=None):
        """n pictures (n, n_features) of zeros and ones, from h at the ends of as many chains of n_steps steps."""
        return sample_bernoulli(self.rbm.energy.down(super().sample(n, rng)), rng)

    @classmethod
    def example(cls, rng, **settings):
        rbm, batch = RBM.example(rng, n_hidden=6)  # as many units as pixels: loss takes h, and is tried on x
        rbm.train_step(**batch, rng=rng)
        return super().example(rng, **{"rbm": rbm, "n_hidden": 6} | settings)
