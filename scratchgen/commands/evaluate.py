"""evaluate: measure a trained model on its test data or on other data."""

import json
import math
import sys

from ..backend import UsageError, find_device
from ..data.checked import fingerprint
from ..metrics.likelihood import STEPS, check_ode, likelihood_metrics, passes
from ..metrics.samples import sample_metrics
from ..models.base import Model
from .shared import data_of, model_of, show


def run(args):
    model, notes = model_of(args)
    data = data_of(notes, args.data)
    known = notes.get("fingerprint", {}).get("x")
    if known and not args.data and known != fingerprint(x=data.x_train)["x"]:
        print(f"{data.name} has changed since the model was trained on it", file=sys.stderr)
    try:
        model.check_data(data.x_test, data.labels_test)
    except UsageError as error:
        raise UsageError(f"{data.name}: {error}") from None
    if model.tested_on_labels and data.labels_test is None:
        raise UsageError(f"{data.name}: has no labels, but a {notes['model']} is tested on labels; use other data")
    given = model.on_device(x=data.x_test, labels=data.labels_test if model.needs_labels else None)
    found = {name: float(value) for name, value in model.evaluate(**given, rng=model.rng((0, 0, 2))).items()}
    found |= log_p(model, notes["model"], given, args)
    if type(model).sample is not Model.sample:
        measure, left_out = sample_metrics(data, find_device(args.device))
        found |= measure(model, model.rng((0, 0, 3)), notes["epoch"]) if measure else {"left_out": left_out}
    if data.scale is not None:
        found = in_its_units(found, data.scale)
    if args.json:
        about = {"model": notes["model"], "data": data.name, "epoch": notes["epoch"], "n": len(data.x_test)}
        found = {
            name: value if isinstance(value, str) or math.isfinite(value) else None for name, value in found.items()
        }
        print(json.dumps(about | found))
        return
    plural = "s" * (len(data.x_test) != 1)
    print(f"{notes['model']} after epoch {notes['epoch']}, on {len(data.x_test)} test example{plural} of {data.name}")
    show(found)
    if not found:
        print("  this model has no measures of its own")


def in_its_units(found, scale):
    """found, with log p of the table's own numbers in place of that of its standardised columns: data/tables.py.

    "log_std" is the difference. Squared errors and distances remain in standard deviations, which all columns share.
    """
    signs = {"nll": 1, "negative_elbo": 1, "log_p": -1}
    found = {name: value + signs[name] * scale.log_std if name in signs else value for name, value in found.items()}
    if "log_p_method" in found:
        found["log_p_method"] = found["log_p_method"].replace("pixels as they are", "in the units of the table")
    return found | ({"log_std": scale.log_std} if signs.keys() & found.keys() else {})


def log_p(model, kind, given, args):
    """What is known about log p of the test data: metrics/likelihood.py. With --log-p also what takes long, and how long."""
    if args.log_p and hasattr(model, "ode_log_prob"):
        D = given["x"].shape[1]
        check_ode(model, D)
        cost = f"4 × {D} for each of {STEPS} steps, and again for half of them"
        print(f"log p takes {passes(D):,} passes of the network: {cost}", file=sys.stderr)
    rng = model.rng((0, 0, 4))
    found = likelihood_metrics(model, given["x"], rng, args.draws, given.get("labels"), args.log_p)
    if args.log_p and not found:
        models = "ddpm, flow, flow_matching, vae, made, masked_diffusion, gmm or rbm, or ebm in the plane"
        raise UsageError(f"--log-p: a {kind} has no density of x: use {models}")
    return found
