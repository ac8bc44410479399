"""The four things that meta-learning claims, each measured and drawn.

    python -m benchmarks.claims --claim data-efficiency        success against training tasks and their demonstrations
    python -m benchmarks.claims --claim learning-efficiency    success against adaptation steps, and against their time
    python -m benchmarks.claims --claim generalisation         success against the distance from the training tasks
    python -m benchmarks.claims --claim model-complexity       success against parameters, and against latency

Each resumes where it was stopped. Tables go to benchmarks/results/claim-<claim>-<family>.json (data efficiency makes
two, of tasks and of demonstrations), the page with their charts to <output-dir>/<claim>/report.html.
"""

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch.utils._pytree import tree_map

from quickstudy import families, methods
from quickstudy.batching import over_tasks
from quickstudy.data import Batch, DemonstrationSet, Source
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import adaptation_ms, run_tasks, skills_after
from quickstudy.experiment import TRAINING_SECONDS, Experiment, clock, seconds_so_far
from quickstudy.io import files
from quickstudy.io.budget import Budget, OutOfTime, seconds_of
from quickstudy.io.progress import console
from quickstudy.learner import MetaLearner
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.report import charts
from quickstudy.report import page as report
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures, is_share
from quickstudy.results.tables import print_table
from quickstudy.settings import Changes, DataConfig
from quickstudy.task import Task, TaskFamily

STEPPED = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "meta-lstm", "transfer", "scratch")
"""Methods that adapt by steps, of which they take any number at test."""

CAPTIONS = {
    "data-efficiency": "What meta-training needs: more success from fewer tasks or demonstrations is better.",
    "learning-efficiency": "What one adaptation takes: up and to the left is better.",
    "generalisation": "How far from home it still works: a flat line generalises.",
    "model-complexity": "How large a network it takes: up and to the left is better.",
}


@dataclass(frozen=True)
class Claims:
    """What to run."""

    claim: Literal["data-efficiency", "learning-efficiency", "generalisation", "model-complexity"]
    family: str = "grasping"
    methods: tuple[str, ...] = ("meta-sgd", "reptile", "matching", "transfer", "scratch", "no-adaptation")
    split: str | None = None
    """The test split; the first by default. Generalisation takes all of them."""
    seeds: int = 3
    tasks: int = 100
    episodes: int = 2
    shots: int = 1
    steps: int | None = None
    """Outer steps of each training; the family's default where not given."""
    train_tasks: tuple[int, ...] = (25, 50, 100, 200, 400)
    train_demonstrations: tuple[int, ...] = (3, 4, 6, 12)
    adaptation_steps: tuple[int, ...] = (1, 3, 10, 30, 100, 300)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    bins: int = 5
    """Of distance, each with as many tasks."""
    budget: str | None = None
    """Wall time; what does not fit is left for the next call."""
    output_dir: Path = Path("runs/claims")
    results: Path = Path("benchmarks/results")


@dataclass(frozen=True)
class Measured:
    """One learner on some tasks: scores of each task, and what an adaptation and an action take."""

    scores: list[float]
    ms: float
    act_ms: float


def trained_as(method: str) -> str:
    """The method whose training it takes its parameters from: its own, or another one's."""
    return methods.get(method).pretrained_as or method


def experiment_of(what: Claims, method: str, seed: int, changes: Changes | None = None) -> Experiment:
    """What is trained for a method, with the outer steps that were asked for."""
    made = Experiment.of(what.family, trained_as(method), seed, changes)
    return replace(made, settings=made.settings.changed({"training": {"steps": what.steps}})) if what.steps else made


def measure(
    what: Claims, learner: MetaLearner, family: TaskFamily, tasks: Sequence[Task], seed: int, steps: int | None = None
) -> Measured:
    """Adapts to each task, with so many adaptation steps where given, and runs its quota of episodes."""
    support = DemonstrationSet.record(family, tasks, what.shots, seed).batch
    if steps is not None and isinstance(learner, Transfer):
        learner.config = FineTuneConfig(steps, learner.config.rate)
    if steps is None or isinstance(learner, Transfer):
        skills = skills_after(learner, support, what.shots)
        ms = adaptation_ms(learner, support)
    else:
        adapt = partial(learner.adapt, steps=steps)
        skills = tree_map(lambda t: t.detach(), over_tasks(adapt, support, chunk=100))
        ms = timed(lambda: adapt(Batch(*(t[0] for t in support))))
    metrics = run_tasks(family, tasks, what.episodes, learner, skills, seed)
    one, x = tree_map(lambda t: t[0], skills), support.x[0, 0, 0]
    with torch.no_grad():
        act_ms = timed(lambda: learner.act(one, x), 50)
    return Measured(metrics[family.metric].mean(-1).tolist(), ms, act_ms)


def timed(work, repeats: int = 7) -> float:
    """Median milliseconds, after a first call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) * 1e3


def cached(path: Path, budget: Budget, work) -> Measured:
    """What was measured before, or is measured now and kept."""
    if not path.exists():
        if budget.over():
            raise OutOfTime
        files.write(path, json.dumps(asdict(work())))
    return Measured(**json.loads(path.read_text()))


def row(what: Claims, method: str, found: Sequence[Measured], **more) -> Row:
    """A row of what each seed reached; `more` are further fields."""
    scores = np.array([one.scores for one in found])
    return Row(
        method,
        what.shots,
        episodes=what.episodes,
        ms=round(float(np.median([one.ms for one in found])), 3),
        act_ms=round(float(np.median([one.act_ms for one in found])), 4),
        **figures(scores, shares=is_share(families.get(what.family).metric)),
        **more,
    )


Made = tuple[str, Sequence[Row], str]
"""A table to be: its name, its rows, and what they vary along."""


class Claim:
    """The conditions of one claim: each is trained, measured and made a row."""

    def __init__(self, what: Claims) -> None:
        self.what, self.family = what, families.get(what.family)
        self.budget = Budget(seconds_of(what.budget) if what.budget else None)
        self.split = what.split or self.family.test_splits[0]
        self.left: list[str] = []
        self.sources: dict[DataConfig, Source | None] = {}

    def learner(self, experiment: Experiment, method: str, name: str) -> MetaLearner:
        """The trained learner of a condition; opponents share the training that they start from."""
        settings = experiment.settings
        if settings.data not in self.sources:
            self.sources[settings.data] = experiment.source()
        folder = self.what.output_dir / self.what.family / name / f"{settings.method}-seed{settings.seed}"
        source = self.sources[settings.data] if experiment.method.uses == "all" else None
        learner = experiment.train(folder, source=source, budget=self.budget)
        if method == settings.method:
            return learner
        network = {"network": vars(settings.network)}
        other = Experiment.of(self.what.family, method, settings.seed, network).build()
        other.load_state_dict(learner.state_dict())
        return other

    def condition(self, method: str, name: str, changes: Changes, steps: int | None = None, **more) -> list[Row]:
        """One row, or none where not one seed fits into the budget.

        Args:
            name: of the training's folder, the same for what shares a training.
            changes: what differs in this condition.
        """
        found, trained, what = [], [], self.what
        for seed in range(what.seeds):
            experiment = experiment_of(what, method, seed, changes)
            words = f"{self.split}-{what.tasks}x{what.episodes}-{what.shots}shots" + (f"-{steps}steps" if steps else "")
            folder = what.output_dir / what.family / name / f"{trained_as(method)}-seed{seed}"

            def work(experiment=experiment, seed=seed) -> Measured:
                console.print(f"{method}, seed {seed}: {name} {'' if steps is None else f'{steps} steps'}")
                learner = self.learner(experiment, method, name)
                return measure(what, learner, self.family, self.family.tasks(self.split, what.tasks), seed, steps)

            try:
                found.append(cached(folder / f"measured-{method}-{words}.json", self.budget, work))
                trained.append(seconds_so_far(folder / TRAINING_SECONDS))
            except OutOfTime:
                self.left.append(f"{method} {name} seed {seed}")
        if not found:
            return []
        short = f"{len(found)} of {what.seeds} seeds" if len(found) < what.seeds else ""
        more = {"parameters": experiment_of(what, method, 0, changes).parameters(), "note": short, **more}
        return [row(what, method, found, training_s=round(float(np.mean(trained)), 1) or None, steps=steps, **more)]

    def data_efficiency(self) -> list[Made]:
        what, cells = self.what, []
        default = experiment_of(what, what.methods[0], 0).settings.data
        for against, numbers, change in (
            ("training tasks", what.train_tasks, lambda n: {"tasks": n}),
            ("demonstrations of each", what.train_demonstrations, lambda n: {"demonstrations": n}),
        ):
            made = []
            for method in what.methods:
                for n in numbers:
                    data = replace(default, **change(n))
                    usual = experiment_of(what, method, 0).settings.training.meta_batch
                    changed = {"data": change(n), "training": {"meta_batch": min(usual, data.tasks)}}
                    name = f"tasks{data.tasks}-demonstrations{data.demonstrations}"
                    tasks = data.tasks
                    made += self.condition(
                        method,
                        name,
                        changed,
                        at=float(n),
                        train_tasks=tasks,
                        demonstrations=tasks * data.demonstrations,
                    )
            name = "data-efficiency" if against == "training tasks" else "data-efficiency-demonstrations"
            cells.append((name, made, against))
        return cells

    def learning_efficiency(self) -> list[Made]:
        made = []
        for method in self.what.methods:
            if method not in STEPPED:
                made += self.condition(method, "default", {})
                continue
            for steps in self.what.adaptation_steps:
                made += self.condition(method, "default", {}, steps)
        return [("learning-efficiency", made, "")]

    def generalisation(self) -> list[Made]:
        """All splits together, in bins of the distance to the nearest training task."""
        what = self.what
        splits = ["train", "validation", *self.family.test_splits]
        settings = experiment_of(what, what.methods[0], 0).settings
        known = hidden_of(self.family, self.family.tasks("train", settings.data.tasks))
        # Tasks of the training distribution that were not trained on stand for distance near nothing.
        pools = {s: self.family.tasks(s, what.tasks, settings.data.tasks if s == "train" else 0) for s in splits}
        far = np.concatenate([distances(hidden_of(self.family, tasks), known) for tasks in pools.values()])
        bins = np.array_split(np.argsort(far, kind="stable"), what.bins)
        made = []
        for method in what.methods:
            found = []
            for seed in range(what.seeds):
                folder = what.output_dir / what.family / "default" / f"{trained_as(method)}-seed{seed}"
                parts = []
                for split, tasks in pools.items():
                    words = f"{split}-{what.tasks}x{what.episodes}-{what.shots}shots"

                    def work(tasks=tasks, seed=seed, method=method) -> Measured:
                        learner = self.learner(experiment_of(what, method, seed), method, "default")
                        return measure(what, learner, self.family, tasks, seed)

                    path = folder / f"measured-{method}-{words}{'-unseen' if split == 'train' else ''}.json"
                    try:
                        parts.append(cached(path, self.budget, work))
                    except OutOfTime:
                        self.left.append(f"{method} {split} seed {seed}")
                if len(parts) == len(pools):
                    found.append(parts)
            for some in bins if found else []:
                seen = [
                    Measured(np.concatenate([p.scores for p in parts])[some].tolist(), parts[0].ms, parts[0].act_ms)
                    for parts in found
                ]
                made.append(row(what, method, seen, at=round(float(far[some].mean()), 4)))
        return [("generalisation", made, "distance from the training tasks")]

    def model_complexity(self) -> list[Made]:
        made = []
        for method in self.what.methods:
            for width in self.what.widths:
                layers = len(experiment_of(self.what, method, 0).settings.network.hidden)
                changed = {"network": {"hidden": (width,) * layers}}
                made += self.condition(method, f"width{width}", changed, at=float(width))
        return [("model-complexity", made, "width of the hidden layers")]

    def cell(self, name: str, made: Sequence[Row], against: str = "") -> Cell:
        if not made:
            raise QuickstudyError("Nothing fits into this budget; the same command goes on where this one stopped.")
        distance = (
            "distance is Euclidean, from what a demonstration reveals of a task to that of the nearest training task, "
            "each number in deviations over the training tasks, tasks of all splits in bins of equal size; "
        )
        return Cell.measured_here(
            cell=f"claim-{name}-{self.what.family.removesuffix('.npz')}",
            metric=self.family.metric,
            unit="fraction" if self.family.metric in ("success", "accuracy") else "squared error",
            protocol=(
                f"Held-out tasks{'' if name == 'generalisation' else f' of split {self.split!r}'}; "
                f"{self.family.protocol}; {distance if name == 'generalisation' else ''}mean {self.family.metric} "
                f"after {self.what.shots} demonstration(s) with a 95 % interval over distinct tasks and seeds."
            ),
            command=shlex.join(["python", "-m", "benchmarks.claims", *sys.argv[1:]]),
            seconds=seconds_so_far(self.what.output_dir / self.what.claim / "seconds.json"),
            rows=made,
            against=against,
        )


def hidden_of(family: TaskFamily, tasks: Sequence[Task]) -> np.ndarray:
    """What demonstrations reveal of the tasks, [task, hidden]."""
    if family.hidden_size == 0:
        raise QuickstudyError(f"'{family.name}' has no numbers that tell its tasks apart, so no distance between them.")
    return np.stack([family.hidden(task) for task in tasks]).astype(float)


def distances(tasks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """From each task [task, hidden] to the nearest known one, in deviations of the known ones, [task]."""
    scale = np.where(known.std(0) > 1e-9, known.std(0), 1.0)
    return np.linalg.norm((tasks[:, None] - known[None]) / scale, axis=-1).min(1)


def draw(claim: str, cells: Sequence[Cell]) -> list[charts.Chart]:
    """The claim's charts."""
    axes = {
        "data-efficiency": [("at", "", False)],
        "learning-efficiency": [("steps", "adaptation steps", True), ("ms", "milliseconds to adapt", True)],
        "generalisation": [("at", "", False)],
        "model-complexity": [("parameters", "parameters", True), ("act_ms", "milliseconds to act", True),
                             ("ms", "milliseconds to adapt", True)],
    }[claim]  # fmt: skip
    made = [
        charts.against(cell, name, label or cell.against, f"Against {label or cell.against}", CAPTIONS[claim], log)
        for cell in cells
        for name, label, log in axes
    ]
    return [chart for chart in made if chart is not None]


def main(what: Claims) -> None:
    claim = Claim(what)
    with clock(what.output_dir / what.claim / "seconds.json"):
        measured = getattr(claim, what.claim.replace("-", "_"))()
    cells = [claim.cell(*parts) for parts in measured]
    for cell in cells:
        cell.write(what.results / f"{cell.cell}.json")
        print_table(cell)
    path = what.output_dir / what.claim / "report.html"
    page = report.Report(
        title=f"{what.claim.replace('-', ' ').capitalize()}, {what.family}",
        headline=CAPTIONS[what.claim],
        cells=cells,
        charts={"Results": draw(what.claim, cells)},
        command=cells[0].command,
        settings=asdict(what),
    )
    report.write(path, page)
    console.print(f"The charts are in {path}")
    if claim.left:
        console.print(
            f"Out of time: {len(claim.left)} did not fit ({', '.join(claim.left)}); the same command goes on."
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main(tyro.cli(Claims))
    except QuickstudyError as problem:
        console.print(f"[red]{problem}[/]")
        sys.exit(2)
