"""Models behind a frozen VQ-VAE or VQ-GAN: they learn its features (Rombach et al. 2022, section 3) or codes, not pixels."""

from ...backend import UsageError
from ..vqvae import VQVAE


class BehindVQVAE:
    """Comes before Model in a class with a setting vqvae: a trained VQ-VAE, of which it keeps a frozen copy."""

    def freeze(self, rng):
        self.trained, self.vqvae = self.vqvae.has_stepped(), VQVAE.copy_of(self.vqvae, rng)

    def prepare(self, x, rng, labels=None):
        if not self.trained:
            name = type(self).__name__
            raise UsageError(
                f"{name} setting vqvae: expected a trained VQVAE; train a VQVAE first and give it as {name}(vqvae=...)"
            )
        super().prepare(x, rng, labels)

    @classmethod
    def example(cls, rng, **settings):
        vqvae, batch = VQVAE.example(rng)
        vqvae.train_step(**batch, rng=rng)
        return super().example(rng, **{"vqvae": vqvae} | settings)


class InFeatures(BehindVQVAE):
    """Comes before DDPM or FlowMatching in a class with a setting vqvae: x_0 (B, n_diffused) are its scaled features."""

    def build(self, rng):
        self.freeze(rng)
        return super().build(rng)

    @property
    def n_diffused(self):
        return self.vqvae.n_codes * self.vqvae.n_dim

    def encode(self, x):
        return self.vqvae.encode(x)

    def decode(self, features):
        return self.vqvae.decode(self.vqvae.quantise(features))
