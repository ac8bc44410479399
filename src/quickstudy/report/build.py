"""The report of a run or a comparison: `report.html`, made of what lies in its folder."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from quickstudy import methods
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation
from quickstudy.io import checkpoint
from quickstudy.method import Experience
from quickstudy.report import charts, films
from quickstudy.report.charts import AMOUNTS, amount
from quickstudy.report.page import Failures, Replay, Report, Video, VideoGroup
from quickstudy.report.page import write as write_html
from quickstudy.results import runs
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import measured, split_of
from quickstudy.task import TaskFamily

LARGEST_FILMS, LARGEST_FAILURES = 7_500_000, 1_500_000
"""Bytes of films and replays that a report may hold; a third more as text, with the viewer below 15 MB."""


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
    evaluated = {split_of(cell, cells): evaluations(folder, split_of(cell, cells)) for cell in cells}
    run, failures = films.run_to_film(folder, cells), list[Failures]()
    if run is not None:
        experiment, learner = runs.load(run)
        method, family = experiment.method.name, experiment.family
        failures = _failures(method, family, evaluated)
        if video:
            films.take(folder, method, family, learner, evaluated)
    report = Report(
        title=f"Learning to learn: {_family(cells)}",
        headline=headline(cells).split("\n"),
        facts=_facts(cells),
        paragraphs=[_what_was_done(cells)],
        cells=cells,
        charts=_charts(folder, cells, evaluated),
        videos=_videos(folder, failure=False) if video else [],
        failures=failures,
        failure_videos=_videos(folder, failure=True) if video else [],
        settings=_settings(folder),
        command=cells[0].command or command,
        next_steps=_next_steps(cells),
    )
    path = folder / "report.html"
    write_html(path, report)
    return path


def evaluations(folder: Path, split: str) -> dict[str, list[Evaluation]]:
    """By method, what `compare` or `evaluate` measured on a split: one evaluation for each seed."""
    by_method: dict[str, list[Evaluation]] = {}
    for run in [folder, *sorted(folder.glob("*-seed*"))]:
        paths = [p for pattern in ("", "evaluations/") for p in run.glob(f"{pattern}{split}-*x*-shots-*.json")]
        if paths:
            method = (
                run.name.rsplit("-seed", 1)[0] if run != folder else methods.get(runs.load_settings(run).method).name
            )
            newest = max(paths, key=lambda path: path.stat().st_mtime)
            by_method.setdefault(method, []).append(Evaluation.load(newest))
    most = {method: max(len(e.tasks) for e in of) for method, of in by_method.items()}
    return {method: [e for e in of if len(e.tasks) == most[method]] for method, of in by_method.items()}


# ---- sentences


def headline(cells: Sequence[Cell]) -> str:
    """A sentence for each table and kind of experience: the best meta-learned method, and the best baseline."""
    sentences = []
    for cell in cells:
        for kind in cell.experiences:
            rows = [row for row in cell.rows if row.learns_from == kind and not row.workload]
            best = _best(cell, [row for row in rows if row.shots and not row.baseline])
            if best is None:
                continue
            before = next((row for row in rows if row.method == best.method and row.shots == 0), None)
            other = _best(cell, [row for row in rows if row.shots and row.known_role in ("baseline", "floor")])
            beside = [f"{_figure(cell, before)} before"] if before is not None else []
            if other is not None:
                beside.append(f"{_figure(cell, other)} by {other.method}, the best baseline")
            took = f" in {best.ms:.{0 if best.ms >= 10 else 1}f} ms" if best.ms else ""
            sentences.append(
                f"{cell.cell}: {best.method} adapts{took} and reaches {_figure(cell, best)} after "
                f"{amount(kind, best.shots or 0)}{', against ' if beside else ''}{' and '.join(beside)}."
            )
    return "\n".join(sentences) or "Nothing meta-learned was measured."


def _best(cell: Cell, rows: Sequence[Row]) -> Row | None:
    sign = 1.0 if cell.higher_is_better else -1.0
    known = [row for row in rows if row.value is not None]
    return max(known, key=lambda row: sign * (row.value or 0.0), default=None)


def _figure(cell: Cell, row: Row) -> str:
    value = row.value or 0.0
    if cell.unit == "fraction":
        return f"{100 * value:.0f} %"
    return f"{'an' if cell.metric[0] in 'aeiou' else 'a'} {cell.metric} of {value:.3g}"


def _family(cells: Sequence[Cell]) -> str:
    return cells[0].cell.removesuffix(f"-{split_of(cells[0], cells)}")


def _experiences(cells: Sequence[Cell]) -> list[Experience]:
    return sorted({kind for cell in cells for kind in cell.experiences})


def _facts(cells: Sequence[Cell]) -> dict[str, str]:
    first, rows = cells[0], [row for cell in cells for row in cell.rows]
    facts = {"family": f"`{_family(cells)}`, tested on {', '.join(split_of(cell, cells) for cell in cells)}"}
    for kind in _experiences(cells):
        title = "methods" if len(_experiences(cells)) == 1 else f"methods that learn from {AMOUNTS[kind]}"
        facts[title] = ", ".join(dict.fromkeys(row.method for row in rows if row.learns_from == kind))
    used = {
        words: max((getattr(row, name) or 0 for row in rows), default=0)
        for name, words in {"train_tasks": "tasks", "demonstrations": "demonstrations", "env_steps": "steps"}.items()
    }
    if any(used.values()):
        facts["trained on"] = ", ".join(f"{count:,} {words}" for words, count in used.items() if count)
    hidden = re.split("; each learner|; a learner by trial|; a shot is", first.protocol)[0].split("; ", 1)[-1]
    return {**facts, "measured": measured(first), "what is hidden, and what counts": hidden}


def _what_was_done(cells: Sequence[Cell]) -> str:
    """What the methods were trained on and tested with, and what the baselines are there for."""
    kinds, rows = _experiences(cells), [row for cell in cells for row in cell.rows]
    how: dict[Experience, str] = {
        "demonstrations": "was trained on the same demonstrations of training tasks; on each test task it had nothing "
        "but the demonstrations that a row names.",
        "trials": "was trained by trial and reward on training tasks; on each test task it had nothing but its own "
        "episodes, as many as a row names.",
    }
    sentences = [
        f"Each method{f' that learns from {AMOUNTS[kind]}' if len(kinds) > 1 else ''} {how[kind]}" for kind in kinds
    ]
    if any((record := methods.records().get(row.method)) is not None and record.tuned for row in rows):
        sentences.append("Fine-tuning was tuned on validation tasks.")
    for role, singular, plural in (
        ("oracle", "receives what is hidden.", "receive what is hidden."),
        ("floor", "learns nothing in meta-training.", "learn nothing in meta-training."),
    ):
        names = [f"`{name}`" for name in dict.fromkeys(row.method for row in rows if row.known_role == role)]
        if names:
            sentences.append(f"{' and '.join(names)} {singular if len(names) == 1 else plural}")
    return " ".join(sentences)


def _next_steps(cells: Sequence[Cell]) -> list[str]:
    if "demonstrations" not in _experiences(cells):
        return ["`quickstudy evaluate RUN --shots 0 1 3` evaluates a run's learner after other numbers of own trials."]
    return [
        "`quickstudy evaluate RUN --shots 0 1 3` evaluates a run's learner with more demonstrations.",
        "`quickstudy adapt RUN --demo FILE` teaches it a task of your own.",
    ]


# ---- parts of the page


def _charts(
    folder: Path, cells: Sequence[Cell], evaluated: Mapping[str, charts.Evaluations]
) -> dict[str, list[charts.Chart]]:
    """The page's charts by section."""
    sections: dict[str, list[charts.Chart | None]] = {"Results": [], "How sure": [], "Failures": []}
    for cell in cells:
        split = split_of(cell, cells)
        sections["Results"] += [
            charts.after_adaptation(cell, f"Each method on {split}"),
            *charts.adaptation(cell, f"Adaptation on {split}"),
        ]
        on_split = evaluated.get(split, {})
        by_method = {m: on_split[m] for m in dict.fromkeys(row.method for row in cell.rows) if m in on_split}
        sections["How sure"] += [
            charts.performance_profile(cell, by_method, f"Performance profile, {split}"),
            charts.probabilities(cell, f"Probability of improvement, {split}"),
        ]
        sections["Failures"].append(charts.failure_chart(cell, by_method, f"Every episode, {split}"))
    first = cells[0]
    sections["What it costs"] = [
        charts.against(first, "ms", "milliseconds to adapt", "Against adaptation time",
                       f"{'Up' if first.higher_is_better else 'Down'} and to the left is better: a better result from "
                       "a shorter adaptation."),
        charts.against(first, "parameters", "parameters", "Against size", "Numbers that meta-training learns."),
        charts.against(first, "training_s", "seconds of meta-training", "Against training time",
                       "Mean over seeds, validation included."),
    ]  # fmt: skip
    histories = {}
    for path in sorted(folder.glob("**/checkpoints/last")):
        config = checkpoint.load(path).config
        settings = config.get("settings", {})
        histories[f"{settings.get('method')}, seed {settings.get('seed')}"] = config.get("history", [])
    curves = charts.training(histories, first.metric, first.unit == "fraction", first.baselines)
    return {section: [c for c in some if c is not None] for section, some in sections.items()} | {"Training": curves}


def _failures(method: str, family: TaskFamily, evaluated: Mapping[str, charts.Evaluations]) -> list[Failures]:
    """How the method that was filmed failed, split by split, with some of the tasks."""
    tables = []
    for split, by_method in evaluated.items():
        kinds: dict[str, list[int]] = {}
        for evaluation in by_method.get(method, []):
            for kind, where in charts.failures(evaluation).items():
                kinds.setdefault(kind, []).extend(task for task, _ in where)
        rows = [
            (kind, len(tasks), [family.caption(family.tasks(split, 1, task)[0]) for task in dict.fromkeys(tasks)][:4])
            for kind, tasks in sorted(kinds.items(), key=lambda item: -len(item[1]))
        ]
        if rows:
            tables.append(Failures(f"{method} on {split}", rows))
    return tables


def _videos(folder: Path, failure: bool) -> list[VideoGroup]:
    """Films that fit: a report stays below `LARGEST` bytes, and 3D replays are the first to be left out."""
    index = folder / films.INDEX
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
