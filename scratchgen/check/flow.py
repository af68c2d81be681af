"""The checker for flow layers: the gradients (by check_layer), the inverse, and the log-determinant.

A flow layer turns x (B, n) into y (B, n), each example on its own, and can be inverted. log_det (B,) is log|det ∂y/∂x|. A
gradient check cannot see a wrong log_det: half of log_det with half of its gradient passes. So this file computes the whole
Jacobian ∂y/∂x, one column for each feature, and compares its determinant.
"""

import copy
import math
import warnings
from contextlib import suppress
from typing import Any

import numpy as np

from ..backend import Rng
from ..nn.layer import Layer
from ..nn.parameters import Parameters
from .derivative import CENTRAL, COMPLEX, SINGLE_H, H, is_single
from .gradcheck import check_layer
from .report import GradReport
from .trial import MOVE, Broken, as_array, layer_inputs, unchanged

TOLERANCE = {COMPLEX: 1e-8, CENTRAL: 1e-5}  # of log_det
INVERSE_TOLERANCE = 1e-6  # an inverse may be found by iteration
SINGLE_TOLERANCE = 2e-2  # of both, if the layer computes in float32


def check_flow(layer: Layer, x: Any, *, seed: int = 0, name: str | None = None, **options: Any) -> GradReport:
    """A GradReport of a flow layer, whose problem has a line for each thing that is wrong. It checks

    - the gradients of y and log_det, and the contract of backward, as check_layer does;
    - log_det against log|det ∂y/∂x| of each example, by the complex step, or by central differences if that fails;
    - inverse(forward(x)) = x and forward(inverse(y)) = y, and also the log_det of inverse if it returns (x, log_det).

    layer: forward(x, rng) returns ((y, log_det), backward), backward takes ((dy, d_log_det), learn=True, inputs=True), and
    inverse(y) returns x. x: an array (B, n), or the shape of one. Everything except the gradients is checked with rng=None.
    """
    name = name or type(layer).__name__
    several, parts, _ = layer_inputs(x, seed)
    if several or parts[0].ndim != 2 or parts[0].dtype.kind != "f":
        raise ValueError(f"{name}: give a flow one array of floats (B, n), or a shape (B, n)")
    report = check_layer(layer, x, seed=seed, name=name, **options)
    problems = _Flow(layer, parts[0], seed).problems()
    if problems:
        report.passed = False
        report.problem = "\n     ".join(filter(None, [report.problem, *problems]))
    return report


class _Flow:
    """A copy of a flow layer with its weights moved a little, because new ones may make it the identity."""

    def __init__(self, layer, x, seed):
        self.layer, self.x = copy.deepcopy(layer), x
        self.params = Parameters(Rng(seed, "float64"), layer=self.layer)
        self.rng, self.single = Rng((seed, MOVE), "float64"), False
        with np.errstate(all="ignore"), suppress(Exception):
            first = copy.deepcopy(self)
            first.forward(self.x.copy())  # the first batch may set weights
            if not unchanged(first.params.theta, self.params.theta):
                vars(self).update(vars(first))
        step = 0.1 * self.rng.normal(self.params.theta.shape)
        self.params.theta += step
        with np.errstate(all="ignore"):
            try:
                moved = np.all(np.isfinite(self.forward(x)[0]))
            except Exception:
                moved = False
        if not moved:
            self.params.theta -= step

    def problems(self):
        """A line for each thing that is wrong."""
        returned = self.layer.forward(self.x, None)[0]
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            return ["a flow's forward must return ((y, log_det), backward)"]
        y, log_det = self.forward(self.x)
        slightly = self.forward(self.x * (1 + 1e-11))[0]  # too small a change for float32
        self.single = is_single(y) or is_single(log_det) or (np.any(self.x) and unchanged(y, slightly))
        if y.shape != self.x.shape:
            return [f"y has shape {y.shape} for x {self.x.shape}: a flow must keep the number of features"]
        if log_det.shape != self.x.shape[:1]:
            remedy = "; sum over the features only" if log_det.ndim != 1 else ""
            return [
                f"log_det has shape {log_det.shape}, expected {self.x.shape[:1]}: one number for each example{remedy}"
            ]
        mixed = self.mixes_examples(y, log_det)
        if mixed:
            return [mixed]
        lines = self.wrong_log_det(log_det)
        try:
            return lines + self.wrong_inverse(y, log_det)
        except Broken as error:
            return [*lines, str(error)]

    def forward(self, x):
        y, log_det = self.layer.forward(x, None)[0]
        return np.asarray(y), np.asarray(log_det)

    def mixes_examples(self, y, log_det):
        """A message if the outputs of one example change when another example does, else ""."""
        rtol = 1e-3 if self.single else 1e-9
        for changed, kept in ((0, slice(1, None)), (-1, slice(None, -1))):
            x = self.x.copy()
            x[changed] = self.x[-1 - changed]
            y_2, log_det_2 = self.forward(x)
            pairs = (y[kept], y_2[kept]), (log_det[kept], log_det_2[kept])
            if not all(np.allclose(a, b, rtol=rtol, atol=1e-3 * rtol, equal_nan=True) for a, b in pairs):
                return "y or log_det of one example depends on the others: compute each example on its own"
        return ""

    # ---- the log-determinant ----

    def wrong_log_det(self, log_det):
        jacobian, method = self.jacobian()  # (B, n, n)
        with np.errstate(divide="ignore", invalid="ignore"):  # a determinant of 0
            right = np.linalg.slogdet(jacobian)[1]
            errors = np.abs(log_det - right) / np.maximum(1, np.abs(right))
        errors[np.isnan(errors)] = np.inf
        wrong = errors > (SINGLE_TOLERANCE if self.single else TOLERANCE[method])
        if not wrong.any():
            return []
        i = int(np.argmax(errors))
        if right[i] == -np.inf:
            return [f"∂y/∂x of example {i} has determinant 0, so the layer cannot be inverted"]
        count = f"wrong in {wrong.sum()} of {len(wrong)} examples"
        numbers = f"in example {i} it is {log_det[i]:.9g}, but log|det ∂y/∂x| by {method} is {right[i]:.9g}"
        return [f"log_det is {count}: {numbers}{_suggest(log_det, right, self.x.shape[1])}"]

    def jacobian(self):
        """∂y/∂x of each example (B, n, n), and the method that gave it."""
        try:
            jacobian = self.complex_jacobian()
        except Exception:  # real numbers passed, so complex ones caused this
            return self.central_jacobian(), CENTRAL
        direction = self.rng.normal(self.x.shape)
        along, told = self.slope(direction), (jacobian @ direction[:, :, None])[:, :, 0]
        if np.abs(along - told).max() > (1e-2 if self.single else 1e-5) * max(
            1, np.abs(along).max()
        ):  # abs and the like lose the imaginary part
            return self.central_jacobian(), CENTRAL
        return jacobian, COMPLEX

    def complex_jacobian(self):
        self.params.cast("complex128")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                columns = [self.forward(self.x + 1j * H[COMPLEX] * e)[0].imag / H[COMPLEX] for e in self.units()]
        finally:
            self.params.cast("float64")
        return np.stack(columns, axis=2)

    def central_jacobian(self):
        return np.stack([self.slope(np.broadcast_to(e, self.x.shape)) for e in self.units()], axis=2)

    def units(self):
        return np.eye(self.x.shape[1])

    def slope(self, direction):
        """The derivative of y along a direction for each example, by central differences."""
        h = (SINGLE_H if self.single else H[CENTRAL]) * np.fmax(1, np.abs(self.x).max(axis=1, keepdims=True) / 100)
        with np.errstate(all="ignore"):
            ahead, behind = (self.forward(self.x + s * h * direction)[0] for s in (1, -1))
        return (ahead - behind) / (2 * h)

    # ---- the inverse ----

    def wrong_inverse(self, y, log_det):
        if not hasattr(self.layer, "inverse"):
            return ["there is no inverse: add a method inverse(y) that returns x"]
        kept = y.copy()
        x, back_log_det = self.inverse(y)
        if not unchanged(y, kept):
            return ["inverse changed y: it must leave y as it is"]
        lines = self.differ("inverse(forward(x))", x, "x", self.x)
        if back_log_det is not None:
            lines += self.differ("the log_det of inverse", back_log_det, "minus that of forward", -log_det)
        between = (y + np.roll(y, 1, axis=0)) / 2  # points that forward did not produce
        x, _ = self.inverse(between)
        if not lines and np.all(np.isfinite(x)):
            lines += self.differ("forward(inverse(y))", self.forward(x)[0], "y", between)
        return lines

    def inverse(self, y):
        """x and log_det (or None). Raises Broken if inverse fails or returns something else."""
        try:
            returned = self.layer.inverse(y)
        except Exception as error:
            raise Broken(f"inverse(y) raises {type(error).__name__}: {error}".splitlines()[0]) from error
        if isinstance(returned, list) or (isinstance(returned, tuple) and len(returned) != 2):
            raise Broken(
                f"inverse must return x, or the tuple (x, log_det), but it returned a {type(returned).__name__}"
            )
        x, log_det = returned if isinstance(returned, tuple) else (returned, None)
        try:
            return as_array(x, "the result of inverse"), log_det if log_det is None else np.asarray(log_det)
        except ValueError as error:
            raise Broken(str(error)) from error

    def differ(self, what, found, expected, right):
        """A list with a line that says where two arrays differ; empty if they agree."""
        if found.shape != right.shape:
            return [f"{what} has shape {found.shape}, expected {right.shape}"]
        errors = np.abs(found - right)
        errors[np.isnan(errors)] = np.inf
        wrong = errors > (SINGLE_TOLERANCE if self.single else INVERSE_TOLERANCE) * max(1, np.abs(right).max())
        if not wrong.any():
            return []
        i = np.unravel_index(np.argmax(errors), errors.shape)
        count = f"{wrong.sum()} of {wrong.size} numbers differ"
        hint = "; the sign is wrong" if np.allclose(found[wrong], -right[wrong]) else ""
        place = ", ".join(str(int(k)) for k in i)
        return [f"{what} is not {expected}: {count}, [{place}] is {found[i]:.9g} but should be {right[i]:.9g}{hint}"]


def _suggest(log_det, right, n):
    """A suggestion of what a wrong log_det is, or ""."""
    known = {
        "it is 0": 0 * right,
        "the sign is wrong": -right,
        "half of it is missing": right / 2,
        "it is twice too large": 2 * right,
        "it is the mean over the features, not the sum": right / n,
        "it is the sum over the batch": 0 * right + right.sum(),
        "it is the mean over the batch": 0 * right + right.mean(),
        "it is the determinant, not its logarithm": np.exp(np.minimum(right, 700)),
        "it is a logarithm of base 2": right / math.log(2),
        "it is a logarithm of base 10": right / math.log(10),
    }
    for words, values in known.items():
        if np.allclose(log_det, values, rtol=1e-6, atol=1e-9):
            return f"; {words}"
    off = log_det - right
    return f"; it is off by {off[0]:.6g} everywhere" if np.ptp(off) < 1e-6 * np.abs(off).max() else ""
