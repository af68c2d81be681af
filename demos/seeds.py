"""Every number that a demo prints, for five seeds: the mean, and in brackets the least and the largest.

A claim that holds for one seed may be luck. This runs demos with several seeds, each in a process of its own, and prints
a table: each line once, with every number that depends on the seed replaced so. After ± stands the mean alone. Pictures
and outputs stay in the folder of --out, one for each seed.

Try `seeds.py gan vae --seeds 10`, `seeds.py gan --data mnist --seeds 3`. All demos take an hour and a half on two cores.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from common import ALIKE, results

from scratchgen.__main__ import Parser
from scratchgen.backend import UsageError
from scratchgen.commands.console import run_to_the_end

HERE = pathlib.Path(__file__).parent
APART = (
    "benchmark",
    "compare",
    "tour",
    "common",
    "recipes",
    "scaling",
    "seeds",
)  # with tables of their own, or no demos
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?%?(?![A-Za-z0-9_])")
NOT_RESULTS = re.compile(r"\d+ s|left out: .*|.*\.(png|gif|md|wav)|.* \d+ of \d+ done")  # lines that are left out
NAMES = re.compile(r"(test digit|digit is|worst,) $")  # before a number that is a name
AFTER = re.compile(r" s\b")  # after a number that is a time
TIME = re.compile(r"\d+(\.\d+)? s\b")


def run_one(name, data, compile, seed, out):
    """(the lines that a demo prints with one seed, ""), or if it fails (None, its last line of error)."""
    folder = out / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / f"{name}.py"), "--seed", str(seed), "--out", str(folder)]
    command += ["--data", data] if data else []
    command += ["--compile"] if compile else []
    one_thread = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # several processes share the cores
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread, check=False)
    if done.returncode:
        last = (done.stderr.splitlines() or ["no message"])[-1]
        return None, f"{name}.py --seed {seed} failed: {last}"
    (folder / f"{name}{f'_{pathlib.Path(data).stem}' if data else ''}.txt").write_text(done.stdout)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]  # columns may differ in width
    return [line for line in lines if not NOT_RESULTS.fullmatch(line)], ""


def table(runs):
    """The lines of several runs, each once. runs: [[line, ...], ...], a list for each seed."""
    found = {}  # (line without numbers, its how-manieth occurrence): the lines of all seeds
    for lines in runs:
        seen = Counter()
        for line in lines:
            key = NUMBER.sub("#", line.replace(ALIKE, ""))
            if NUMBER.search(line):
                found.setdefault((key, seen[key]), []).append(line)
            seen[key] += 1
    return [row for lines in found.values() if (row := joined(lines, len(runs)))]


def joined(lines, n_seeds):
    """One line of several that differ in their numbers only; "" if nothing but times differs."""
    if len({TIME.sub("", line) for line in lines}) == 1 and len(lines) == n_seeds:
        return ""
    same = sum(ALIKE in line for line in lines)
    texts = [line.replace(ALIKE, "") for line in lines]
    matches = [list(NUMBER.finditer(text)) for text in texts]
    words, place = "", 0
    for column in zip(*matches):
        first = column[0]
        before, after = texts[0][place : first.start()], texts[0][first.end() :]
        words += before + over_seeds([match[0] for match in column], words + before, after)
        place = first.end()
    words += texts[0][place:]
    if same:
        words += f" (cannot be told apart in {same} of {n_seeds} seeds)"
    return words + ("" if len(lines) == n_seeds else f" (printed in {len(lines)} of {n_seeds} seeds)")


def over_seeds(written, before, after):
    """Several values of one number as text: mean [least, largest], with as many digits as were written."""
    if len(set(written)) == 1:
        return written[0]
    if NAMES.search(before) and all(map(str.isdigit, written)):
        return "/".join(sorted(set(written)))
    values = [float(one.rstrip("%").replace(",", "")) for one in written]
    digits = max(len(one.rstrip("%").partition(".")[2]) for one in written)
    form = "{:.0e}".format if any("e" in one for one in written) else f"{{:,.{digits}f}}".format

    mean = form(np.mean(values)) + ("%" if written[0].endswith("%") else "")
    if before.endswith("± ") or AFTER.match(after):
        return mean
    return f"{mean} [{form(min(values))}, {form(max(values))}]"


def main(args):
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in APART)
    names = [name.removesuffix(".py") for name in args.demos] or known
    for name in names:
        if name not in known:
            raise UsageError(f"no demo {name}: use some of {', '.join(known)}")
    if args.seeds < 2:
        raise UsageError(f"--seeds must be 2 or more, got {args.seeds}")
    jobs = [(name, args.data, args.compile, seed, args.out) for name in names for seed in range(args.seeds)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(run_one, *job) for job in jobs]
        found = results(futures, "demo")
    print(f"| demo | seeds 0 to {args.seeds - 1}: mean [least, largest] |\n|---|---|")
    for i, name in enumerate(names):
        of_seeds = found[i * args.seeds : (i + 1) * args.seeds]
        if any(error for _, error in of_seeds):
            continue
        rows = table([lines for lines, _ in of_seeds])
        for row in rows or ["no number depends on the seed"]:
            row = row.replace("|", "\\|")
            print(f"| `{name}.py`{f' --data {args.data}' if args.data else ''} | {row} |")
    if errors := [error for _, error in found if error]:
        raise UsageError("; ".join(errors) + "; the table leaves out each demo that failed")


def start():
    """Parse the options and print the table. Returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", nargs="*", help="names of demos, such as gan; default: all")
    parser.add_argument("--seeds", type=int, default=5, help="how many; default: 5")
    parser.add_argument("--data", default="", help="default: what each demo takes itself")
    parser.add_argument("--compile", action="store_true", help="run kernels compiled for this CPU, which is faster")
    parser.add_argument("--out", default=HERE / "out" / "seeds", type=pathlib.Path, help="folder of what they make")
    return run_to_the_end(parser.prog, lambda: main(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(start())
