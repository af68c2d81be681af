"""How a program ends in a terminal: a user's mistake gives one line on standard error and an exit code."""

import os
import sys

from ..backend import UsageError


def run_to_the_end(program, work):
    """The exit code of work(), which is a command or a demo: what work() returns, or 0.

    If something is wrong that the user can correct, this prints one line on standard error, "program: what is wrong; what to
    do", and the exit code is 2. Ctrl-C prints one line, and the exit code is 130. It is not an error if the reader of a pipe
    stops reading (`... | head`). Standard output may be closed, and it may lack Greek letters.
    """
    prepare_output()
    try:
        try:
            code = work() or 0
        except SystemExit as done:  # argparse has printed its --help
            code = done.code or 0
        sys.stdout.flush()
        return code
    except UsageError as error:
        message, code = str(error), 2
    except KeyboardInterrupt as stopped:
        message, code = str(stopped) or "stopped", 130
    except BrokenPipeError:
        throw_output_away()
        return 0
    except (
        OSError
    ) as error:  # a path too long, a folder that may not be entered, a full disk behind standard output, ...
        message, code = f"{error}; use another path", 2
    except MemoryError as error:
        message, code = f"not enough memory ({error}); make the model, the batch or the number of samples smaller", 2
    print(f"{program}: {' '.join(message.splitlines())}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        throw_output_away()
    return code


def prepare_output():
    """Make print work with any standard output: if it is closed, print does nothing; a missing letter becomes \\u03bc."""
    for name in ("stdin", "stdout", "stderr"):  # in this order, because a newly opened file gets the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def throw_output_away():
    """Discard standard output, which nobody reads any more, so that the interpreter prints no error when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
