"""What the commands of the command line do: list, gradcheck, train, sample, evaluate. Each takes the parsed arguments."""

import argparse
import ast
import dataclasses
import inspect
import json
import pathlib
import sys
import time

from .backend import Rng, UsageError, find_device
from .settings import is_model


def list_(args):
    from .data import names
    from .models import find_model, kind_of, model_names

    print("models (python -m scratchgen train MODEL; settings for --set with their defaults)")
    for name in model_names():
        model = find_model(name)
        print(f"  {name:<24}{sys.modules[model.__module__].__doc__.splitlines()[0]}")
        for field in dataclasses.fields(model):
            if is_model(field.type):
                print(
                    f"      {field.name}=DIR, the folder of a trained {kind_of(field.type)}; without it one is trained first"
                )
                continue
            value = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
            value = "(from the data)" if field.name in ("n_features", "n_classes") else value
            print(f"      {field.name}={value}")
    print("\ndata sets (--data)\n  " + ", ".join(names()) + ", a folder of pictures, a .npy or .npz file")
    demos = sorted((pathlib.Path(__file__).parent.parent / "demos").glob("*.py"))
    print("\ndemos (python demos/NAME.py)" + ("" if demos else ": in the repository's demos folder"))
    for path in demos:
        if path.stem != "common":
            print(f"  {path.stem:<24}{ast.get_docstring(ast.parse(path.read_bytes())).splitlines()[0]}")


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
    from .models import find_model
    from .settings import parse_settings

    started, device = time.perf_counter(), find_device(args.device)  # before anything is loaded or downloaded
    model_class, out = find_model(args.model), pathlib.Path(args.out)
    settings, notes = parse_settings(model_class, args.set), {}
    inside = [field for field in dataclasses.fields(model_class) if is_model(field.type) and field.name not in settings]
    if args.resume and ((out / "checkpoint.npz").exists() or not any((out / field.name).exists() for field in inside)):
        notes = load_model(out / "checkpoint.npz")[1]
        if notes["model"] != args.model:
            raise UsageError(
                f"{out / 'checkpoint.npz'}: holds a {notes['model']}, not a {args.model}; choose another folder"
            )
        settings, inside = notes["settings"] | settings, []
    name = args.data or notes.get("data", "digits")
    seed = notes.get("seed", 0) if args.seed is None else args.seed
    data = load(name, seed)
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
    measure = sample_metrics(data, device) if model.judged_by_samples else None
    history = fit(
        model, data.x_train, epochs=args.epochs, labels=data.labels_train, x_test=data.x_test,
        labels_test=data.labels_test, seed=seed, out=out, resume=bool(notes), measure=measure,
        notes={"data": data.name}, graph=args.graph,
    )  # fmt: skip
    if notes.get("epoch", -1) >= args.epochs:
        print(f"{out} has {notes['epoch']} epochs already; --epochs is the total")
    last = history[-1] if history else {"epoch": 0}
    found = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k not in ("epoch", "seconds"))
    seconds = f"{time.perf_counter() - started:.1f} s with {device.__name__}"
    print(f"{args.model} on {name}: epoch {last['epoch']}, {seconds}. {found}")
    print(f"{out / 'checkpoint.npz'}\n{out / 'history.csv'}")


def train_inside(field, args):
    """The model that a field of another stands for, trained first and for as many epochs, into a folder inside --out."""
    from .checkpoint import load_model
    from .models import kind_of

    kind, folder = kind_of(field.type), pathlib.Path(args.out) / field.name
    print(
        f"a {args.model} is built on a {kind}: training one first, into {folder} (--set {field.name}=DIR takes another)"
    )
    path = folder / "checkpoint.npz"
    try:
        train(argparse.Namespace(**vars(args) | {"model": kind, "out": folder, "set": [], "resume": path.exists()}))
    except UsageError as error:
        raise UsageError(f"the {kind} inside: {error}; or train one by itself and use --set {field.name}=DIR") from None
    return load_model(path, args.device)[0]


def data_of(model, notes):
    """The data that a model was trained on. Raises UsageError if it is not to be had any more."""
    from .data import load

    if "data" not in notes:
        raise UsageError(f"the checkpoint of this {notes['model']} does not say on what data; train by this command")
    data = load(notes["data"], notes["seed"])
    width = data.x_train.shape[1]
    if width != getattr(model, "n_features", width):
        raise UsageError(
            f"{notes['data']}: has {width} numbers an example, but the model was trained on {model.n_features}; "
            "put back the data it was trained on"
        )
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

        picture_of(x, data_of(model, notes), path)  # prints the path itself


def evaluate(args):
    from .checkpoint import load_model
    from .metrics.likelihood import likelihood_metrics
    from .metrics.samples import sample_metrics
    from .model import Model, call

    model, notes = load_model(pathlib.Path(args.dir) / "checkpoint.npz", args.device)
    data = data_of(model, notes)
    given = model.on_device(x=data.x_test, labels=data.labels_test) | {"rng": model.rng((0, 0, 2))}
    found = {name: float(value) for name, value in call(model.evaluate, **given).items()}
    found |= likelihood_metrics(model, given["x"], model.rng((0, 0, 4)), args.draws)
    samples = type(model).sample is not Model.sample
    if samples and (measure := sample_metrics(data, find_device(args.device))):
        found |= measure(model, model.rng((0, 0, 3)))
    if args.json:
        print(
            json.dumps(
                {"model": notes["model"], "data": notes["data"], "epoch": notes["epoch"], "n": len(data.x_test)} | found
            )
        )
        return
    print(f"{notes['model']} after epoch {notes['epoch']}, on {len(data.x_test)} test examples of {notes['data']}")
    for name, value in found.items():
        print(f"  {name:<20} {value if isinstance(value, str) else f'{value:.5g}'}")
    if not found:
        print("  it has no measures of its own")
