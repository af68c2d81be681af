"""Runs a demo as python runs it, and fails where one of its figures has numbers on an axis and no word for what they are.

python tests/demos/labelled.py demos/vae.py --quick
"""

import pathlib
import re
import runpy
import sys

from matplotlib.figure import Figure

NUMBER = re.compile(r"[-−+]?[\d.,]+ ?%?|\$.*\d.*\$")  # with a power of ten in TeX


def unlabelled(figure):
    """The axes of a drawn figure that show numbers without a label: ["x of TITLE", ...]."""
    found = []
    for axes in figure.axes:
        if not (axes.axison and axes.get_visible()):
            continue
        for name, axis, shared in (
            ("x", axes.xaxis, figure.get_supxlabel()),
            ("y", axes.yaxis, figure.get_supylabel()),
        ):
            shown = [text.get_text() for text in axis.get_ticklabels() if text.get_visible() and axis.get_visible()]
            if any(map(NUMBER.fullmatch, shown)) and not (axis.get_label_text() or shared):
                found.append(f"{name} of {axes.get_title()!r}")
    return found


def main():
    wrong, savefig = {}, Figure.savefig

    def checked(figure, *args, **options):
        savefig(figure, *args, **options)
        wrong.update(dict.fromkeys(unlabelled(figure)))

    Figure.savefig = checked
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
    if wrong:
        sys.exit(f"axes with numbers and no label: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
