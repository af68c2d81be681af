"""The folder for files that later runs use again: downloads and trained classifiers. It may be deleted at any time."""

import functools
import os
import sys
from pathlib import Path

from ..backend import UsageError


def cache_folder(kind):
    """The folder for files of one kind, $XDG_CACHE_HOME/scratchgen/KIND or ~/.cache/scratchgen/KIND.

    None if the user has no home folder. A message says so once. Everything also works without a cache.
    """
    own = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(own) if own else Path.home() / ".cache") / "scratchgen" / kind
    except RuntimeError:
        say_that_nothing_is_kept()
        return None


@functools.cache
def say_that_nothing_is_kept():
    line = "there is no home folder: nothing is kept for the next run (set HOME or XDG_CACHE_HOME to keep downloads)"
    print(line, file=sys.stderr, flush=True)


def full_path(name):
    """The Path of a name, which may begin with ~. Raises UsageError if that home folder is not known."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UsageError(f"{name}: the home folder that ~ stands for is not known; write the full path") from None
