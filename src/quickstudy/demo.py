"""The demonstration of the whole product, and the report of any run or comparison."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import Evaluation
from quickstudy.families import own as families
from quickstudy.io import checkpoint
from quickstudy.io.progress import console
from quickstudy.methods.catalogue import DataConfig, Settings, defaults
from quickstudy.report import charts
from quickstudy.report import films as footage
from quickstudy.report.page import Failures, Replay, Report, Video, VideoGroup
from quickstudy.report.page import write as write_html
from quickstudy.results import evidence as results
from quickstudy.results import runs, tables
from quickstudy.results.compare import Protocol, compare
from quickstudy.results.evidence import BASELINES, Cell, Row
from quickstudy.results.runs import save_example
from quickstudy.simulation import rendering

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
LARGEST_FILMS, LARGEST_FAILURES = 7_500_000, 1_500_000
"""Bytes of films and replays that a report may hold; a third more as text, with the viewer below 15 MB."""


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
        footage.take(folder, folder / f"{FILMED}-seed0", {s: evaluations(folder, s) for s in family.test_splits})
    tables.print_comparison(cells)
    report = write_report(folder, "quickstudy demo", video)
    run = folder / f"{FILMED}-seed0"
    console.print(f"\n{headline(cells)} ({(time.perf_counter() - started) / 60:.1f} minutes)")
    console.print(f"The report, with plots and videos of the arm: [bold]{report}[/]", soft_wrap=True)
    console.print("Next, with the learner that was just trained (see quickstudy --help for more):", soft_wrap=True)
    console.print(f"  quickstudy adapt {run} --demo {next((run / 'examples').iterdir())}", soft_wrap=True)
    console.print(f"  quickstudy evaluate {run} --shots 0 1 3", soft_wrap=True)
    console.print("  quickstudy families grasping", soft_wrap=True)
    return report


def write_report(folder: Path, command: str, video: bool = True) -> Path:
    """Writes `folder/report.html` from what lies in a run folder or a comparison: tables, charts, films, settings.

    Films and replays are taken first where there are none; `video` False leaves them out.

    Raises:
        QuickstudyError: the folder holds no results.
    """
    paths = sorted((folder / "results").glob("*.json"))
    if not paths:
        raise QuickstudyError(
            f"'{folder}' holds no results to report; 'quickstudy evaluate' or 'quickstudy compare' make them."
        )
    cells = [Cell.read(path) for path in paths]
    evaluated = {tables.split_of(cell, cells): evaluations(folder, tables.split_of(cell, cells)) for cell in cells}
    ranked = list(dict.fromkeys(row.method for cell in cells for row in cell.rows))
    run = footage.run_to_film(folder, ranked)
    if video and run is not None:
        footage.take(folder, run, evaluated)
    report = Report(
        title=f"Learning to learn: {_family(cells)}",
        headline=headline(cells).split("\n"),
        facts=_facts(folder, cells),
        paragraphs=[
            "Each method was trained on the same demonstrations of training tasks, and then met held-out tasks with "
            "nothing but the demonstrations that a row names. Fine-tuning was tuned on validation tasks; `oracle` is "
            "told what a demonstration would have to reveal; `replay` and `nearest` learn nothing at all.",
        ],
        cells=cells,
        charts=_charts(folder, cells, evaluated),
        videos=_videos(folder, failure=False) if video else [],
        failures=_failures(run, evaluated),
        failure_videos=_videos(folder, failure=True) if video else [],
        settings=_settings(folder),
        command=cells[0].command or command,
        next_steps=["`quickstudy evaluate RUN --shots 0 1 3` evaluates a run's learner with more demonstrations.",
                    "`quickstudy adapt RUN --demo FILE` teaches it a task of your own."],
    )  # fmt: skip
    path = folder / "report.html"
    write_html(path, report)
    return path


def evaluations(folder: Path, split: str) -> dict[str, list[Evaluation]]:
    """By method, best seed order: what `compare` or `evaluate` measured on a split, one evaluation for each seed."""
    found: dict[str, list[Evaluation]] = {}
    for run in [folder, *sorted(folder.glob("*-seed*"))]:
        paths = [p for pattern in ("", "evaluations/") for p in run.glob(f"{pattern}{split}-*x*-shots-*.json")]
        if paths:
            method = run.name.rsplit("-seed", 1)[0] if run != folder else runs.load_settings(run).method
            found.setdefault(method, []).append(Evaluation.load(max(paths, key=lambda p: p.stat().st_mtime)))
    most = {method: max(len(e.tasks) for e in some) for method, some in found.items()}
    return {method: [e for e in some if len(e.tasks) == most[method]] for method, some in found.items()}


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
    return "\n".join(sentences) or "Nothing meta-learned was measured."


def _best(rows: Sequence[Row], cell: Cell) -> Row | None:
    known = [row for row in rows if row.value is not None and row.shots]
    sign = 1.0 if cell.unit == "fraction" else -1.0
    return max(known, key=lambda row: sign * (row.value or 0.0), default=None)


def _percent(cell: Cell, row: Row) -> str:
    value = row.value or 0.0
    return f"{100 * value:.0f} %" if cell.unit == "fraction" else f"{value:.3g}"


def _family(cells: Sequence[Cell]) -> str:
    return cells[0].cell.removesuffix(f"-{tables.split_of(cells[0], cells)}")


def _facts(folder: Path, cells: Sequence[Cell]) -> dict[str, str]:
    first = cells[0]
    facts = {
        "family": f"`{_family(cells)}`, held-out: {', '.join(tables.split_of(cell, cells) for cell in cells)}",
        "methods": ", ".join(dict.fromkeys(row.method for cell in cells for row in cell.rows)),
    }
    counts = first.protocol.split("; each learner")[0].split("; ", 1)[-1]
    used = [row for cell in cells for row in cell.rows if row.train_tasks]
    if used:
        steps = f", {max(row.env_steps or 0 for row in used):,} steps" if any(row.env_steps for row in used) else ""
        tasks, shown = max(row.train_tasks or 0 for row in used), max(row.demonstrations or 0 for row in used)
        facts["trained on"] = f"{tasks:,} tasks, {shown:,} demonstrations{steps}"
    return {**facts, "measured": results.measured(first), "what is hidden, and what counts": counts}


def _charts(
    folder: Path, cells: Sequence[Cell], evaluated: Mapping[str, charts.Evaluations]
) -> dict[str, list[charts.Chart]]:
    """The page's charts by section."""
    made: dict[str, list[charts.Chart | None]] = {"Results": [], "How sure": [], "What it costs": [], "Failures": []}
    for cell in cells:
        split, higher = tables.split_of(cell, cells), cell.unit == "fraction"
        made["Results"] += [
            charts.after_demonstrations(cell, f"Each method on unseen {split}"),
            charts.adaptation(cell, f"Adaptation on unseen {split}"),
        ]
        there = evaluated.get(split, {})
        found = {m: there[m] for m in dict.fromkeys(row.method for row in cell.rows) if m in there}
        made["How sure"] += [
            charts.performance_profile(found, cell.metric, f"Performance profile, {split}", higher),
            charts.probabilities(cell, f"Probability of improvement, {split}"),
        ]
        made["Failures"].append(charts.failure_chart(found, f"Every episode, {split}"))
    made["What it costs"] = [
        charts.against(cells[0], "ms", "milliseconds to adapt", "Against adaptation time",
                       "Up and to the left is better: more success from a shorter adaptation."),
        charts.against(cells[0], "parameters", "parameters", "Against size",
                       "Numbers that meta-training learns."),
        charts.against(cells[0], "training_s", "seconds of meta-training", "Against training time",
                       "Mean over seeds, validation included."),
    ]  # fmt: skip
    histories = {}
    for path in sorted(folder.glob("**/checkpoints/last")):
        config = checkpoint.load(path).config
        settings = config.get("settings", {})
        histories[f"{settings.get('method')}, seed {settings.get('seed')}"] = config.get("history", [])
    training: dict[str, list[charts.Chart]] = {
        "Training": charts.training(histories, cells[0].metric, cells[0].unit == "fraction")
    }
    return {section: [c for c in some if c is not None] for section, some in made.items()} | training


def _failures(run: Path | None, evaluated: Mapping[str, charts.Evaluations]) -> list[Failures]:
    """How the method that was filmed failed, split by split, with some of the tasks."""
    if run is None:
        return []
    settings = runs.load_settings(run)
    family = families.get(settings.family)
    listed = []
    for split, found in evaluated.items():
        if not (some := found.get(settings.method)):
            continue
        kinds: dict[str, list[int]] = {}
        for one in some:
            for kind, where in charts.failures(one).items():
                kinds.setdefault(kind, []).extend(task for task, _ in where)
        shown = [
            (kind, len(tasks), [family.caption(family.tasks(split, 1, task)[0]) for task in dict.fromkeys(tasks)][:4])
            for kind, tasks in sorted(kinds.items(), key=lambda item: -len(item[1]))
        ]
        if shown:
            listed.append(Failures(f"{settings.method} on unseen {split}", shown))
    return listed


def _videos(folder: Path, failure: bool) -> list[VideoGroup]:
    """Films that fit: a report stays below `LARGEST` bytes, and 3D replays are the first to be left out."""
    index = folder / footage.INDEX
    if not index.exists():
        return []
    groups = []
    room = LARGEST_FAILURES if failure else LARGEST_FILMS
    for group in json.loads(index.read_text()):
        if group.get("failure", False) != failure:
            continue
        videos = [
            Video(folder / v["file"], v["caption"], f"An episode on film: {v['caption']}.") for v in group["videos"]
        ]
        replays = [Replay(folder / r["file"], r["caption"]) for r in group.get("replays", [])]
        sizes = [sum(one.path.stat().st_size for one in some if one.path.exists()) for some in (videos, replays)]
        if sizes[0] > room:
            continue
        room -= sizes[0]
        if sizes[1] > room:
            replays = []
        else:
            room -= sizes[1]
        groups.append(VideoGroup(group["title"], videos, replays))
    return groups


def _settings(folder: Path) -> dict[str, object]:
    """The settings of a comparison, or of a single run."""
    path = folder / "settings.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    where = folder / "checkpoints/best"
    return dict(checkpoint.load(where).config.get("settings", {})) if checkpoint.exists(where) else {}
