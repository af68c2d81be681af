"""The command line: python -m scratchgen list | gradcheck | train | sample | evaluate.

Whatever a user can get wrong ends in one line on standard error and exit code 2; Ctrl-C ends in one line and 130.
"""

import argparse
import ast
import dataclasses
import json
import pathlib
import sys
import time

from .backend import Rng, UsageError

NEWLINE = "\n"


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}; see {self.prog} --help")


def arguments():
    parser = Parser(
        prog="python -m scratchgen", description="Deep generative models with every gradient written by hand."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(function, help):
        sub = commands.add_parser(function.__name__.removesuffix("_"), help=help, description=help)
        sub.set_defaults(function=function)
        return sub

    command(list_, "show models, data sets and demos")

    sub = command(gradcheck, "check every gradient of this library; exit code 1 if any fails")
    sub.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="only what has this in its name")
    sub.add_argument("--json", action="store_true", help="print a JSON list instead of a table")

    sub = command(train, "train a model into a folder")
    sub.add_argument("model", metavar="MODEL", help="one of those that `list` shows")
    sub.add_argument(
        "--data", help="digits (default), mnist, fashion, a toy, a folder of pictures, a .npy or .npz file"
    )
    sub.add_argument("--epochs", type=int, required=True, metavar="N", help="passes over the data, in all")
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for checkpoint.npz, history.csv and pictures")
    sub.add_argument("--resume", action="store_true", help="go on from DIR's checkpoint, with its settings")
    sub.add_argument("--device", choices=["cpu", "gpu", "auto"], default="cpu", help="default: cpu")
    sub.add_argument("--seed", type=int, metavar="S", help="default: 0")
    sub.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="name=value", help="settings of the model"
    )

    sub = command(sample, "draw from a trained model")
    sub.add_argument("dir", metavar="DIR", help="the folder given to train --out")
    sub.add_argument("-n", type=int, default=64, help="how many (default: 64)")
    sub.add_argument("-o", required=True, metavar="FILE", help="a .png to look at or a .npy with the numbers")
    sub.add_argument("--seed", type=int, default=0, metavar="S")
    sub.add_argument("--label", type=int, metavar="K", help="which class, for models that take one")

    sub = command(evaluate, "measure a trained model on its test data")
    sub.add_argument("dir", metavar="DIR", help="the folder given to train --out")
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


def list_(args):
    from .data import names
    from .models import find_model, model_names

    print("models (python -m scratchgen train MODEL; settings for --set with their defaults)")
    for name in model_names():
        model = find_model(name)
        print(f"  {name:<14}{sys.modules[model.__module__].__doc__.partition(NEWLINE)[0]}")
        for field in dataclasses.fields(model):
            value = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
            print(f"      {field.name}={value}")
    print("\ndata sets (--data)\n  " + ", ".join(names()) + ", a folder of pictures, a .npy or .npz file")
    demos = sorted((pathlib.Path(__file__).parent.parent / "demos").glob("*.py"))
    print("\ndemos (python demos/NAME.py)" + ("" if demos else ": in the repository's demos folder"))
    for path in demos:
        if path.stem != "common":
            print(f"  {path.stem:<20}{ast.get_docstring(ast.parse(path.read_bytes())).partition(NEWLINE)[0]}")


def gradcheck(args):
    from .selfcheck import selfcheck

    reports = []
    for kind, report in selfcheck(args.pattern):
        reports.append({"name": report.name, "kind": kind, "method": report.method, "error": report.error,
                        "tolerance": report.tolerance, "passed": report.passed})  # fmt: skip
        if not args.json:
            print(f"{kind:<10} {report}", flush=True)
    if not reports:
        raise UsageError(f"gradcheck: nothing has {args.pattern!r} in its name")
    failed = sum(not report["passed"] for report in reports)
    if args.json:
        print(json.dumps([r | {"error": min(r["error"], 1e308)} for r in reports], indent=1))  # JSON knows no infinity
    else:
        worst = max(report["error"] for report in reports)
        print(f"{len(reports) - failed} passed, {failed} failed; worst error {worst:.1e}")
    return 1 if failed else 0


def train(args):
    from .checkpoint import read_checkpoint
    from .data import load
    from .fit import fit
    from .model import parse_settings
    from .models import find_model

    started = time.perf_counter()
    model_class, out = find_model(args.model), pathlib.Path(args.out)
    settings, notes = parse_settings(model_class, args.set), {}
    if args.resume:
        notes, _ = read_checkpoint(out / "checkpoint.npz")
        if notes["model"] != args.model:
            raise UsageError(f"{out / 'checkpoint.npz'}: holds a {notes['model']}, not a {args.model}")
        settings = notes["settings"] | settings
    name = args.data or notes.get("data", "digits")
    seed = notes.get("seed", 0) if args.seed is None else args.seed
    if seed < 0:
        raise UsageError(f"--seed {seed}: must be >= 0")
    data = load(name, seed)
    if any(field.name == "n_features" for field in dataclasses.fields(model_class)):
        settings = {"n_features": data.x_train.shape[1]} | settings
        if settings["n_features"] != data.x_train.shape[1]:
            raise UsageError(
                f"n_features={settings['n_features']}, but {name} has {data.x_train.shape[1]} numbers an example"
            )
    model = model_class(**settings).build(Rng(seed, device=args.device))
    history = fit(
        model, data.x_train, epochs=args.epochs, labels=data.labels_train, x_test=data.x_test, seed=seed,
        out=out, resume=args.resume, notes={"data": name},
    )  # fmt: skip
    found = (
        ", ".join(f"{k} {v:.4g}" for k, v in history[-1].items() if k not in ("epoch", "seconds")) if history else ""
    )
    print(f"{args.model} on {name}: epoch {len(history)}, {time.perf_counter() - started:.1f} s. {found}")
    print(f"{out / 'checkpoint.npz'}\n{out / 'history.csv'}")


def sample(args):
    import numpy as np

    from .backend import to_host
    from .checkpoint import load_model, written_whole
    from .data import load
    from .model import call

    path = pathlib.Path(args.o)
    if args.n <= 0:
        raise UsageError(f"-n {args.n}: must be > 0")
    if path.suffix not in (".png", ".npy"):
        raise UsageError(f"-o {args.o}: expected a name that ends in .png or .npy")
    model, notes = load_model(pathlib.Path(args.dir) / "checkpoint.npz")
    takes_label = "label" in model.sample.__code__.co_varnames[: model.sample.__code__.co_argcount]
    if args.label is not None and not takes_label:
        raise UsageError(f"--label {args.label}: a {notes['model']} takes no label")
    given = {"n": args.n, "rng": model.rng(args.seed)} | ({} if args.label is None else {"label": args.label})
    x = to_host(call(model.sample, **given))
    if path.suffix == ".npy":
        with written_whole(path) as file:
            np.save(file, x)
    else:
        from .plots import picture_of

        picture_of(x, load(notes["data"], notes["seed"]), path)
    print(path)


def evaluate(args):
    from .checkpoint import load_model
    from .data import load

    model, notes = load_model(pathlib.Path(args.dir) / "checkpoint.npz")
    data = load(notes["data"], notes["seed"])
    found = {name: float(value) for name, value in model.evaluate(data.x_test, model.rng(0)).items()}
    if args.json:
        print(
            json.dumps(
                {"model": notes["model"], "data": notes["data"], "epoch": notes["epoch"], "n": len(data.x_test)} | found
            )
        )
        return
    print(f"{notes['model']} after epoch {notes['epoch']}, on {len(data.x_test)} test examples of {notes['data']}")
    for name, value in found.items():
        print(f"  {name:<20}{value:.5g}")


def main(argv=None):
    """Run one command; returns the exit code."""
    try:
        args = arguments().parse_args(argv)
        return args.function(args) or 0
    except UsageError as error:
        print(f"scratchgen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"scratchgen: {stopped or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # `... | head` has read enough: no complaint from Python on the way out
        return 0


if __name__ == "__main__":
    sys.exit(main())
