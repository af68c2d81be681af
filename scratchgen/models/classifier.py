"""A classifier: it says which class a picture belongs to, and so it can judge the pictures that other models make.

    p(k | x) = softmax(W h(x) + b)_k,   minimise E[-log p(label | x)]

h(x), the features, is the output of the last hidden layer. There one linear layer can tell the classes apart, so two
pictures of a class are close to each other even if they share few pixels. A distance between sets of pictures therefore
means more in these features than in pixels. metrics/frechet.py measures samples in them; Heusel et al. 2017 do the same
with the features of a far larger classifier. The classes found in a model's samples show which classes the model leaves out.
"""

from dataclasses import dataclass

from ..backend import array_module
from ..nn.activations import ReLU
from ..nn.layer import Sequential
from ..nn.layers import log_softmax, mlp
from ..nn.losses import softmax_cross_entropy
from ..nn.optim import Adam
from ..nn.parameters import Parameters
from ..nn.schedules import cosine
from .base import Model
from .settings import Count, Fraction, Positive, Whole


@dataclass(eq=False)
class Classifier(Model):
    """The settings come first, then the model. Shapes: x (B, n_features), labels (B,) integers, logits (B, n_classes)."""

    n_features: Count = 784
    n_classes: Count = 10
    hidden: tuple[int, ...] = (256, 64)
    dropout: Fraction = 0.0  # after every hidden layer
    batch: Count = 64
    lr: Positive = 2e-3
    decay_steps: Whole = 0  # steps of training: the rate falls to 0 along half a cosine; 0: constant rate

    needs_labels = True
    tiny = {"n_features": 6, "n_classes": 3, "hidden": (5,), "batch": 4}

    def build(self, rng):
        *body, self.head = mlp([self.n_features, *self.hidden, self.n_classes], ReLU, dropout=self.dropout).layers
        self.body = Sequential(*body)
        self.params = Parameters(rng, body=self.body, head=self.head)
        self.adam = Adam(self.params, cosine(self.lr, self.decay_steps) if self.decay_steps else self.lr)
        return self

    def loss(self, x, rng, labels=None):
        """The cross-entropy of the labels (B,) of x (B, n_features), in nats per example."""
        self.params.zero_grad()
        h, back_body = self.body.forward(x, rng)  # (B, hidden[-1])
        logits, back_head = self.head.forward(h, rng)  # (B, n_classes)
        loss, d_logits = softmax_cross_entropy(logits, labels)

        dh = back_head(d_logits)
        back_body(dh, inputs=False)
        return {"loss": loss}

    def train_step(self, x, rng, labels=None):
        losses = self.loss(x, rng, labels)
        self.adam.step()
        return losses

    def features(self, x):
        """h(x) (N, hidden[-1]) of x (N, n_features): the outputs of the last hidden ReLU, so none is negative."""
        return self.body(x)

    def probabilities(self, x):
        """p(k | x) (N, n_classes) of x (N, n_features). The sum of each row is 1."""
        log_p = log_softmax(self.head(self.features(x)))
        return array_module(x).exp(log_p)

    def predict(self, x):
        """The most probable class of each row of x (N, n_features): (N,) integers."""
        return self.head(self.features(x)).argmax(axis=1)

    def evaluate(self, x, rng, labels=None):
        """{name: number} on x (N, n_features) and labels (N,): the fraction classified correctly, and nats per example."""
        logits = self.head(self.features(x))
        right = (logits.argmax(axis=1) == labels).astype(logits.dtype)
        return {"accuracy": right.mean(), "cross_entropy": softmax_cross_entropy(logits, labels)[0]}
