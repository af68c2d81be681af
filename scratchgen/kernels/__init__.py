"""Compiled twins of a few operations. Nobody needs to open this to understand a model.

`operation` marks a function or a method of nn/ for which compiled.py has another form. On NumPy arrays, and on complex ones,
the function runs as it stands in nn/: that is the code to read and to set a breakpoint in. On a GPU its compiled form runs
in its place, under the same name: starting an operation there costs the host ten to forty microseconds, however small it is.
A VAE's training step in plain array operations starts some ninety; with the compiled forms it starts 29.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from . import compiled
from .compiled import DEVICES, MARKED, device_of

__all__ = ["DEVICES", "operation"]

F = TypeVar("F", bound=Callable[..., Any])


def operation(plain: F) -> F:
    """The same function, but on a device its compiled form runs, if there is one. The function itself is its `plain`.

    A form is found by the qualified name, of a method by that of the object's own class: so a subclass, which may do
    something else, always runs as it is written.
    """
    name, method = f"{plain.__module__}.{plain.__qualname__}", plain.__code__.co_varnames[:1] == ("self",)

    @functools.wraps(plain)
    def run(*given: Any, **named: Any) -> Any:
        if device_of(given[method]) is None:
            return plain(*given, **named)
        form = compiled.form_of(given[0], plain.__name__) if method else compiled.FORMS.get(name)
        return (form or plain)(*given, **named)

    marked: Any = run
    marked.plain = plain
    MARKED[name] = marked
    return marked
