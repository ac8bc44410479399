"""Plots as SVG that read well on light and on dark pages, on paper and on a phone.

Axes and words have the colour of the text around them; a method keeps its colour and its mark from plot to plot, and
what is there to be compared with is grey. Differences never rest on colour alone: lines carry their names.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import ScaledTranslation

from quickstudy.errors import QuickstudyError
from quickstudy.results.evidence import BASELINES, Cell, Row

INK = "#010203"
"""Stands for the page's own text colour until `_svg` puts that in its place."""

GREY = "#7d848c"
PALETTE = ("#1f7fc4", "#d55e00", "#0b9170", "#c05a95", "#8a6fd1", "#a07400")
"""Told apart with any colour vision, and with a contrast of at least 3:1 to white and to near-black."""

MARKS = "oDs^vPX"
METHODS = (
    "maml",
    "meta-sgd",
    "fomaml",
    "anil",
    "reptile",
    "meta-lstm",
    "mann",
    "siamese",
    "matching",
    "prototypical",
    "hypernet",
    "matching-frames",
    "hypernet-roles",
)

_WIDTH, _HEIGHT = 4.7, 3.3  # inches: small, so that letters stay readable where a phone shrinks the picture
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "svg.fonttype": "none",
    "svg.hashsalt": "quickstudy",  # the same plot is the same file
}


def adaptation_curve(cell: Cell, against: str = "shots") -> bytes:
    """The cell's metric against the number of shots or of adaptation steps, a line for each method with its interval.

    Args:
        against: 'shots' or 'steps'.

    Returns:
        SVG. A method that was measured under one condition alone is a single mark.

    Raises:
        QuickstudyError: `against` is neither, or no row of the cell has both it and a value.
    """
    if against not in ("shots", "steps"):
        raise QuickstudyError(f"An adaptation curve is against 'shots' or 'steps'; got '{against}'.")
    lines = _by_method(cell, against)
    scale = _scale(cell)
    with _figure() as (figure, axes):
        ends = []
        for method, rows in lines.items():
            x = np.array([getattr(row, against) for row in rows], float)
            y = np.array([row.value for row in rows], float) * scale
            bounds = np.array([row.ci95 or (row.value, row.value) for row in rows], float) * scale
            look = _look(method)
            axes.plot(
                x, y, color=look["color"], marker=look["marker"], linestyle=look["linestyle"], zorder=look["zorder"]
            )
            if len(rows) > 1:
                axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=look["color"], alpha=0.16, linewidth=0)
            axes.vlines(x, bounds[:, 0], bounds[:, 1], color=look["color"], linewidth=1.4)
            ends.append((float(x[-1]), float(y[-1]), method, look["color"]))
        axes.set_xlabel({"shots": "demonstrations seen", "steps": "adaptation steps"}[against])
        axes.set_xticks(sorted({getattr(row, against) for rows in lines.values() for row in rows}))
        axes.set_ylabel(_metric(cell))
        _y_range(axes, cell)
        axes.grid(axis="y")
        _name_ends(axes, ends)
        return _svg(figure)


def bars(cell: Cell, shots: int | None = None, steps: int | None = None, higher_is_better: bool = True) -> bytes:
    """One bar a method with its interval, the best on top; what is there to be compared with is grey.

    Args:
        shots, steps: which rows; the greatest number of shots and of steps of each method where not given.

    Returns:
        SVG.

    Raises:
        QuickstudyError: no row of the cell fits.
    """
    fitting = [
        row
        for row in cell.rows
        if row.value is not None and (shots is None or row.shots == shots) and (steps is None or row.steps == steps)
    ]
    last = {row.method: row for row in sorted(fitting, key=lambda row: (row.shots or 0, row.steps or 0))}
    if not last:
        raise QuickstudyError(f"Cell '{cell.cell}' has no row with a value for shots={shots} and steps={steps}.")
    rows = sorted(last.values(), key=lambda row: row.value or 0.0, reverse=not higher_is_better)
    scale = _scale(cell)
    with _figure(height=0.75 + 0.31 * len(rows)) as (figure, axes):
        for place, row in enumerate(rows):
            assert row.value is not None
            colour = _look(row.method)["color"]
            axes.barh(
                place, row.value * scale, height=0.66, color=colour, alpha=0.45 if row.method in BASELINES else 1.0
            )
            low, high = np.array(row.ci95 or (row.value, row.value)) * scale
            axes.hlines(place, low, high, color=INK, linewidth=1.4)
            text = f"{row.value * scale:.1f}" if cell.unit == "fraction" else f"{row.value:.3g}"
            offset = {"xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(text, (max(high, row.value * scale), place), va="center", fontsize=9, **offset)
        axes.set_yticks(range(len(rows)), [row.method for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(_metric(cell))
        if cell.unit == "fraction":
            axes.set_xlim(0, 112)
            axes.set_xticks(range(0, 101, 20))
        else:
            axes.margins(x=0.15)
        axes.grid(axis="x")
        return _svg(figure)


def training_curve(
    histories: Mapping[str, Sequence[Mapping[str, float]]], metric: str, unit: str = "fraction"
) -> bytes:
    """The training loss, and below it the metric on validation tasks, against outer steps.

    Args:
        histories: for each label a list of figures: 'step', 'train/loss' and, where it was measured,
            'validation/<metric>'. Labels such as 'maml, seed 1' share the colour of their method.
        unit: of the metric; a 'fraction' is shown in per cent.

    Returns:
        SVG.

    Raises:
        QuickstudyError: no history holds a figure.
    """
    if not any(histories.values()):
        raise QuickstudyError("A training curve needs at least one figure; every history is empty.")
    panels = {"train/loss": "training loss", f"validation/{metric}": f"validation {metric}"}
    panels = {key: text for key, text in panels.items() if any(key in f for h in histories.values() for f in h)}
    scale = 100.0 if unit == "fraction" else 1.0
    with _figure(height=0.6 + 1.7 * len(panels), panels=len(panels)) as (figure, *rooms):
        for axes, (key, title) in zip(rooms, panels.items(), strict=True):
            factor = scale if key.startswith("validation") else 1.0
            ends: dict[str, tuple[float, float, str, str]] = {}
            for label, history in histories.items():
                points = np.array([(f["step"], f[key]) for f in history if key in f], float).reshape(-1, 2)
                points = points[np.isfinite(points).all(1)]
                if not len(points):
                    continue
                method = label.split(",")[0]
                look = _look(method)
                line = {"color": look["color"], "linestyle": look["linestyle"], "alpha": 0.9}
                axes.plot(
                    points[:, 0], points[:, 1] * factor, marker="o" if len(points) < 6 else "", markersize=4, **line
                )
                ends[method] = (*points[-1], method, look["color"])
            axes.set_title(f"{title}, %" if factor != 1.0 else title, loc="left", fontsize=10)
            axes.grid(axis="y")
            if key == "train/loss" and _positive(axes):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            elif factor != 1.0:
                axes.set_ylim(0, 102)
            if len(ends) > 1:
                _name_ends(axes, [(x, y * factor, method, colour) for x, y, method, colour in ends.values()])
        rooms[-1].set_xlabel("outer steps")
        rooms[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _svg(figure)


# ---- parts


@contextmanager
def _figure(height: float = _HEIGHT, panels: int = 1) -> Iterator[tuple[Any, ...]]:
    """A figure and its panels, one below the other, in our style; needs no display and no global state."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield (figure, *figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])


def _svg(figure: Figure) -> bytes:
    """The figure as SVG that follows the page's colours, in the page's or, alone, in the reader's scheme."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue().replace(INK, "currentColor")
    # Nothing refers to these ids, and they would not be unique where two plots share a page.
    text = re.sub(r" id=\"[A-Za-z]+[0-9A-Za-z.]*_\d+\"", "", text)
    text = text.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif")
    style = (
        "<style>.quickstudy-plot{color:#1c1e21}"
        "@media (prefers-color-scheme:dark){.quickstudy-plot{color:#e4e6e8}}</style>"
    )
    start = text.index("<svg ")
    end = text.index(">", start)
    return f'{text[:start]}<svg class="quickstudy-plot" {text[start + 5 : end]}>{style}{text[end + 1 :]}'.encode()


def _look(method: str) -> dict[str, Any]:
    """Colour, mark and line of a method, the same in every plot."""
    if method in BASELINES:
        place = BASELINES.index(method)
        return {"color": GREY, "marker": MARKS[place % len(MARKS)], "linestyle": "--", "zorder": 2}
    place = METHODS.index(method) if method in METHODS else len(METHODS) + sum(method.encode())
    marker, colour = MARKS[place % len(MARKS)], PALETTE[place % len(PALETTE)]
    return {"color": colour, "marker": marker, "linestyle": "-", "zorder": 3}


def _by_method(cell: Cell, against: str) -> dict[str, list[Row]]:
    lines: dict[str, list[Row]] = {}
    for row in cell.rows:
        if row.value is not None and getattr(row, against) is not None:
            lines.setdefault(row.method, []).append(row)
    if not lines:
        raise QuickstudyError(f"Cell '{cell.cell}' has no row with a value and a number of {against}.")
    return {method: sorted(rows, key=lambda row: getattr(row, against)) for method, rows in lines.items()}


def _name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each line's name beside its last point (x, y, name, colour), moved apart where they would overlap."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # settles the axes, so that heights on the paper are known
    right = max(x for x, *_ in ends)
    order = sorted(ends, key=lambda end: end[1])
    wanted = [float(axes.transData.transform((x, y))[1]) * 72 / figure.dpi for x, y, *_ in order]
    for (x, y, name, colour), there, here in zip(order, _apart(wanted, 12.0), wanted, strict=True):
        # Names stand in one column, right of the rightmost point, each led to by a thin line.
        place = axes.transData + ScaledTranslation(18 / 72, (there - here) / 72, figure.dpi_scale_trans)
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 4, "relpos": (0, 0.5)}
        axes.annotate(
            name,
            (x, y),
            xytext=(right, y),
            textcoords=place,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops=leader,
        )


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Rising numbers, moved as little as it takes to be `gap` apart: clusters spread around their mean."""
    clusters: list[list[float]] = []
    for place in places:
        clusters.append([place])
        while len(clusters) > 1 and _spread(clusters[-1], gap)[0] - _spread(clusters[-2], gap)[-1] < gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    return [place for cluster in clusters for place in _spread(cluster, gap)]


def _spread(cluster: Sequence[float], gap: float) -> list[float]:
    start = sum(cluster) / len(cluster) - gap * (len(cluster) - 1) / 2
    return [start + gap * number for number in range(len(cluster))]


def _y_range(axes: Axes, cell: Cell) -> None:
    if cell.unit == "fraction":
        axes.set_ylim(-3, 103)
        axes.set_yticks(range(0, 101, 20))


def _positive(axes: Axes) -> bool:
    return all((np.asarray(line.get_ydata()) > 0).all() for line in axes.lines)


def _scale(cell: Cell) -> float:
    return 100.0 if cell.unit == "fraction" else 1.0


def _metric(cell: Cell) -> str:
    return f"{cell.metric}, %" if cell.unit == "fraction" else cell.metric
