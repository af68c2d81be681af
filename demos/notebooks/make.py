"""Runs layer.py, vae.py and diffusion_and_flow.py and saves them as notebooks. Edit these three, never a notebook.

Each of their cells begins with `# %%`. A line `# source: module:name` stands for the source of a class or function of the
library, exactly as in its file. In a code cell one can change it and run it again; in a text cell one reads it.

Try `python demos/notebooks/make.py` (two minutes; pip install -e ".[dev]").
"""

import argparse
import importlib
import inspect
import operator
import os
import pathlib
import re
import sys
import tempfile
import textwrap
from unittest import mock

from scratchgen.__main__ import Parser
from scratchgen.backend import UsageError, written_whole
from scratchgen.commands.console import run_to_the_end
from scratchgen.train.progress import told

HERE = pathlib.Path(__file__).parent
NAMES = ("layer", "vae", "diffusion_and_flow")
SOURCE = re.compile(r"^# source: ([\w.]+):([\w.]+)$|^source: ([\w.]+):([\w.]+)$", re.MULTILINE)


def source_of(module, name):
    """The source of scratchgen.module:name, without indentation."""
    found = operator.attrgetter(name)(importlib.import_module(f"scratchgen.{module}"))
    return textwrap.dedent(inspect.getsource(found)).rstrip()


def notebook(name):
    """The notebook of a source, without outputs."""
    import jupytext

    made = jupytext.reads((HERE / f"{name}.py").read_text(encoding="utf-8"), fmt="py:percent")
    for i, cell in enumerate(made.cells):
        fence = "```python\n{}\n```" if cell.cell_type == "markdown" else "{}"

        def filled(match, fence=fence):
            return fence.format(source_of(*filter(None, match.groups())))

        cell.source = SOURCE.sub(filled, cell.source)
        cell.id, cell.metadata = f"cell-{i}", {}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    made.nbformat, made.nbformat_minor = 4, 5
    return made


def run(made):
    """Execute the cells of a notebook in place. Raises nbclient's CellExecutionError if one fails."""
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:  # IPython and Jupyter would write into the home
        places = dict.fromkeys(("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR"), folder)
        with mock.patch.dict(os.environ, places):
            NotebookClient(made, timeout=600, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    for cell in made.cells:
        cell.metadata = {}  # without the times of running


def main(args):
    for name in args.names:
        if name not in NAMES:
            raise UsageError(f"no notebook {name}: use some of {', '.join(NAMES)}")
    try:
        import jupytext
        import nbclient
        import nbformat
    except ImportError as error:
        raise UsageError(f'notebooks need {error.name}: pip install -e ".[dev]"') from None
    for name in told(args.names or NAMES, "notebook"):
        made = notebook(name)
        run(made)
        path = args.out / f"{name}.ipynb"
        with written_whole(path) as file:
            file.write((nbformat.writes(made) + "\n").encode())
        print(path, flush=True)


def start():
    """Parse the options and write the notebooks. Returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(NAMES)}; default: all")
    parser.add_argument("--out", default=HERE, type=pathlib.Path, help="folder; default: that of this file")
    return run_to_the_end(parser.prog, lambda: main(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(start())
