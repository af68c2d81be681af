"""exercise: list the exercises, or write one to a file that marks your answer."""

import inspect
import sys

from ..backend import UsageError, full_path, written_whole
from ..uses.exercises.catalogue import EXERCISES, find, following
from ..uses.exercises.sheet import sheet, source


def run(args):
    if args.name is None:
        if args.o or args.solution:
            raise UsageError("exercise: give the name of one; scratchgen exercise lists them all")
        return list_exercises()
    exercise = find(args.name)
    if args.o is None:
        if not args.solution:
            raise UsageError(
                f"exercise {args.name}: give a file to write, -o {args.name}.py, or ask for the --solution"
            )
        return show_solution(exercise)
    path = full_path(args.o)
    check_name(path)
    with written_whole(path, "w") as file:
        file.write(sheet(args.name, exercise, following(args.name), args.solution))
    todo = "find the bug, then run" if exercise.is_bug else "write what is missing, then run"
    print(f"{path}: {'solved; to see its marks' if args.solution else todo}: python {path}")


def check_name(path):
    """Raise UsageError unless a new file of this name can be written and run."""
    if path.suffix != ".py":
        raise UsageError(f"-o {path}: expected a name that ends in .py")
    if path.exists():
        raise UsageError(f"-o {path}: there is such a file already; choose another name, or delete it first")
    if path.stem in sys.stdlib_module_names | {"numpy", "scratchgen"}:
        raise UsageError(f"-o {path}: Python has a module {path.stem}, which this file would hide; choose another name")


def list_exercises():
    print(
        "exercises, easy ones first: scratchgen exercise NAME -o NAME.py, fill in what is missing, and python NAME.py"
    )
    bugs = False
    for number, (name, exercise) in enumerate(EXERCISES.items(), 1):
        if exercise.is_bug and not bugs:
            print("\nfind the bug: one thing in each file is wrong, as it was in public code")
            bugs = True
        files = ", ".join(file.removeprefix("scratchgen/") for file in exercise.files)
        print(f"{number:3} {name:<19}level {exercise.level}  {exercise.teaches:<63}  {files}")


def show_solution(exercise):
    """Print our lines, or what is wrong and what is right."""
    for part in exercise.parts:
        if part.plant:
            right, wrong = part.plant
            print(f"{part.file}, {part.what.__qualname__}")
            for sign, text in (("-", wrong), ("+", right)):
                print("\n".join(f"{sign} {line}".rstrip() for line in inspect.cleandoc(text).splitlines()))
        elif not exercise.is_bug:
            print(f"# {part.file}, {part.what.__qualname__}\n{source(part)}\n")
    if exercise.seen:
        print(exercise.seen)
