"""The command line: scratchgen list | gradcheck | train | sample | evaluate | explain | exercise | explore.

A user's mistake ends in one line on standard error and exit code 2. Ctrl-C ends in one line and exit code 130.
"""

import argparse
import contextlib
import importlib
import sys

from .backend import UsageError, find_device
from .commands.console import run_to_the_end
from .kernels.native import compiled_kernels
from .train.parallel import connect, ended_together, launched, quiet


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}; see {self.prog} --help")


def natural(text):
    """The text as a whole number >= 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number >= 0, got {text!r}")
    return int(text)


def positive(text):
    """The text as a whole number > 0, for argparse."""
    if not natural(text):
        raise argparse.ArgumentTypeError("expected a whole number > 0, got 0")
    return int(text)


def arguments():
    parser = Parser(prog="scratchgen", description="Deep generative models with every gradient written by hand.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(name, help):
        sub = subparsers.add_parser(name, help=help, description=help)
        sub.set_defaults(command=name)
        return sub

    compile = {"action": "store_true", "help": "use kernels compiled for this CPU: faster, if there is a C++ compiler"}
    best = {"action": "store_true", "help": "the epoch with the least test loss (best.npz), instead of the last one"}
    device = {"choices": ["cpu", "gpu", "auto"], "default": "cpu", "help": "auto: a GPU if there is one (default: cpu)"}
    sub = command("list", "show models, data sets and demos, or the settings of one model")
    sub.add_argument("model", nargs="?", metavar="MODEL", help="show the settings of this model")

    sub = command("gradcheck", "check every gradient of this library; exit code 1 if any fails")
    sub.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="check only what has this in its name")
    sub.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    sub.add_argument("--compile", **compile)

    sub = command("train", "train a model into a folder")
    sub.add_argument("model", metavar="MODEL", help="one of the models that `list` shows")
    sub.add_argument(
        "--data", help="digits (default), mnist, fashion, a toy, a folder of pictures, a .npy, .npz or .csv file"
    )
    sub.add_argument("--epochs", type=natural, required=True, metavar="N", help="total number of passes over the data")
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for checkpoint.npz, best.npz and history.csv")
    sub.add_argument("--resume", action="store_true", help="continue from the checkpoint in DIR, with its settings")
    sub.add_argument(
        "--accept-new-data", action="store_true", help="continue although the data is not that of the run so far"
    )
    sub.add_argument("--device", **device)
    sub.add_argument("--compile", **compile)
    sub.add_argument("--graph", action="store_true", help="record the training step as a CUDA graph: faster on a GPU")
    sub.add_argument("--seed", type=natural, metavar="S", help="seed (default: 0, or that of the resumed run)")
    sub.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="name=value", help="settings of the model: see `list`"
    )

    sub = command("sample", "draw examples from a trained model")
    sub.add_argument("dir", metavar="DIR", help="the folder that was given to train --out")
    sub.add_argument("-n", type=int, default=64, help="how many examples (default: 64)")
    sub.add_argument(
        "-o", required=True, metavar="FILE", help="a .png file to look at, or a .npy or, for tables, .csv file"
    )
    sub.add_argument("--seed", type=natural, default=0, metavar="S", help="seed of the random numbers (default: 0)")
    sub.add_argument("--label", type=int, metavar="K", help="the class to draw, for models that take labels")
    sub.add_argument("--best", **best)
    sub.add_argument("--data", metavar="D", help="where the training data is now, for runs of older versions")
    sub.add_argument("--device", **device)
    sub.add_argument("--compile", **compile)

    sub = command("evaluate", "measure a trained model on its test data")
    sub.add_argument("dir", metavar="DIR", help="the folder that was given to train --out")
    sub.add_argument(
        "--draws", type=positive, default=100, metavar="K", help="importance weights for each example (default: 100)"
    )
    sub.add_argument(
        "--log-p", action="store_true", help="log p of 100 test examples by diffusion or flow matching: takes long"
    )
    sub.add_argument("--best", **best)
    sub.add_argument("--data", metavar="D", help="other data to measure on, or where the training data is now")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
    sub.add_argument("--device", **device)
    sub.add_argument("--compile", **compile)

    sub = command("explain", "show one training step: every layer, loss and gradient with its numbers")
    sub.add_argument("model", metavar="MODEL", help="one of the models that `list` shows")
    sub.add_argument("--objective", metavar="NAME", help="show only this objective, such as generator_loss")
    sub.add_argument("--data", metavar="D", help="a batch of real data, as for train (default: a tiny example)")
    sub.add_argument("--html", metavar="PAGE", help="write a page for a browser instead of printing a text")
    sub.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="name=value", help="settings of the model: see `list`"
    )

    sub = command("explore", "write a page for a browser, to drag through the codes or the noise of a trained model")
    sub.add_argument("dir", metavar="DIR", help="the folder that was given to train --out")
    sub.add_argument("-o", required=True, metavar="PAGE", help="the .html file to write")
    sub.add_argument("--data", metavar="D", help="where the training data is now")

    sub = command("exercise", "list the exercises, or write one to a file that marks your answer when it is run")
    sub.add_argument("name", nargs="?", metavar="NAME", help="one of the exercises that the list shows")
    sub.add_argument("-o", metavar="FILE", help="the .py file to write")
    sub.add_argument("--solution", action="store_true", help="show our own lines, or write the file with them")
    return parser


def main(argv=None):
    """The exit code of one command, which this runs."""
    rank, size = launched()

    def work():
        args = arguments().parse_args(argv)
        if size > 1 and args.command != "train":
            raise UsageError(f"{args.command} works on one process: start it without mpiexec")
        command = importlib.import_module(f".commands.{args.command}", __package__)  # imports only this command
        device, asked = getattr(args, "device", "cpu"), getattr(args, "compile", False)
        args.ranks = connect(device)
        compiled = compiled_kernels(find_device(device)) if asked else contextlib.nullcontext()
        with ended_together(args.ranks, "scratchgen"), compiled:
            return command.run(args)

    with quiet(rank):
        return run_to_the_end("scratchgen", work)


if __name__ == "__main__":
    sys.exit(main())
