"""Compiled versions of a few operations. You do not need this folder to understand a model.

`operation` marks a function or a method of nn/ that also has a compiled form, in compiled.py. On NumPy arrays, and on
complex ones, the function runs as it is written in nn/: read that code, and set breakpoints in it. On a GPU the compiled
form runs instead, under the same name. There the host needs ten to forty microseconds to start an operation, however small
it is. A VAE's training step in plain array operations starts about 90 of them; with the compiled forms it starts 29. On
NumPy arrays compiled forms run if they are asked for (native.py), because they take fewer passes over memory. Some forms are
for NumPy arrays alone (cpp.ROWS); a GPU runs those functions as they are written.

`watched` marks a function whose calls can be looked at, as uses/explain/ does. Otherwise it changes nothing.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from . import compiled
from .compiled import DEVICES, MARKED, device_of

__all__ = ["DEVICES", "operation", "watched", "watching"]

F = TypeVar("F", bound=Callable[..., Any])
# Called in place of every watched function: watcher(function, given, named) returns what that is to return.
WATCHER: contextvars.ContextVar = contextvars.ContextVar("watcher", default=None)


def operation(plain: F) -> F:
    """The same function, except that on a device its compiled form runs, if there is one. `plain` is the original function.

    A form is found by its qualified name. For a method, this contains the object's own class. So a subclass, which may do
    something else, always runs as it is written. So does what is given arrays that a compiled form does not take.
    """
    name, method = f"{plain.__module__}.{plain.__qualname__}", plain.__code__.co_varnames[:1] == ("self",)

    @functools.wraps(plain)
    def run(*given: Any, **named: Any) -> Any:
        array = given[method] if len(given) > method else next(iter(named.values()), None)
        if device_of(array) is None:
            return plain(*given, **named)
        form = compiled.form_of(given[0], plain.__name__) if method else compiled.FORMS.get(name)
        try:
            return (form or plain)(*given, **named)
        except compiled.Misfit:
            return plain(*given, **named)

    marked: Any = run
    marked.plain = plain
    MARKED[name] = marked
    return marked


def watched(function: F) -> F:
    """The same function, except that inside `watching` the watcher is called in its place."""

    @functools.wraps(function)
    def run(*given: Any, **named: Any) -> Any:
        watcher = WATCHER.get()
        return watcher(function, given, named) if watcher else function(*given, **named)

    marked: Any = run
    return marked


@contextlib.contextmanager
def watching(watcher):
    """A context in which watcher(function, given, named) is called in place of every watched function."""
    token = WATCHER.set(watcher)
    try:
        yield
    finally:
        WATCHER.reset(token)
