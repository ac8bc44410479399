"""Plots are the same file for the same figures, take the page's colours, and show every method by name."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.errors import QuickstudyError
from quickstudy.report import plots
from quickstudy.results.evidence import BASELINES, Cell, Row

CELL = Cell(
    cell="grasping-sizes",
    metric="success",
    unit="fraction",
    protocol="p",
    command="c",
    seconds=1,
    commit="",
    versions={},
    machine="m",
    rows=[
        *(Row("maml", shots, value, (value - 0.05, value + 0.05)) for shots, value in ((0, 0.2), (1, 0.9), (5, 0.95))),
        Row("a new method & co", 1, 0.5),
        Row("replay", 1, 0.03, (0.0, 0.06)),
        Row("oracle", 1, 0.98),
        Row("timed", workload="W1", ms=3.0),
    ],
)
HISTORY = [
    {"step": 100, "train/loss": 0.3, "validation/success": 0.1},
    {"step": 200, "train/loss": 0.1, "validation/success": float("nan")},
    {"step": 300, "train/loss": 0.05},
]


def words(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_adaptation_curve() -> None:
    svg = plots.adaptation_curve(CELL)
    found = words(svg)
    for word in ("maml", "a new method & co", "replay", "oracle", "demonstrations seen", "success, %"):
        assert word in found
    assert "timed" not in found
    steps = replace(CELL, unit="", rows=[Row("maml", 5, 0.7, steps=1), Row("maml", 5, 0.4, steps=10)])
    assert "adaptation steps" in words(plots.adaptation_curve(steps, "steps"))


def test_bars_are_sorted_best_on_top() -> None:
    methods = {row.method for row in CELL.rows}

    def from_the_top(svg: bytes) -> list[str]:
        return [word for word in words(svg) if word in methods][::-1]

    assert from_the_top(plots.bars(CELL)) == ["oracle", "maml", "a new method & co", "replay"]
    ascending = plots.bars(CELL, shots=1, higher_is_better=False)
    assert from_the_top(ascending) == ["replay", "a new method & co", "maml", "oracle"]
    assert "90.0" in words(ascending)
    assert "95.0" not in words(ascending)


def test_training_curve() -> None:
    found = words(plots.training_curve({"maml, seed 0": HISTORY, "anil, seed 0": HISTORY}, "success"))
    for word in ("training loss", "validation success, %", "outer steps", "maml", "anil"):
        assert word in found
    loss_alone = words(plots.training_curve({"maml": HISTORY[2:]}, "success"))
    assert "training loss" in loss_alone
    assert "validation success, %" not in loss_alone
    plots.training_curve({"maml": [{"step": 1, "train/loss": -0.1}, {"step": 2, "train/loss": 0.0}]}, "success")


def test_the_page_decides_the_colours() -> None:
    for svg in (plots.adaptation_curve(CELL), plots.bars(CELL), plots.training_curve({"maml": HISTORY}, "success")):
        text = svg.decode()
        assert "currentColor" in text
        assert plots.INK not in text
        assert "#000000" not in text
        assert "#ffffff" not in text
        assert "prefers-color-scheme:dark" in text
        ids = re.findall(r' id="([^"]+)"', text)
        assert all(text.count(f"#{name}") for name in ids), "only what is referred to has an id"


def test_the_same_figures_make_the_same_file() -> None:
    assert plots.adaptation_curve(CELL) == plots.adaptation_curve(CELL)


def test_colours_have_contrast() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in (*plots.PALETTE, plots.GREY):
        for page in ("#ffffff", "#15181b"):
            low, high = sorted((luminance(colour), luminance(page)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, page)


def test_methods_keep_their_look() -> None:
    looks = {method: plots._look(method) for method in plots.METHODS}
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(looks)
    assert all(plots._look(method)["color"] == plots.GREY for method in BASELINES)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8).map(sorted))
def test_labels_do_not_overlap(places: list[float]) -> None:
    moved = plots._apart(places, 10.0)
    assert len(moved) == len(places)
    assert all(after - before >= 10 - 1e-6 for before, after in pairwise(moved))
    if all(after - before >= 10 for before, after in pairwise(places)):
        assert moved == pytest.approx(places)


def test_nothing_to_plot() -> None:
    with pytest.raises(QuickstudyError, match="against 'shots' or 'steps'; got 'tasks'"):
        plots.adaptation_curve(CELL, "tasks")
    with pytest.raises(QuickstudyError, match="no row with a value and a number of steps"):
        plots.adaptation_curve(CELL, "steps")
    with pytest.raises(QuickstudyError, match="no row with a value for shots=7"):
        plots.bars(CELL, shots=7)
    with pytest.raises(QuickstudyError, match="every history is empty"):
        plots.training_curve({"maml": []}, "success")
