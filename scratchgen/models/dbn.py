"""The deep belief network: a restricted Boltzmann machine on top of the hidden units of another one, which is trained first.

    p(x, h) = p(x|h) p_top(h),      p_top(h) = e^-F_top(h) / Z_top
    log p(x) >= E_q[log p(x|h) - F_top(h)] + H(q(h|x)) - log Z_top,      q(h|x) = Π_j q(h_j|x)

Hinton, Osindero & Teh 2006. The lower machine is frozen and gives p(x|h) and q(h|x). It also gives a prior of h, which is
replaced by the upper machine. The upper machine is trained on h ~ q(h|x) as if h were data. If its first W is the transpose
of the lower W, it is the lower machine with its two sides exchanged. Then both models are equal and the bound is exact, and
the bound rises as p_top learns. To draw x, run Gibbs sampling in the upper machine, then one pass down. The likelihood is
not tractable, because log p(x) needs a sum over all h and also Z_top. `bound` gives a lower bound for a given log Z_top.
"""

from dataclasses import dataclass, field

from ..backend import UsageError, array_module, on_host
from ..nn.distributions import bernoulli_log_prob, sample_bernoulli
from .rbm import RBM


@dataclass(eq=False)
class DBN(RBM):
    """What differs from an RBM. Shapes: x (B, n_features), h (B, rbm.n_hidden), top units (B, n_hidden).

    The upper machine takes h where an RBM takes pixels: so loss, gibbs, free_energy, log_z and log_p are functions of h.
    """

    rbm: RBM = field(default_factory=RBM)  # the lower machine, trained first

    def build(self, rng):
        self.trained, self.rbm = self.rbm.has_stepped(), RBM.copy_of(self.rbm, rng)
        return super().build(rng)

    @property
    def n_visible(self):
        return self.rbm.n_hidden

    def prepare(self, x, rng, labels=None):
        """Start as an RBM does, with E[h|x] as data; if n_hidden = n_features, start as the lower machine, sides exchanged.

        Raises UsageError if the lower machine is not trained.
        """
        if not self.trained:
            raise UsageError("DBN setting rbm: expected a trained RBM; train an RBM first and give it as DBN(rbm=...)")
        super().prepare(self.rbm.hidden(self.rbm.visible(x, rng)), rng)
        if self.n_hidden == self.n_features:
            top, lower = self.energy, self.rbm.energy
            top.W[...], top.b[...], top.c[...] = lower.W.T, lower.c, lower.b
            self.params.changed()

    def visible(self, x, rng):
        """h ~ q(h|x), (B, rbm.n_hidden), of x (B, n_features). Grey pixels are binarized first."""
        return sample_bernoulli(self.rbm.energy.up(self.rbm.visible(x, rng)), rng)

    def bound(self, x, log_z, rng, n_draws=10):
        """The lower bound on log p(x) in nats, (N,), of x (N, n_features) of zeros and ones: the mean of bound_draws.

        log_z: log Z of the upper machine. An estimate by metrics/annealed.py is too low on average, and then the bound is
        too high by the same amount.
        """
        return self.bound_draws(x, log_z, rng, n_draws).mean(axis=0)

    def bound_draws(self, x, log_z, rng, n_draws=10):
        """log p(x|h) - F_top(h) - log q(h|x) - log Z_top for n_draws draws of h ~ q(h|x), (n_draws, N).

        Their mean estimates the bound, as -log q(h|x) has the mean H. In place of H itself it cancels most of the variation
        with h. Raises ValueError if x on the host is not all 0 or 1.
        """
        if on_host(x) and not ((x == 0) | (x == 1)).all():
            raise ValueError("bound: x must be 0 or 1 everywhere; binarize grey pixels first")
        a, draws = self.rbm.energy.up(x), []  # a: the logits of q(h|x)
        for _ in range(n_draws):
            h = sample_bernoulli(a, rng)
            log_p = bernoulli_log_prob(x, self.rbm.energy.down(h)) - self.free_energy(h) - log_z  # log p(x, h)
            draws.append(log_p - bernoulli_log_prob(h, a))
        return array_module(x).stack(draws)

    def evaluate(self, x, rng, labels=None):
        """{name: number}: the measures of an RBM for h ~ q(h|x), as "top_reconstruction" and "top_pseudo_nll"."""
        return {f"top_{name}": value for name, value in super().evaluate(x, rng).items()}

    def sample(self, n, rng, label=None):
        """n pictures (n, n_features) of zeros and ones. Each comes from the last h of its own chain of n_steps steps."""
        return sample_bernoulli(self.rbm.energy.down(super().sample(n, rng)), rng)

    @classmethod
    def example(cls, rng, **settings):
        rbm, batch = RBM.example(rng, n_hidden=6)  # as many as pixels: loss takes h, but checks give it x
        rbm.train_step(**batch, rng=rng)
        return super().example(rng, **{"rbm": rbm, "n_hidden": 6} | settings)
