"""The demonstration of the whole product, and the report of any run or comparison."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch.utils._pytree import tree_map

from quickstudy import checkpoint, families, files, plots, rendering, results, runs
from quickstudy.compare import Protocol, compare
from quickstudy.data import DemonstrationSet
from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import SkillPolicy, skills_after
from quickstudy.methods import DataConfig, Settings, defaults
from quickstudy.progress import console, progress
from quickstudy.report import Figure, Report, Video, VideoGroup
from quickstudy.report import write as write_html
from quickstudy.results import BASELINES, Cell, Row
from quickstudy.runs import save_example

FILMED = "meta-sgd"
METHODS = (
    "meta-sgd",
    "maml",
    "transfer",
    "transfer-equal-time",
    "scratch",
    "no-adaptation",
    "replay",
    "nearest",
    "oracle",
)
"""Few of them, so that it stays a matter of minutes."""
PROTOCOL = Protocol(
    seeds=1, tasks=50, episodes=2, tuning_tasks=20, tuning_steps=(20, 100), tuning_rates=(3e-4, 1e-3, 3e-3)
)
FAMILY = "grasping"


def settings_for(method: str, seed: int) -> Settings:
    """A short training: the defaults of the family, on fewer tasks and for fewer steps."""
    settings = defaults(FAMILY, method, seed)
    return replace(
        settings,
        training=replace(settings.training, steps=600, validate_every=300),
        data=DataConfig(tasks=200, demonstrations=4, validation_tasks=25, validation_episodes=2),
    )


def demo(folder: Path, video: bool) -> Path:
    """Meta-trains on grasping, compares, films, and writes `folder/report.html`; goes on where it was stopped.

    Returns:
        where the report is.
    """
    started = time.perf_counter()
    family = families.get(FAMILY)
    console.print(
        "An arm learns to learn how objects must be grasped: meta-training on "
        f"{settings_for(FILMED, 0).data.tasks} objects, then one demonstration of each object it has never seen."
    )
    cells = compare(family, METHODS, settings_for, PROTOCOL, folder, "quickstudy demo")
    save_example(family, folder / f"{FILMED}-seed0")
    if video and not rendering.available():
        console.print(f"No video: {rendering.why_not()}")
    elif video:
        film(folder, folder / f"{FILMED}-seed0", family.test_splits)
    for cell in cells:
        results.print_table(cell)
    report = write_report(folder, "quickstudy demo")
    run = folder / f"{FILMED}-seed0"
    console.print(f"\n{headline(cells)} ({(time.perf_counter() - started) / 60:.1f} minutes)")
    console.print(f"The report, with plots and videos of the arm: [bold]{report}[/]", soft_wrap=True)
    console.print("Next, with the learner that was just trained (see quickstudy --help for more):", soft_wrap=True)
    console.print(f"  quickstudy adapt {run} --demo {next((run / 'examples').iterdir())}", soft_wrap=True)
    console.print(f"  quickstudy evaluate {run} --shots 0 1 3", soft_wrap=True)
    console.print("  quickstudy families grasping", soft_wrap=True)
    return report


def film(folder: Path, run: Path, splits: Sequence[str], seed: int = 0) -> None:
    """Films the first held-out task of each split before and after one demonstration; existing films are kept.

    The same episode is filmed both times: the same start, the same noise.
    """
    index = folder / "videos.json"
    if index.exists():
        return
    settings, family, learner = runs.load(run)
    groups = []
    with progress("filming", 2 * len(splits)) as advance:
        for split in splits:
            task = family.tasks(split, 1)[0]
            support = DemonstrationSet.record(family, [task], 1, seed).batch
            videos = []
            for shots, when in ((0, "before"), (1, "after")):
                skills = tree_map(lambda t: t.clone(), skills_after(learner, support, shots))
                frames = family.film(task, SkillPolicy(learner, skills), seed)
                path = folder / "videos" / f"{split}-{when}.mp4"
                rendering.write_video(path, frames, fps=20)
                said = f"{when} {'any' if shots == 0 else 'one'} demonstration"
                videos.append({"file": str(path.relative_to(folder)), "caption": f"{settings.method}, {said}"})
                advance()
            groups.append({"title": f"Unseen {split}: {family.caption(task)}", "videos": videos})
    files.write(index, json.dumps(groups, indent=1))


def write_report(folder: Path, command: str) -> Path:
    """Writes `folder/report.html` from what lies in a run folder or a comparison: tables, curves, films, settings.

    Raises:
        QuickstudyError: the folder holds no results.
    """
    paths = sorted((folder / "results").glob("*.json"))
    if not paths:
        raise QuickstudyError(
            f"'{folder}' holds no results to report; 'quickstudy evaluate' or 'quickstudy compare' make them."
        )
    cells = [Cell.read(path) for path in paths]
    first = cells[0]
    path = folder / "report.html"
    report = Report(
        title=f"quickstudy: {first.cell.rsplit('-', 1)[0]}",
        headline=headline(cells),
        paragraphs=[
            "Each method was trained on the same demonstrations of training tasks, and then met held-out tasks with "
            "nothing but the demonstrations that a row names. Fine-tuning was tuned on validation tasks; `oracle` is "
            "told what a demonstration would have to reveal; `replay` and `nearest` learn nothing at all.",
        ],
        cells=cells,
        figures=_figures(folder, cells),
        videos=_videos(folder),
        settings=_settings(folder),
        command=first.command or command,
        next_steps=["`quickstudy evaluate RUN --shots 0 1 3` evaluates a run's learner with more demonstrations.",
                    "`quickstudy adapt RUN --demo FILE` teaches it a task of your own."],
    )  # fmt: skip
    write_html(path, report)
    return path


def headline(cells: Sequence[Cell]) -> str:
    """The best meta-learned method after a demonstration, beside the best alternative at hand."""
    sentences = []
    for cell in cells:
        best = _best([row for row in cell.rows if row.method not in BASELINES], cell)
        if best is None or best.value is None:
            continue
        none = next((row for row in cell.rows if row.method == "no-adaptation" and row.shots), None)
        beside = f", against {_percent(cell, none)} without adaptation" if none is not None else ""
        shots = "one demonstration" if best.shots == 1 else f"{best.shots} demonstrations"
        took = f" in {best.ms:.0f} ms" if best.ms else ""
        sentences.append(
            f"{cell.cell}: {best.method} adapts{took} and reaches {_percent(cell, best)} after {shots}{beside}."
        )
    return " ".join(sentences) or "Nothing meta-learned was measured."


def _best(rows: Sequence[Row], cell: Cell) -> Row | None:
    known = [row for row in rows if row.value is not None and row.shots]
    sign = 1.0 if cell.unit == "fraction" else -1.0
    return max(known, key=lambda row: sign * (row.value or 0.0), default=None)


def _percent(cell: Cell, row: Row) -> str:
    value = row.value or 0.0
    return f"{100 * value:.0f} %" if cell.unit == "fraction" else f"{value:.3g}"


def _figures(folder: Path, cells: Sequence[Cell]) -> list[Figure]:
    figures = []
    for cell in cells:
        higher = cell.unit == "fraction"
        alt = f"of {cell.metric} of each method on {cell.cell}; the table has the figures."
        bars = plots.bars(cell, higher_is_better=higher)
        figures.append(Figure(bars, f"{cell.cell}: each method after its demonstrations.", f"Bar chart {alt}"))
        if len({row.shots for row in cell.rows}) > 1:
            curve = plots.adaptation_curve(cell)
            figures.append(Figure(curve, f"{cell.cell}: {cell.metric} against demonstrations.", f"Curves {alt}"))
    histories = {}
    for path in sorted(folder.glob("**/checkpoints/last")):
        config = checkpoint.load(path).config
        settings = config.get("settings", {})
        histories[f"{settings.get('method')}, seed {settings.get('seed')}"] = config.get("history", [])
    if any(histories.values()):
        image = plots.training_curve(histories, cells[0].metric, cells[0].unit)
        figures.append(Figure(image, "Training.", "Training loss and validation figures against outer steps."))
    return figures


def _videos(folder: Path) -> list[VideoGroup]:
    index = folder / "videos.json"
    if not index.exists():
        return []
    return [
        VideoGroup(
            group["title"],
            [
                Video(
                    folder / video["file"], video["caption"], f"The arm tries to grasp an object: {video['caption']}."
                )
                for video in group["videos"]
            ],
        )
        for group in json.loads(index.read_text())
    ]


def _settings(folder: Path) -> dict[str, object]:
    """The settings of a comparison, or of a single run."""
    path = folder / "settings.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    where = folder / "checkpoints/best"
    return dict(checkpoint.load(where).config.get("settings", {})) if checkpoint.exists(where) else {}
