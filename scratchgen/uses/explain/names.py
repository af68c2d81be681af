"""Names for what passes through a step: those that the code itself gives to its variables."""

import ast
import functools
import inspect
import itertools
import textwrap

from .events import code_of


def d_of(name):
    """The name of a gradient: dx, but d_mu."""
    return f"d{name}" if len(name) == 1 else f"d_{name}"


def parameter_names(function):
    """The names of the parameters of a function without self."""
    names = list(inspect.signature(function).parameters)
    return names[1:] if names[:1] == ["self"] else names


@functools.cache
def unpacked(function):
    """{parameter: names} of the parameters that a function takes apart, as in `h, e = pair`."""
    found = {}
    for node in ast.walk(tree_of(code_of(function))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and isinstance(node.targets[0], ast.Tuple):
            found.setdefault(node.value.id, names_in(node.targets[0]))
    return found


def names_in(target):
    """The names in what an assignment assigns to: a name, or a tuple of names."""
    if isinstance(target, ast.Tuple):
        return tuple(map(names_in, target.elts))
    return names_in(target.value) if isinstance(target, ast.Starred) else getattr(target, "id", "")


def tree_of(code):
    """The syntax tree of some code, which is empty if there is no file of it."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return ast.Module([], [])


def arguments(names, given, named):
    """All arguments in the order of the parameters, as far as they were given without a gap."""
    rest = itertools.takewhile(named.__contains__, names[len(given) :])
    return (*given, *(named[name] for name in rest))


def output_names(event, frame, y):
    """The name of what a call returns, or a tuple of names: y for a layer, else that of the variable it is assigned to."""
    if event.is_layer:
        pair = (
            isinstance(y, tuple) and len(y) == 2 and (hasattr(event.target, "inverse") or hasattr(event.target, "undo"))
        )
        return ("y", "log_det") if pair else "y"
    assigned = names_on_the_left(frame.f_code, frame.f_lineno, event.name)
    first = assigned[0] if isinstance(assigned, tuple) and assigned else assigned
    fits = isinstance(first, tuple) == isinstance(y, tuple) and (not isinstance(y, tuple) or len(first) == len(y))
    return first if first and fits else "value"


@functools.cache
def names_on_the_left(code, line, function):
    """What the statement on a line assigns the result of a function to: a name, a tuple of names, or "" if to nothing."""
    for node in ast.walk(tree_of(code)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            first, last = (code.co_firstlineno - 1 + number for number in (node.lineno, node.end_lineno or node.lineno))
            if first <= line <= last and getattr(node.value.func, "id", "") == function:
                return names_in(node.targets[0])
    return ""


def functions_of(kind):
    """{code: code of the method that it stands in} of all functions of a class, also of functions inside functions."""
    found = {}

    def add(code, owner):
        found[code] = owner
        for part in code.co_consts:
            if inspect.iscode(part):
                add(part, owner)

    for owner in kind.__mro__:
        for value in vars(owner).values():
            function = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if inspect.isfunction(function):
                add(function.__code__, function.__code__)
    return found
