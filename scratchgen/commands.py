"""What the commands of the command line do: list, gradcheck, train, sample, evaluate. Each takes the parsed arguments."""

import argparse
import ast
import dataclasses
import inspect
import json
import math
import pathlib
import sys
import textwrap
import time

from .backend import Rng, UsageError, find_device
from .settings import FROM_DATA, choices, is_model, parse_settings
from .settings import meanings as settings_meanings


def list_(args):
    from .data import names
    from .models import find_model, model_names

    if args.model:
        return list_settings(args.model)
    print("models (python -m scratchgen train MODEL; `list MODEL` shows its settings)")
    for name in model_names():
        print(f"  {name:<24}{sys.modules[find_model(name).__module__].__doc__.splitlines()[0]}")
    print("\ndata sets (--data)\n  " + ", ".join(names()) + ", a folder of pictures, a .npy or .npz file")
    demos = sorted((pathlib.Path(__file__).parent.parent / "demos").glob("*.py"))
    print("\ndemos (python demos/NAME.py)" + ("" if demos else ": in the repository's demos folder"))
    for path in demos:
        if path.stem != "common":
            print(f"  {path.stem:<24}{ast.get_docstring(ast.parse(path.read_bytes())).splitlines()[0]}")


def list_settings(name):
    """Print one model's settings: default, meaning, and what may be chosen."""
    from .models import find_model, kind_of

    model = find_model(name)
    print(sys.modules[model.__module__].__doc__.splitlines()[0])
    print(f"\nsettings (--set name=value), models/{name}.py")
    meanings = settings_meanings(model)
    for field in dataclasses.fields(model):
        name, said = field.name, meanings[field.name]
        if is_model(field.type):
            kind = kind_of(field.type)
            setting = f"{name}=DIR"
            said += f": the folder of a trained {kind}; without it one is trained first, by settings such as {name}.batch=50"
        elif name in FROM_DATA:
            setting, said = name, f"{said}; taken from the data"
        else:
            value = field.default
            setting = f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            said += f" [{choices(field.type)}]" if choices(field.type) else ""
        first, *rest = textwrap.wrap(said, 90) or [""]
        print(f"  {setting:<25} {first}".rstrip())
        for line in rest:
            print(f"  {'':<25} {line}")


def gradcheck(args):
    from .selfcheck import selfcheck

    reports, columns = [], ("method", "error", "tolerance", "passed")
    for kind, report in selfcheck(args.pattern):
        reports.append({"name": report.name, "kind": kind} | {column: getattr(report, column) for column in columns})
        if not args.json:
            print(f"{kind:<10} {report}", flush=True)
    if not reports:
        raise UsageError(f"gradcheck: nothing has {args.pattern!r} in its name")
    failed = sum(not report["passed"] for report in reports)
    if args.json:
        for report in reports:  # JSON knows neither infinity nor nan
            report["error"] = report["error"] if report["error"] < 1e308 else 1e308
        print(json.dumps(reports, indent=1))
    else:
        worst = max(report["error"] for report in reports)
        print(f"{len(reports) - failed} passed, {failed} failed; worst error {worst:.1e}")
    return 1 if failed else 0


def train(args):
    from .checkpoint import load_model
    from .data import load
    from .fit import fit
    from .metrics.samples import sample_metrics
    from .model import Model
    from .models import find_model

    started, device = time.perf_counter(), find_device(args.device)  # before anything is loaded or downloaded
    model_class, out = find_model(args.model), pathlib.Path(args.out)
    settings, notes = parse_settings(model_class, args.set), {}
    parts = [field for field in dataclasses.fields(model_class) if is_model(field.type)]
    inside = [field for field in parts if not isinstance(settings.get(field.name), Model)]
    if args.resume and ((out / "checkpoint.npz").exists() or not any((out / field.name).exists() for field in inside)):
        notes = load_model(out / "checkpoint.npz")[1]
        if notes["model"] != args.model:
            raise UsageError(
                f"{out / 'checkpoint.npz'}: holds a {notes['model']}, not a {args.model}; choose another folder"
            )
        settings, inside = notes["settings"] | settings, []
    seed = notes.get("seed", 0) if args.seed is None else args.seed
    data = load(args.data or "digits", seed) if args.data or "data" not in notes else data_of(notes)
    name = args.data or data.name
    names = {field.name for field in dataclasses.fields(model_class)}
    if "n_classes" in names and data.n_classes:
        settings = {"n_classes": data.n_classes} | settings
    if "n_features" in names:
        settings = {"n_features": data.x_train.shape[1]} | settings
        if settings["n_features"] != data.x_train.shape[1]:
            raise UsageError(
                f"--data {name}: has {data.x_train.shape[1]} numbers an example, but n_features is "
                f"{settings['n_features']}; use other data, or leave --set n_features out"
            )
    if inside:  # what is wrong with the whole is said before a part of it is trained
        parts = {field.name: field.type(n_features=data.x_train.shape[1]) for field in inside}
        model_class(**settings | parts).check_data(data.x_train, data.labels_train)
        if (out / "checkpoint.npz").exists():
            raise UsageError(f"{out}: already holds a run; go on with --resume, or choose another folder")
        settings |= {field.name: train_inside(field, args) for field in inside}
    model = model_class(**settings).build(Rng(seed, device=device))
    side = getattr(model, "side", None)
    if side and data.shape not in (None, (side, side)):
        raise UsageError(f"--data {name}: a {args.model} takes square grey pictures, and these have shape {data.shape}")
    model.check_data(data.x_train, data.labels_train)  # before a classifier is trained for the measures
    model.check_rows(len(data.x_train))
    measure, left_out = sample_metrics(data, device) if model.judged_by_samples and args.epochs else (None, "")
    if left_out:
        print(left_out, file=sys.stderr)
    history = fit(
        model, data.x_train, epochs=args.epochs, labels=data.labels_train, x_test=data.x_test,
        labels_test=data.labels_test, seed=seed, out=out, resume=bool(notes),
        measure=measure and Seldom(measure, args.epochs), graph=args.graph, accept_new_data=args.accept_new_data,
        notes={"data": data.name, "shape": data.shape},
    )  # fmt: skip
    if notes.get("epoch", -1) >= args.epochs:
        print(f"{out} has {notes['epoch']} epochs already; --epochs is the total")
    last = history[-1] if history else {"epoch": 0}
    seconds = f"{time.perf_counter() - started:.1f} s with {device.__name__}"
    print(f"{args.model} on {name}: epoch {last['epoch']}, {seconds}")
    show({name: value for name, value in last.items() if name not in ("epoch", "seconds")})
    print(f"{out / 'checkpoint.npz'}\n{out / 'history.csv'}")


class Seldom:
    """A measure of samples, taken so seldom that it costs a tenth of the training at the most: every so many epochs.

    How many, the first two epochs tell. The last epoch is measured in any case. The history has nan for the others.
    """

    SHARE = 0.1

    def __init__(self, measure, n_epochs):
        self.measure, self.n_epochs, self.every, self.cost, self.ended = measure, n_epochs, None, 0.0, None

    def __call__(self, model, rng, epoch):
        started = time.perf_counter()
        if self.every is None and self.ended is not None:
            self.every = math.ceil(self.cost / (self.SHARE * max(started - self.ended, 1e-9)))
            if self.every > 1:
                print(f"samples are measured after every {self.every} epochs, to save time", file=sys.stderr)
        if self.every and epoch % self.every and epoch != self.n_epochs:
            return {}
        found = self.measure(model, rng)
        self.ended = time.perf_counter()
        self.cost = self.ended - started
        return found


def show(found):
    """Print numbers and words by name, with their units and which way is better."""
    from .metrics.meanings import meaning

    for name, value in found.items():
        value = value if isinstance(value, str) else f"{value:.5g}"
        print(f"  {name:<25} {value:<12} {meaning(name)}".rstrip())


def train_inside(field, args):
    """The model that a field of another stands for, trained first and for as many epochs, into a folder inside --out."""
    from .checkpoint import load_model
    from .models import kind_of

    kind, folder, prefix = kind_of(field.type), pathlib.Path(args.out) / field.name, f"{field.name}."
    print(
        f"a {args.model} is built on a {kind}: training one first, into {folder} (--set {field.name}=DIR takes another)"
    )
    path = folder / "checkpoint.npz"
    given = {
        "model": kind,
        "out": folder,
        "set": [setting.removeprefix(prefix) for setting in args.set if setting.startswith(prefix)],
        "resume": path.exists(),
    }
    try:
        train(argparse.Namespace(**vars(args) | given))
    except UsageError as error:
        said = str(error).replace("--set ", f"--set {prefix}")
        raise UsageError(f"the {kind} inside: {said}; or train one by itself and use --set {field.name}=DIR") from None
    return load_model(path, args.device)[0]


def data_of(notes, given=None):
    """The Data that a model was trained on, or the given one. Raises UsageError if it is not to be had any more."""
    from .data import load

    if given is None and "data" not in notes:
        raise UsageError(f"the checkpoint of this {notes['model']} does not say on what data; name it by --data")
    try:
        data = load(given or notes["data"], notes.get("seed", 0))
    except UsageError as error:
        raise UsageError(f"{error}, or name the data by --data if it has moved") from None
    width, known = data.x_train.shape[1], notes["settings"].get("n_features")
    if known not in (None, width):
        remedy = "put back the data it was trained on, or name it by --data"
        raise UsageError(f"{data.name}: has {width} numbers an example, but the model was trained on {known}; {remedy}")
    return data


def sample(args):
    import numpy as np

    from .backend import to_host
    from .checkpoint import load_model, written_whole
    from .model import call

    path = pathlib.Path(args.o)
    if args.n <= 0:
        raise UsageError(f"-n {args.n}: must be > 0")
    if path.suffix not in (".png", ".npy"):
        raise UsageError(f"-o {args.o}: expected a name that ends in .png or .npy")
    model, notes = load_model(pathlib.Path(args.dir) / "checkpoint.npz", args.device)
    if args.label is not None and "label" not in inspect.signature(model.sample).parameters:
        raise UsageError(f"--label {args.label}: a {notes['model']} takes no label; leave it out")
    given = {"n": args.n, "rng": model.rng((args.seed, 0, 1))} | ({} if args.label is None else {"label": args.label})
    x = to_host(call(model.sample, **given))
    if path.suffix == ".npy":
        with written_whole(path) as file:
            np.save(file, x)
        print(path)
    else:
        from .plots import picture_of

        if args.data or "shape" not in notes:  # an older checkpoint does not know what its examples look like
            notes["shape"] = data_of(notes, args.data).shape
        picture_of(x, notes["shape"] and tuple(notes["shape"]), path)  # prints the path itself


def evaluate(args):
    from .checkpoint import load_model
    from .data.checked import fingerprint
    from .metrics.likelihood import likelihood_metrics
    from .metrics.samples import sample_metrics
    from .model import Model, call, needs

    model, notes = load_model(pathlib.Path(args.dir) / "checkpoint.npz", args.device)
    data = data_of(notes, args.data)
    known = notes.get("fingerprint", {}).get("x")
    if known and not args.data and known != fingerprint(x=data.x_train)["x"]:
        print(f"{data.name} has changed since the model was trained on it", file=sys.stderr)
    try:
        model.check_data(data.x_test, data.labels_test)
    except UsageError as error:
        raise UsageError(f"{data.name}: {error}") from None
    given = model.on_device(x=data.x_test, labels=data.labels_test) | {"rng": model.rng((0, 0, 2))}
    if needs(model.evaluate, "labels") and data.labels_test is None:
        raise UsageError(f"{data.name}: a {notes['model']} is tested on labels, and this data has none")
    found = {name: float(value) for name, value in call(model.evaluate, **given).items()}
    found |= likelihood_metrics(model, given["x"], model.rng((0, 0, 4)), args.draws)
    if type(model).sample is not Model.sample:
        measure, left_out = sample_metrics(data, find_device(args.device))
        found |= measure(model, model.rng((0, 0, 3))) if measure else {"left_out": left_out}
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
        print("  it has no measures of its own")
