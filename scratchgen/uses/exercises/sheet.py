"""Makes the file of an exercise from the source of this library, so that the two cannot differ.

A part is a class, a function or a method of ours. Its source is cut to what the exercise is about. Where something is to be
written, statements are taken out, and docstrings keep only their formula. To hide a bug, one text is replaced by another.
Then follow the checks, also by their source. Every name that the file uses is imported from where it is public.
"""

import ast
import functools
import importlib.util
import inspect
import re
import symtable
import sys
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import marking

WIDTH = 119
MARKERS = {"operation", "example"}  # decorators that say nothing about what a function computes
GUARDS = {"check_width", "same_shape", "_checked"}  # they only check arguments
PUBLIC = ("scratchgen", "scratchgen.nn")
GRADIENT = re.compile(r"∂|\bf[′″]|\bd[A-Za-zα-ω]* =|\bdy\b|Gradients")  # what would give the answer away
TODO = "your lines in place of"
BUG = (
    "One thing in the code below is wrong. The docstrings and the checks are right. Run this file to see which checks fail, "
    "find the mistake, and repair it until all of them pass."
)
BLANK = f"Write {TODO} each line with NotImplementedError, and run this file: it marks them."
LAYER = (
    "A layer's backward gets dy, the gradient of the loss in y. It adds the gradient of a weight W to self.dW, and returns "
    "that of x. If learn is false, it leaves self.dW as it is. If inputs is false, nobody needs the gradient of x: then "
    "return None, but still add to self.dW. "
)
XP = " xp stands for NumPy, or on a GPU for CuPy."


@dataclass(frozen=True)
class Blank:
    """Statements of a function's body that are taken out.

    at: the function inside its part, such as "forward.backward"; "" for the part itself. wanted: what must be written; the
    blank says it. first, last: how the first and the last statement begin that are taken out; "" for those of the body.
    values: names for the last values of the return statement, which stays with these names in their place.
    """

    at: str
    wanted: str
    first: str = ""
    last: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One class, function or method of ours in an exercise.

    methods: those of a class that are shown. blanks: what is taken out. hide: words of the source that would give the answer
    away. plant: (the right text, the wrong text) of a mistake.
    """

    what: Any
    methods: tuple[str, ...] = ("__init__", "forward")
    blanks: tuple[Blank, ...] = ()
    hide: tuple[str, ...] = ()
    plant: tuple[str, str] | None = None

    @property
    def module(self):
        return sys.modules[self.what.__module__]

    @property
    def file(self):
        return self.what.__module__.replace(".", "/") + ".py"

    @property
    def owner(self):
        """The class of a method, else None."""
        outer = self.what.__qualname__.rpartition(".")[0]
        return getattr(self.module, outer) if outer else None

    @property
    def name(self):
        """What the part is called in the exercise. A method of VAE is in a class MyVAE, which extends ours."""
        return f"My{self.owner.__name__}" if self.owner else self.what.__name__


@dataclass(frozen=True)
class Exercise:
    """An exercise: its parts, and a generator of the reports that mark it, whose arguments are the names of parts.

    level: from 1, easy, to 5. teaches: what the list says. task: what the file says besides. formula: (an object of ours,
    the first words of paragraphs of its docstring), which the file shows. seen: of a bug, where such a one was seen.
    """

    level: int
    teaches: str
    parts: tuple[Part, ...]
    checks: Callable[..., Any]
    task: str = ""
    formula: tuple[Any, tuple[str, ...]] | None = None
    seen: str = ""

    @property
    def files(self):
        """Our files that the parts are from."""
        return list(dict.fromkeys(part.file for part in self.parts))

    @property
    def is_bug(self):
        return any(part.plant for part in self.parts)


def sheet(name, exercise, then="", solved=False):
    """The text of an exercise's file. then: the name of the next one. solved: our own lines are in place.

    It imports NumPy and all that our own lines use, so that an answer can use them too.
    """
    checks = text_of(exercise.checks).partition(":\n")[2]
    ours, shown = (
        "\n\n\n".join(
            [
                *definitions(exercise, own),
                f"# ---- the checks that mark it ----\n\n\ndef checks():\n{checks.rstrip()}",
                f'if __name__ == "__main__":\n    sys.exit(mark("{name}", checks(), "{then}"))\n',
            ]
        )
        for own in (True, solved)
    )
    modules = [*(part.module for part in exercise.parts), sys.modules[exercise.checks.__module__], marking]
    return f'"""{head(name, exercise, solved)}\n"""\n\n{imports(free_names(ours) | {"np"}, modules)}\n\n\n{shown}'


def head(name, exercise, solved=False):
    """What the file says first."""
    title = f"{'Find the bug' if exercise.is_bug else 'Exercise'}, {name}: {exercise.teaches}."
    blanks = [blank for part in exercise.parts for blank in part.blanks]
    told = BUG if exercise.is_bug else LAYER + BLANK if any(b.at == "forward.backward" for b in blanks) else BLANK
    told = "Solved, with the lines of scratchgen." if solved else told
    told += XP if any(re.search(r"\bxp\b", text_of(part.what)) for part in exercise.parts) else ""
    ours = f"Ours: {', '.join(exercise.files)}, or scratchgen exercise {name} --solution"
    task = [textwrap.fill(exercise.task, WIDTH)] if exercise.task else []
    return "\n\n".join([title, *formulas(exercise), *task, textwrap.fill(told, WIDTH), ours])


def formulas(exercise):
    """The paragraphs of a docstring that an exercise shows. Raises ValueError for words that begin none."""
    where, beginnings = exercise.formula or (None, ())
    paragraphs = inspect.getdoc(where).split("\n\n") if where else []
    found = [text for words in beginnings for text in paragraphs if text.strip().startswith(words)]
    if len(found) != len(beginnings):
        raise ValueError(f"{where}: each of {beginnings} must begin one paragraph of its docstring")
    return found


def definitions(exercise, solved):
    """The source of each class and function. Methods of one class of ours stand in one class that extends it."""
    groups: dict[str, list[Part]] = {}
    for part in exercise.parts:
        groups.setdefault(part.name, []).append(part)
    for name, parts in groups.items():
        bodies = [source(part, solved, solved or exercise.is_bug) for part in parts]
        if parts[0].owner:
            methods = "\n\n".join(textwrap.indent(body, "    ") for body in bodies)
            yield f"class {name}({parts[0].owner.__name__}):\n{methods}"
        else:
            yield from bodies


def source(part, solved=True, docstrings=True):
    """The source of a part, without checks of arguments. Unless it is solved, it has its blanks, or its bug.

    Without docstrings, these are cut to their formula.
    """
    text = text_of(part.what)
    for old, new in [] if solved else [(words, "") for words in part.hide] + ([part.plant] if part.plant else []):
        text = replaced(text, old, new)
    top, lines = ast.parse(text).body[0], text.splitlines()
    cut: dict[int, list[str]] = {}  # {number of a line: the lines in its place}

    def cut_out(nodes, new=()):
        numbers = range(min(node.lineno for node in nodes), max(node.end_lineno for node in nodes) + 1)
        cut.update({number: [] for number in numbers} | {numbers[0]: list(new)})

    for method in functions(top) if isinstance(top, ast.ClassDef) else []:
        if method in top.body and method.name not in part.methods:
            cut_out([method, *method.decorator_list])
            top.body.remove(method)
    for node in [top, *functions(top)]:
        for mark in node.decorator_list:
            if {name.id for name in ast.walk(mark) if isinstance(name, ast.Name)} & MARKERS:
                cut_out([mark])
        for statement in filter(is_guard, list(node.body)):
            cut_out([statement])
            node.body.remove(statement)
        if not docstrings and (doc := docstring(node)):
            cut_out([doc], [" " * doc.col_offset + f'"""{formula(doc.value.value)}"""'])
    for blank in () if solved else part.blanks:
        function = inner(top, blank.at)
        gone, new = taken_out(blank, function, text)
        cut_out(gone, new)
        for number in range(function.lineno, function.body[0].lineno):  # a comment there may say the answer
            cut[number] = cut.get(number, [re.sub(r"  # .*=.*", "", lines[number - 1])])
    kept = [line for number, old in enumerate(lines, 1) for line in cut.get(number, [old])]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).rstrip()


@functools.cache
def text_of(what):
    """The source of a class or function, from the left margin."""
    return textwrap.dedent(inspect.getsource(what))


def taken_out(blank, function, text):
    """(the statements of a blank, the lines in their place)."""
    body = [statement for statement in function.body if statement is not docstring(function)]
    starts = [ast.get_source_segment(text, statement) for statement in body]
    gone = body[place(starts, blank.first, 0) : place(starts, blank.last, len(body) - 1) + 1]
    indent = " " * gone[0].col_offset
    new = [f'{indent}raise NotImplementedError("{blank.wanted}")  # {TODO} this one']
    if len(new[0]) > WIDTH:
        new = [f"{indent}# {TODO} the next one", new[0].partition("  #")[0]]
    if blank.values:
        elements = gone[-1].value.elts
        kept = [ast.get_source_segment(text, value) for value in elements[: len(elements) - len(blank.values)]]
        new.append(f"{indent}return {', '.join([*kept, *blank.values])}")
    return gone, new


def functions(top):
    return [node for node in ast.walk(top) if isinstance(node, ast.FunctionDef) and node is not top]


def inner(top, path):
    """The function at a path such as "forward.backward" inside a class or function, which itself has the path ""."""
    for name in filter(None, path.split(".")):
        (top,) = [function for function in top.body if getattr(function, "name", "") == name]
    return top


def docstring(node):
    """The statement that is the docstring of a class or function, or None."""
    first = node.body[0]
    return first if ast.get_docstring(node) is not None else None


def is_guard(statement):
    """Whether a statement only checks arguments."""
    if isinstance(statement, ast.If):
        return isinstance(statement.body[0], ast.Raise) and not statement.orelse
    called = getattr(statement, "value", None)
    return isinstance(called, ast.Call) and getattr(called.func, "id", "") in GUARDS


def formula(doc):
    """The formula of a docstring: its first line without what it says of gradients."""
    pieces = re.split(r" {4,}", doc.strip().splitlines()[0])
    return "      ".join([pieces[0], *(piece for piece in pieces[1:] if not GRADIENT.search(piece))])


def place(texts, beginning, otherwise):
    """The index of the one text that begins so; otherwise, if no beginning is given. Raises ValueError unless it is one."""
    found = [i for i, text in enumerate(texts) if text.startswith(beginning)] if beginning else [otherwise]
    if len(found) != 1:
        raise ValueError(f"{len(found)} statements begin with {beginning!r}, expected one")
    return found[0]


def replaced(text, old, new):
    """The text with one piece of it replaced. Raises ValueError unless it is there exactly once."""
    if text.count(old) != 1:
        raise ValueError(f"{old!r} is {text.count(old)} times in the source, expected once")
    return text.replace(old, new)


# ---- imports ----


def imports(used, modules):
    """The import statements for all used names that one of the modules knows."""
    names: dict[str, set[str]] = {}  # {where from: the names that are imported from there, none for a module itself}
    for name in used:
        for module in [module for module in modules if name in vars(module)][:1]:
            names.setdefault(origin(module, name), set()).update(() if is_outside(vars(module)[name]) else (name,))
    lines = [
        f"from {where} import {', '.join(sorted(found))}" if found else f"import {where}"
        for where, found in names.items()
    ]
    blocks: dict[str, list[str]] = {"standard": [], "numpy": [], "scratchgen": []}
    for line in sorted(lines, key=lambda line: (line.startswith("from"), line)):
        package = re.split(r"[ .]", line)[1]
        blocks.get(package, blocks["standard"]).append(line)
    return "\n\n".join("\n".join(block) for block in blocks.values() if block)


def free_names(code):
    """The global names that code uses and does not define."""
    tables = [symtable.symtable(code, "exercise", "exec")]
    own = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned()} | {"__name__"}
    for table in tables:
        tables += table.get_children()
    return {symbol.get_name() for table in tables for symbol in table.get_symbols() if symbol.is_global()} - own


def origin(module, name):
    """Where to import a name of a module from: a package of PUBLIC if it has the name, else the module that defines it."""
    value = vars(module)[name]
    if is_outside(value):
        return value.__name__ + (f" as {name}" if name != value.__name__ else "")
    for public in map(importlib.import_module, PUBLIC):
        if name in public.__all__ and vars(public)[name] is value:
            return public.__name__
    return imported_from(module).get(name, module.__name__)


@functools.cache
def imported_from(module):
    """{name: the module that a module imports it from}."""
    statements = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ImportFrom)]
    return {
        alias.name: importlib.util.resolve_name("." * node.level + (node.module or ""), module.__package__)
        for node in statements
        for alias in node.names
    }


def is_outside(value):
    return isinstance(value, types.ModuleType) and not value.__name__.startswith("scratchgen")
