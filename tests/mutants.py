"""Small mistakes, put into nn/ and models/ one at a time: how many of them do the default tests catch?

    python tests/mutants.py --n 400 --seed 0 --out mutants.json            # 45 minutes on one core; run again, it goes on
    python tests/mutants.py --n 400 --seed 0 --out mutants.json --again    # those that survived once more, after a new test
    python tests/mutants.py --n 100 --files flow,spline --out flow.json    # of files with one of these words in their names
    python tests/mutants.py --list                                         # every mutant there is

It needs Linux or macOS, and nothing beyond pip install -e ".[test]". The working tree is never changed: each mutant is
written into a copy in a temporary folder.

A mutant is one change on one line:

    arithmetic   + ↔ -, * ↔ /, ** -> *, // -> /, % -> *, & -> |, a unary minus dropped, a returned product or sum negated
    number       0 -> 1, 1 -> 2, n -> n + 1, 0.0 -> 1.0, c -> 2 c; axis=0 ↔ axis=1; True ↔ False
    comparison   < ↔ <=, > ↔ >=, == ↔ !=, is ↔ is not, in ↔ not in
    logic        and ↔ or, `not` dropped, the condition of if, while, a if b else c or a comprehension negated
    statement    += -> =, += ↔ -=, *= ↔ /=; a call, an assignment to an attribute or an item, a second assignment to a name
                 or an early return, break or continue deleted
    function     min ↔ max, minimum ↔ maximum, argmin ↔ argmax, sum ↔ mean, any ↔ all, sin ↔ cos, zeros ↔ ones,
                 zeros_like ↔ ones_like, floor ↔ ceil; .T or .copy() dropped

Left alone: annotations, decorators, strings, what is raised, numbers that are defaults of a model's settings (choices, not
formulas), defaults of arguments that a function does not read, and what only says on which example the checks are to run:
`tiny` and the classmethods `example`.

First it runs the default tests once and notes which lines each of them reaches. Then each mutant meets first the quick tests
that reach its line and are named after its file or function, then all others that reach it; what has survived meets the rest
of the default tests. One failure is enough, and so is a run that takes too long. Hypothesis draws the same examples each
time. Two tests that compare a page with the text of a file are left out: they see any change.
"""

import argparse
import ast
import collections
import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("scratchgen/nn", "scratchgen/models")
TEXT_TESTS = "_as_it_stands_in_its_file"
SOON = 4.0  # seconds of the first tests that a mutant meets
PATIENCE = 30.0  # seconds of processor time, on top of three times what the tests take without a mutant
MEMORY = 12 * 2**30
PRELOADED = ["pytest", "hypothesis.strategies", "numpy.testing", "scipy.integrate", "scipy.optimize", "scipy.stats"]
PRELOADED += ["matplotlib.pyplot", "matplotlib.animation", "PIL.Image"]

# ---- the mutants ----

ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.Pow: ("**", "*")}
ARITHMETIC |= {ast.FloorDiv: ("//", "/"), ast.Mod: ("%", "*"), ast.BitAnd: ("&", "|")}
COMPARISONS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
EQUALITIES = {ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is")}
EQUALITIES |= {ast.In: ("in", "not in"), ast.NotIn: ("not in", "in")}
PAIRS = [("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("sum", "mean"), ("any", "all"), ("sin", "cos")]
PAIRS += [("zeros_like", "ones_like"), ("floor", "ceil"), ("zeros", "ones")]
FUNCTIONS = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}


@dataclasses.dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    function: str  # with its class and the functions around it; "" at the top of a file
    text: str  # the line
    change: str
    start: int  # the bytes of the file that are replaced
    end: int
    new: str
    first: int  # a test that reaches one of the lines first ... last reaches the mutant
    last: int

    @property
    def key(self):
        return f"{self.file}:{self.line}:{self.start}-{self.end}:{self.new}"

    def applied(self, source):
        return source[: self.start] + self.new.encode() + source[self.end :]


class Finder(ast.NodeVisitor):
    """Collects the mutants of one file."""

    def __init__(self, file, source):
        self.file, self.source, self.found = file, source, []
        self.lines = source.split(b"\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.names, self.bound, self.reach = [], [], (1, len(self.lines))  # reach: first and last line
        self.in_function = self.in_if = False

    def span(self, node):
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def add(self, start, end, new):
        old = self.source[start:end].decode()
        if "\n" in old:  # one change on one line
            return
        line = self.source.count(b"\n", 0, start) + 1
        short = [part if len(part) < 50 else f"{part[:46]} ..." for part in (old, new)]
        change = f"{short[0]} → {short[1]}" if old and new else f"{short[0]} dropped" if old else f"{short[1]} added"
        text = self.lines[line - 1].decode().strip()
        self.found.append(
            Mutant(self.file, line, ".".join(self.names), text, change, start, end, new, self.reach[0], self.reach[1])
        )

    def operator(self, left, right, old, new):
        """Replace the operator between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        between = re.sub(rb"#[^\n]*", lambda comment: b" " * len(comment[0]), self.source[start:end])
        match = re.search(rb"\s+".join(re.escape(word).encode() for word in old.split()), between)
        self.add(start + match.start(), start + match.end(), new)

    # what is left alone

    def visit_Raise(self, node):
        pass

    def visit_JoinedStr(self, node):
        pass

    def visit_AnnAssign(self, node):
        if not self.in_function and not isinstance(getattr(node.value, "value", None), bool):
            return  # the default of a setting
        if node.value:
            self.visit(node.value)

    # definitions

    def visit_ClassDef(self, node):
        kept = self.reach
        self.names.append(node.name)
        self.reach = node.lineno, node.end_lineno
        for statement in node.body:
            target = getattr(statement, "targets", [None])[0]
            if getattr(target, "id", None) != "tiny":
                self.visit(statement)
        self.names.pop()
        self.reach = kept

    def visit_FunctionDef(self, node):
        if node.name == "example" and self.names:
            return
        kept = self.reach, self.in_function, self.in_if
        self.names.append(node.name)
        self.reach = node.lineno, node.end_lineno
        plain = (*node.args.posonlyargs, *node.args.args)
        defaults = [*zip(plain[len(plain) - len(node.args.defaults) :], node.args.defaults)]
        defaults += zip(node.args.kwonlyargs, node.args.kw_defaults)
        used = {part.id for statement in node.body for part in ast.walk(statement) if isinstance(part, ast.Name)}
        for argument, default in defaults:
            if default and argument.arg in used:
                self.visit(default)
        self.in_function, self.in_if = True, False
        arguments = (*plain, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
        self.bound.append({argument.arg for argument in arguments if argument})
        for statement in node.body:
            self.visit(statement)
        self.bound.pop()
        self.names.pop()
        self.reach, self.in_function, self.in_if = kept

    def visit_Lambda(self, node):
        kept = self.reach, self.in_function
        if not self.in_function:
            self.reach, self.in_function = (node.lineno, node.end_lineno), True
        self.visit(node.body)
        self.reach, self.in_function = kept

    # statements

    def visit(self, node):
        if not isinstance(node, ast.stmt) or not self.in_function:
            return super().visit(node)
        kept = self.reach
        body = getattr(node, "body", None)
        last = max(node.lineno, body[0].lineno - 1) if isinstance(body, list) else node.end_lineno
        self.reach = node.lineno, last
        if isinstance(node, ast.For):  # what it runs over is reached where its first line is
            self.visit(node.target), self.visit(node.iter)
            self.blocks(node.body, node.orelse)
        elif isinstance(node, ast.If | ast.While):
            self.condition(node.test)
            self.blocks(node.body, node.orelse)
        else:
            super().visit(node)
        self.reach = kept

    def blocks(self, *blocks):
        kept, self.in_if = self.in_if, True
        for block in blocks:
            for statement in block:
                self.visit(statement)
        self.in_if = kept

    def delete(self, node):
        if self.in_function and node.lineno == node.end_lineno:
            self.add(*self.span(node), "pass")

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call):
            self.delete(node)
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Assign(self, node):
        parts = [part for target in node.targets for part in ast.walk(target) if isinstance(part, ast.expr)]
        stored = [part for part in parts if isinstance(getattr(part, "ctx", None), ast.Store)]
        names = {part.id for part in stored if isinstance(part, ast.Name)}
        if self.bound and names <= self.bound[-1]:  # every name has a value without this line
            self.delete(node)
        if self.bound:
            self.bound[-1] |= names
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        self.delete(node)
        old, new = ARITHMETIC.get(type(node.op), ("|", ""))
        if type(node.op) in (ast.Add, ast.Sub, ast.Mult, ast.Div):
            self.operator(node.target, node.value, f"{old}=", f"{new}=")
        self.operator(node.target, node.value, f"{old}=", "=")
        self.generic_visit(node)

    def visit_Return(self, node):
        if self.in_if:
            self.delete(node)
        if isinstance(node.value, ast.BinOp) and not self.text_like(node.value):
            start, end = self.span(node.value)
            if node.value.lineno == node.value.end_lineno:
                text = self.source[start:end].decode()
                self.add(start, end, f"-({text})")
        self.generic_visit(node)

    def visit_Break(self, node):
        self.delete(node)

    visit_Continue = visit_Break

    # expressions

    def text_like(self, node):
        """Whether an operand is a text, a list or the like, whose sum or product is no arithmetic."""
        kinds = (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
        return any(
            isinstance(part, kinds) or isinstance(getattr(part, "value", None), str)
            for part in (node.left, node.right)
            if not isinstance(part, ast.Attribute)
        )

    def visit_BinOp(self, node):
        if type(node.op) in ARITHMETIC and not self.text_like(node):
            self.operator(node.left, node.right, *ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        start, end = self.span(node)[0], self.span(node.operand)[0]
        if isinstance(node.op, ast.USub):
            self.add(start, start + 1, "")
        elif isinstance(node.op, ast.Not):
            self.add(start, start + len("not "), "")
        elif isinstance(node.op, ast.Invert):
            self.add(start, end, "")
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.operator(left, right, old, new)
        self.generic_visit(node)

    def visit_Compare(self, node):
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            self.operator(left, right, *(COMPARISONS | EQUALITIES)[type(op)])
        self.generic_visit(node)

    def condition(self, node):
        equality = isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in EQUALITIES
        denial = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        if not equality and not denial and node.lineno == node.end_lineno:  # those have this change already
            start, end = self.span(node)
            self.add(start, end, f"not ({self.source[start:end].decode()})")
        self.visit(node)

    def visit_IfExp(self, node):
        self.visit(node.body)
        self.condition(node.test)
        self.visit(node.orelse)

    def visit_comprehension(self, node):
        self.visit(node.target)
        self.visit(node.iter)
        for test in node.ifs:
            self.condition(test)

    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool):
            new = str(not value)
        elif isinstance(value, int):
            new = str(value + 1)
        elif isinstance(value, float):
            new = repr(2 * value) if value else "1.0"
        else:
            return
        self.add(*self.span(node), new)

    def visit_keyword(self, node):
        if node.arg == "axis" and getattr(node.value, "value", None) in (0, 1):
            self.add(*self.span(node.value), str(1 - node.value.value))
        else:
            self.visit(node.value)

    def visit_Call(self, node):
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        end = self.span(node.func)[1]
        if name in FUNCTIONS:
            self.add(end - len(name), end, FUNCTIONS[name])
        if name == "copy" and not node.args and isinstance(node.func, ast.Attribute):
            self.add(end - len(".copy"), end + len("()"), "")
        self.generic_visit(node)

    def visit_Attribute(self, node):
        if node.attr == "T":
            end = self.span(node)[1]
            self.add(end - len(".T"), end, "")
        self.generic_visit(node)


def mutants():
    """Every mutant, by file and place."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            source = path.read_bytes()
            finder = Finder(str(path.relative_to(ROOT)), source)
            finder.visit(ast.parse(source))
            for mutant in sorted(finder.found, key=lambda mutant: (mutant.start, mutant.end, mutant.new)):
                with contextlib.suppress(SyntaxError):
                    ast.parse(mutant.applied(source))
                    found.append(mutant)
    return found


# ---- running tests in a process of their own ----


class Report:
    """A pytest plugin that runs the chosen tests in the given order and keeps the first failure."""

    def __init__(self, chosen):
        self.order = None if chosen is None else {test: i for i, test in enumerate(chosen)}
        self.failed, self.ran, self.found = None, 0, []

    def pytest_collection_modifyitems(self, config, items):
        items[:] = [item for item in items if TEXT_TESTS not in item.nodeid]
        if self.order is not None:
            items[:] = sorted(
                (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
            )

    def pytest_collection_finish(self, session):
        self.found = [item.nodeid for item in session.items]

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed = self.failed or f"{report.nodeid} (import)"

    def pytest_runtest_logreport(self, report):
        self.ran += report.when == "call"
        if report.failed and not self.failed:
            self.failed = report.nodeid


class Tracer(Report):
    """A pytest plugin that also notes each test's seconds, the lines it reaches, and whether it starts processes."""

    def __init__(self, chosen, copy):
        super().__init__(chosen)
        self.prefix = f"{copy}/"
        self.rooms = tuple(f"{copy}/{room}/" for room in ROOMS)
        self.tests, self.todo, self.done = {}, {}, {}
        self.started = False
        sys.addaudithook(self.heard)

    def heard(self, event, given):
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            self.started = True

    def trace(self, frame, event, given):
        code = frame.f_code
        if not code.co_filename.startswith(self.rooms):
            return None
        left = self.done.get(code)
        if left is None:
            left = self.done[code] = {line for _, _, line in code.co_lines() if line}
        if not left:
            return None
        lines = self.lines[code.co_filename]

        def local(frame, event, given):
            if event == "line":
                lines.add(frame.f_lineno)
                left.discard(frame.f_lineno)
            return local if left else None

        return local

    def pytest_runtest_logstart(self, nodeid):
        self.lines, self.done, self.started = collections.defaultdict(set), {}, False
        self.since = time.perf_counter()
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def pytest_runtest_logfinish(self, nodeid):
        sys.settrace(None)
        threading.settrace(None)
        masks = {path.removeprefix(self.prefix): sum(1 << n for n in lines) for path, lines in self.lines.items()}
        lines = {path: f"{mask:x}" for path, mask in masks.items() if mask}
        seconds = round(time.perf_counter() - self.since, 4)
        self.tests[nodeid] = {"seconds": seconds, "lines": lines, "starts": self.started}

    def pytest_runtest_logreport(self, report):
        super().pytest_runtest_logreport(report)
        if report.failed:
            print(f"fails without a mutant: {report.nodeid}\n{report.longreprtext}", file=sys.stderr)


def preload():
    """Import here, once, what every test needs and no mutant changes."""
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() not in (ROOT, ROOT / "tests")]
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for module in PRELOADED:
        importlib.import_module(module)
    import hypothesis

    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a smaller failing example is of no interest
    hypothesis.settings.register_profile(
        "mutants", max_examples=20, deadline=None, derandomize=True, database=None, phases=phases
    )
    assert not any(name.partition(".")[0] == "scratchgen" for name in sys.modules)


def in_child(work, limit, log):
    """What work() returns, a thing for JSON, or None if it dies or needs more than limit seconds of processor time."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            os.close(read)
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 1))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            quiet = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            found = work()
            with open(write, "w") as pipe:
                json.dump(found, pipe)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    parts = []

    def listen():
        with open(read) as pipe:
            parts.append(pipe.read())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    listener.join(60 + 20 * limit)  # one that waits uses no processor, and others may be using it
    late = listener.is_alive()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    listener.join(5)
    return json.loads(parts[0]) if parts and parts[0] and not late else None


class Copy:
    """A copy of the repository in a temporary folder, in which tests run with and without a mutant."""

    def __init__(self, folder):
        self.folder, self.log = Path(folder) / "scratchgen", Path(folder) / "log.txt"
        ignored = shutil.ignore_patterns("__pycache__", ".git", ".hypothesis", ".*_cache", "out", "*.egg-info")
        shutil.copytree(ROOT, self.folder, ignore=ignored)
        self.home, self.clock = Path(folder) / "scratchgen-tests-home", 0

    def pytest(self, plugin, *options):
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        self.home.mkdir(exist_ok=True)
        os.environ |= {"HOME": str(self.home), "USERPROFILE": str(self.home), "PYTHONPATH": str(self.folder)}
        os.environ |= {"HYPOTHESIS_PROFILE": "mutants", "PYTHONDONTWRITEBYTECODE": "1"}
        import pytest

        told = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]  # Hypothesis is there
        return int(pytest.main([*told, *options], plugins=[plugin]))

    def collected(self):
        """The names of all default tests."""

        def work():
            plugin = Report(None)
            assert self.pytest(plugin, "--collect-only") == 0
            return plugin.found

        found = in_child(work, 300, self.log)
        if not found:
            sys.exit(f"the tests cannot be collected:\n{self.log.read_text()[-2000:]}")
        return found

    def traced(self, tests):
        """{test: its seconds, lines, ...} of those that pass."""

        def work():
            sys.dont_write_bytecode = False
            plugin = Tracer(tests, self.folder)
            self.pytest(plugin, *sorted({test.partition("::")[0] for test in tests}))
            return plugin.tests

        found = in_child(work, 3600, self.log)
        for line in self.log.read_text().splitlines():
            if line.startswith("fails without"):
                print(line)
        return found

    def run(self, tests, limit):
        """The test that fails first, "" if all pass, or "(too long)"."""

        def work():
            sys.dont_write_bytecode = True
            plugin = Report(tests)
            code = self.pytest(plugin, "-x", *sorted({test.partition("::")[0] for test in tests}))
            return plugin.failed or ("" if code == 0 and plugin.ran else f"(pytest ended with {code})")

        found = in_child(work, limit, self.log)
        shutil.rmtree(self.home, ignore_errors=True)
        return "(too long, or the process died)" if found is None else found

    @contextlib.contextmanager
    def holding(self, mutant):
        """The copy with a mutant in it. Its time of change is new, so no compiled file counts as its own."""
        path = self.folder / mutant.file
        source, before = path.read_bytes(), path.stat()
        self.clock += 1
        path.write_bytes(mutant.applied(source))
        os.utime(path, (2e9 + self.clock, 2e9 + self.clock))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# ---- which tests meet a mutant ----


def digest(*paths):
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def reached(copy, path):
    """{test: {"seconds": ..., "lines": {file: mask}, "starts": whether it starts processes}}, kept in a file."""
    package = digest(*sorted((ROOT / "scratchgen").rglob("*.py")))
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept = kept if kept.get("package") == package else {"package": package, "files": {}, "tests": {}}
    tests = copy.collected()
    files = {file: digest(ROOT / file) for file in {test.partition("::")[0] for test in tests}}
    new = [test for test in tests if kept["files"].get(test.partition("::")[0]) != files[test.partition("::")[0]]]
    if new:
        print(f"which lines do {len(new)} tests reach?", flush=True)
        kept["tests"] |= copy.traced(new)
    kept["tests"] = {test: kept["tests"][test] for test in tests if test in kept["tests"]}
    kept["files"] = files
    path.write_text(json.dumps(kept))
    return {
        test: known | {"lines": {file: int(mask, 16) for file, mask in known["lines"].items()}}
        for test, known in kept["tests"].items()
    }


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def in_order(mutant, tests):
    """(the tests that reach a mutant, the others), those first that are likeliest to catch it in the shortest time."""
    mask = (1 << (mutant.last + 1)) - (1 << mutant.first)
    stem, room = Path(mutant.file).stem, mutant.file.split("/")[1]
    names = [plain(name) for name in (stem, *mutant.function.split(".")) if len(plain(name)) > 2]
    seen, ranked = collections.Counter(), []
    for test, known in tests.items():
        file, _, rest = test.partition("::")
        plain_test, of = plain(test), rest.partition("[")[0]
        near = 0 if f"test_{stem}.py" in file else 1 if any(name in plain_test for name in names) else 2
        near += 0 if f"tests/{room}/" in file or "test_gradients" in file else 1
        reaches = bool(known["lines"].get(mutant.file, 0) & mask)
        seen[file, of] += reaches
        again = min(seen[file, of].bit_length(), 4)  # few of one test's cases first
        ranked.append((again, near, known["seconds"], test, reaches))
    ranked.sort()
    return tuple([test for *_, test, reaches in ranked if reaches == wanted] for wanted in (True, False))


def soon(order, tests):
    """The first few seconds of them, from at most six files, because each file takes time to import."""
    chosen, files, seconds = [], set(), 0.0
    for test in order:
        file = test.partition("::")[0]
        if seconds > SOON or (len(files) == 6 and file not in files):
            continue
        files.add(file)
        seconds += tests[test]["seconds"]
        chosen.append(test)
    return chosen


def fate(mutant, copy, tests, whole):
    """{"caught": the test that fails or "", "reached": by how many tests, ...} of one mutant."""
    since, (order, others) = time.perf_counter(), in_order(mutant, tests)
    first = soon(order, tests)
    later = [test for test in order if test not in set(first)]
    rest = others if whole else []
    caught = ""
    for stage, chosen in (("soon", first), ("reaching", later), ("rest", rest)):
        if not chosen or caught:
            continue
        limit = PATIENCE + 3 * sum(tests[test]["seconds"] for test in chosen) + 0.02 * len(chosen)
        with copy.holding(mutant):
            caught = copy.run(chosen, limit)
        while stage != "soon" and caught in tests and copy.run([caught], 300):
            print(f"not counted, because it fails without the mutant: {caught}", flush=True)
            chosen = [test for test in chosen if test != caught]
            with copy.holding(mutant):
                caught = copy.run(chosen, limit)
        last = stage
    found = {"caught": caught, "by": last if order or whole else "", "reached": len(order)}
    return found | {"seconds": round(time.perf_counter() - since, 1)}


# ---- the list ----


def table(rows):
    """Markdown: the mutants that survived."""
    lines = ["| file | function | line | change | tests that reach it |", "|---|---|---|---|---|"]
    for mutant, found in rows:
        text, change = (part.replace("|", "\\|") for part in (mutant.text, mutant.change))
        file = mutant.file.removeprefix("scratchgen/")
        lines.append(f"| `{file}:{mutant.line}` | `{mutant.function}` | `{text}` | `{change}` | {found['reached']} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=400, help="how many mutants (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default 0)")
    parser.add_argument(
        "--files", default="", help="only files with one of these words, between commas, in their names"
    )
    parser.add_argument("--out", type=Path, default=Path("mutants.json"), help="where the results are kept")
    parser.add_argument("--again", action="store_true", help="run those that survived once more")
    parser.add_argument("--quick", action="store_true", help="only tests that are known to reach the line")
    parser.add_argument("--list", action="store_true", help="print all mutants and run nothing")
    given = parser.parse_args()

    words = given.files.split(",")
    everything = [mutant for mutant in mutants() if any(word in Path(mutant.file).stem for word in words)]
    if given.list:
        for mutant in everything:
            print(f"{mutant.file}:{mutant.line} {mutant.function}: {mutant.text}   [{mutant.change}]")
        return
    drawn = random.Random(given.seed).sample(everything, min(given.n, len(everything)))
    drawn.sort(key=everything.index)
    out = given.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(out.read_text()) if out.exists() else {}
    print(f"{len(drawn)} of {len(everything)} mutants", flush=True)
    preload()
    with tempfile.TemporaryDirectory(prefix="scratchgen-mutants-") as folder:
        copy = Copy(folder)
        tests = reached(copy, out.with_suffix(".reach.json"))
        for i, mutant in enumerate(drawn):
            known = results.get(mutant.key)
            if known and (known["caught"] or not given.again):
                continue
            found = results[mutant.key] = fate(mutant, copy, tests, not given.quick)
            out.write_text(json.dumps(results, indent=1))
            outcome = f"caught by {found['caught']}" if found["caught"] else "SURVIVED"
            place = f"{mutant.file}:{mutant.line} {mutant.change}"
            print(f"{i + 1}/{len(drawn)} {found['seconds']} s  {place}  {outcome}", flush=True)
    rows = [(mutant, results[mutant.key]) for mutant in drawn]
    alive = [row for row in rows if not row[1]["caught"]]
    share = 100 * (1 - len(alive) / max(1, len(rows)))
    print(f"\n{len(rows) - len(alive)} of {len(rows)} caught: {share:.1f} %\n\n{table(alive)}")


if __name__ == "__main__":
    main()
