"""The table and the figure of benchmark.py.

They are made from rows: dicts with a measurement, a case, a contestant, and a number under the name of its unit.
"""

import numpy as np
from peers import contestants as who
from peers.contestants import FLOOR, ORDER, OURS

from scratchgen.plots import BLUE, GREY, INK, RED, new_figure, save_figure

UNITS = "ms", "MB", "slope"
SIZES = {"batch": "batch of the VAE 784-400-20", "width": "n of the VAE 784-n-20, batch 128"}  # labels of axes
MARKS = {  # {contestant: (marker, colour, its filling)}
    who.OURS: ("o", BLUE, "white"),
    who.KERNELS: ("o", BLUE, BLUE),
    who.GRAPH: ("D", BLUE, BLUE),
    who.EAGER: ("s", RED, "white"),
    who.FUSED: ("s", RED, RED),
    who.COMPILED: ("^", RED, RED),
    who.REDUCED: ("v", RED, "white"),
    who.THEIR_GRAPH: ("D", RED, RED),
    who.JAX: ("X", INK, INK),
    who.SKLEARN: ("P", RED, RED),
    who.FLOOR: ("|", GREY, GREY),
}


def unit_of(row):
    return next(unit for unit in UNITS if unit in row)


def short(number):
    """Three digits."""
    return f"{number:,.0f}" if number >= 999.5 else f"{number:#.3g}".rstrip(".")


def named(rows, key):
    return list(dict.fromkeys(row[key] for row in rows))


def taking_part(rows):
    """The contestants of the rows, in the order of the columns."""
    found = named(rows, "contestant")
    return [name for name in ORDER if name in found]


def numbers(rows, case):
    """{contestant: number} of a case."""
    return {row["contestant"]: row[unit_of(row)] for row in rows if row["case"] == case}


def with_slopes(rows):
    """The rows, and for each contestant the slope of log time against log size, where several sizes were measured."""
    found = list(rows)
    for what in SIZES:
        for name in taking_part(rows):
            mine = [row for row in rows if row["measurement"] == what and row["contestant"] == name]
            if len(mine) > 1:
                slope, _ = np.polyfit(*np.log([(row["size"], row["ms"]) for row in mine]).T, 1)
                case = f"log time against log {what}"
                found.append({"measurement": "slope", "case": case, "contestant": name, "slope": float(slope)})
    return found


def table(rows):
    """Markdown: a line for each case, a column for each contestant. The best number is bold; the products do not compete."""
    names = taking_part(rows)
    lines = [f"| | unit | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for case in named(rows, "case"):
        unit = next(unit_of(row) for row in rows if row["case"] == case)
        found = numbers(rows, case)
        cells = {name: short(number) for name, number in found.items()}
        competing = [name for name in found if name != FLOOR and unit != "slope"]
        if len(competing) > 1:
            best = min(competing, key=found.get)
            cells[best] = f"**{cells[best]}**"
        lines.append(f"| {case} | {unit} | {' | '.join(cells.get(name, '') for name in names)} |")
    return "\n".join([*lines, ""])


# The figure


def draw_marks(axis, x, y, name, **options):
    marker, colour, filling = MARKS[name]
    axis.plot(x, y, marker=marker, color=colour, markerfacecolor=filling, label=name, **options)


def draw_ratios(axis, rows):
    """A line for each case: each contestant's time as a multiple of ours without compiled kernels."""
    cases = named(rows, "case")
    beside = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8, "color": BLUE}
    for i, case in enumerate(cases):
        found = numbers(rows, case)
        usual = found.get(OURS) or next(iter(found.values()))
        axis.axhline(i, color=GREY, linewidth=0.4, zorder=0)
        for name in found:
            draw_marks(axis, [found[name] / usual], [i], name, linestyle="", markersize=10 if name == FLOOR else 6)
        axis.text(1.01, i, f"{short(usual)} ms", **beside)
    axis.axvline(1, color=BLUE, linewidth=0.8, zorder=0)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("×{x:g}")
    axis.set_yticks(range(len(cases)), cases, fontsize=8)
    axis.set_ylim(len(cases) - 0.4, -0.6)
    axis.set_xlabel("time / time of plain scratchgen, which stands on the right; left is faster", fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def draw_sizes(axis, rows):
    (what,) = named(rows, "measurement")
    for name in taking_part(rows):
        points = [(row["size"], row["ms"]) for row in rows if row["contestant"] == name]
        draw_marks(axis, *zip(*points), name, linestyle="-", linewidth=1, markersize=4)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(SIZES[what], fontsize=8)
    axis.set_ylabel("ms per step", fontsize=8)
    axis.tick_params(labelsize=8)


def draw_bars(axis, rows):
    (case,) = named(rows, "case")
    names, found = taking_part(rows), numbers(rows, case)
    bars = axis.barh(names, [found[name] for name in names], color=[MARKS[name][1] for name in names], height=0.6)
    axis.bar_label(bars, [short(found[name]) for name in names], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.set_xlabel(f"{case}, {unit_of(rows[0])}", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def draw(rows, machine, path):
    """The figure: ratios on the left, and on the right sizes and starts, as far as they were measured."""
    timed = [row for row in rows if row["measurement"] in ("training", "sampling", "mixture")]
    starts = [row for row in rows if row["measurement"] == "start"]
    panels = [(draw_sizes, [row for row in rows if row["measurement"] == what]) for what in SIZES]
    panels += [(draw_bars, [row for row in starts if row["case"] == case]) for case in named(starts, "case")]
    panels = [(draw_panel, mine) for draw_panel, mine in panels if mine]
    widths = [6.6] * bool(timed) + [4.4] * bool(panels)
    height = max(1.6 + 0.28 * len(named(timed, "case")), 1 + 1.7 * len(panels))
    figure, axes = new_figure(sum(widths), height, 1, len(widths), width_ratios=widths)
    if timed:
        draw_ratios(axes[0, 0], timed)
    if panels:
        places = axes[0, -1].get_subplotspec().subgridspec(len(panels), 1)
        axes[0, -1].remove()
        for place, (draw_panel, mine) in zip(places, panels):
            draw_panel(figure.add_subplot(place), mine)
    marks = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        marks |= dict(zip(labels, handles))
    listed = [name for name in ORDER if name in marks]
    if listed:
        figure.legend([marks[name] for name in listed], listed, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(machine, fontsize=8)
    save_figure(figure, path)
