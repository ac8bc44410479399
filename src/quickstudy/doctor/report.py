"""What the doctor says, on screen and on disk."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from quickstudy.doctor.findings import Finding, Recordings
from quickstudy.doctor.learning import Curves
from quickstudy.io import files

_SIGNS = {"good": "[green]good[/]", "note": "[yellow]look[/]", "bad": "[red]bad[/]"}
_COLOURS = {"meta-learned": "#0b6e99", "scratch": "#b3541e", "nearest": "#5a7d2a", "replay": "#7d848c"}


def table(findings: Sequence[Finding]) -> Table:
    """The findings, for a terminal."""
    made = Table(Column("", no_wrap=True), Column("about", no_wrap=True), "what was found, and what to do", box=None)
    for one in findings:
        remedy = f" [bold]{escape(one.remedy)}[/]" if one.remedy else ""
        made.add_row(_SIGNS[one.verdict], one.about, f"{escape(one.said)}{remedy}")
    return made


def plain(
    path: Path, found: Recordings | None, findings: Sequence[Finding], curves: Curves | None = None
) -> dict[str, Any]:
    """The same as JSON can hold it."""
    made: dict[str, Any] = {"data": str(path)}
    if found is not None:
        made |= {"format": found.format, "episodes": len(found.episodes), "tasks": len(found.tasks)}
    made |= {"useless": useless(findings), "findings": [asdict(one) for one in findings]}
    if curves is not None:
        made["curves"] = {
            who: {
                "shots": curves.shots,
                "error": [round(float(e), 5) for e in curves.mean(who)],
                "ci95": [[round(float(e), 5) for e in ends] for ends in curves.interval(who).T],
            }
            for who in curves.errors
        } | {"left_out_tasks": len(curves.tasks)}
    return made


def useless(findings: Sequence[Finding]) -> bool:
    """Whether training on this would be useless or wrong."""
    return any(one.verdict == "bad" for one in findings)


def write(
    folder: Path, path: Path, found: Recordings | None, findings: Sequence[Finding], curves: Curves | None = None
) -> list[Path]:
    """Writes doctor.json and, where learning was measured, doctor.png; both appear whole or not at all.

    Args:
        path: of the data set; `found` is None where it cannot be read.
    """
    written = [folder / "doctor.json"]
    files.write(written[0], json.dumps(plain(path, found, findings, curves), indent=1, allow_nan=False))
    if curves is not None:
        written.append(folder / "doctor.png")
        _plot(curves, written[1])
    return written


def _plot(curves: Curves, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for who, colour in _COLOURS.items():
        low, high = curves.interval(who)
        axis.plot(
            curves.shots, curves.mean(who), "o-", color=colour, label=who, linewidth=2 if who == "meta-learned" else 1
        )
        axis.fill_between(curves.shots, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="demonstrations of a new task", ylabel="error, of always doing the mean action", ylim=(0, None))
    axis.set_xticks(curves.shots)
    axis.axhline(1.0, color="#bbbbbb", linewidth=0.8)
    axis.set_title(f"tasks left out in turn, {len(curves.tasks)} in all; 95 % intervals over tasks", fontsize=9)
    axis.legend(frameon=False)
    with files.partial(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
