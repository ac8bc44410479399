"""For a first look: the whole path in a few minutes, `quickstudy demo`, or what came of one in half a minute,
`quickstudy demo --quick`."""

import dataclasses
import shlex
import time
from pathlib import Path

import numpy as np
from rich.markup import escape

from quickstudy.data import collate
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import adaptation_ms, run_tasks, skills_after
from quickstudy.experiment import Experiment
from quickstudy.export.bundle import export
from quickstudy.io.progress import console
from quickstudy.method import Method
from quickstudy.report import films
from quickstudy.report.build import evaluations, headline, write_report
from quickstudy.results import tables
from quickstudy.results.compare import Protocol, compare
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import describe, figures
from quickstudy.results.runs import load, save_example
from quickstudy.results.tuning import Tuning
from quickstudy.settings import Changes
from quickstudy.simulation import rendering
from quickstudy.studio.learners import packaged
from quickstudy.studio.learning import NO_ADAPTATION, TRANSFER, baseline, loaded
from quickstudy.studio.people import GraspingByPeople

FAMILY, FILMED = "grasping", "meta-sgd"
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
PROTOCOL = Protocol(seeds=1, tasks=50, episodes=2, tuning=Tuning(tasks=20, steps=(20, 100), rates=(3e-4, 1e-3, 3e-3)))
SHORT: Changes = {
    "training": {"steps": 600, "validate_every": 300},
    "data": {"tasks": 200, "demonstrations": 4, "validation_tasks": 25, "validation_episodes": 2},
}
"""Fewer tasks and steps than the family's defaults."""
QUICK_METHOD, QUICK_SPLIT = "matching", "shapes"
QUICK_TASKS, QUICK_EPISODES, QUICK_SEED = 20, 1, 1
"""The seed is of other demonstrations and starts than those of the learner's card."""
NEXT = ("quickstudy studio", "quickstudy demo")
"""What the quick one ends with."""


def experiment_for(method: str | Method, seed: int) -> Experiment:
    """A short training: the defaults of the family, on fewer tasks and for fewer steps."""
    return Experiment.of(FAMILY, method, seed, SHORT)


def demo(folder: Path, video: bool) -> Path:
    """Meta-trains on grasping, compares, films, and writes `folder/report.html`; goes on where it was stopped.

    Returns:
        where the report is.
    """
    started = time.perf_counter()
    filmed = experiment_for(FILMED, 0)
    console.print(
        "An arm learns to learn how objects must be grasped: meta-training on "
        f"{filmed.settings.data.tasks} objects, then one demonstration of each object it has never seen."
    )
    cells = compare(filmed.family, METHODS, PROTOCOL, folder, experiment_for=experiment_for, command="quickstudy demo")
    run = folder / f"{FILMED}-seed0"
    example = save_example(filmed.family, run)
    if video and not rendering.available():
        console.print(f"No video: {rendering.why_not()}")
    elif video:
        _, learner = load(run)
        evaluated = {split: evaluations(folder, split) for split in filmed.family.test_splits}
        films.take(folder, FILMED, filmed.family, learner, evaluated)
    tables.print_comparison(cells)
    report = write_report(folder, "quickstudy demo", video)
    console.print(f"\n{headline(cells)} ({(time.perf_counter() - started) / 60:.1f} minutes)")
    console.print(f"The report, with plots and videos of the arm: [bold]{escape(str(report))}[/]", soft_wrap=True)
    bundle = run / f"{FAMILY}.quickstudy"
    try:
        if not bundle.exists():
            made = export(run, bundle)
            console.print(
                f"For a robot without PyTorch: [bold]{escape(str(bundle))}[/], {made.size / 1e6:.2f} MB, learns from a "
                f"demonstration in {made.parity.adapt_ms or 0:.1f} ms and acts in {made.parity.act_ms:.3f} ms.",
                soft_wrap=True,
            )
        run_it = shlex.join(["quickstudy-runtime", "serve", str(bundle), "--demo", str(example)])
        console.print(f"What runs it there, for policy clients over a socket: {escape(run_it)}", soft_wrap=True)
    except QuickstudyError as error:  # its packages are an extra
        console.print(str(error), markup=False, soft_wrap=True)
    console.print("Next, with the learner that was just trained (see quickstudy --help for more):", soft_wrap=True)
    for words in (
        ("adapt", run, "--demo", example),
        ("evaluate", run, "--shots", 0, 1, 3),
        ("export", run),
        ("families", FAMILY),
    ):
        command = shlex.join(["quickstudy", *map(str, words)])
        console.print(f"  {escape(command)}", soft_wrap=True, highlight=False)
    return report


def quick(folder: Path, video: bool) -> Cell:
    """What a learner that comes with the package makes of one demonstration: half a minute, without meta-training.

    Demonstrations are as people give them, of shapes that no training had. `folder` gets the table and a film.

    Returns:
        the table.
    """
    started = time.perf_counter()
    family, learner = GraspingByPeople(), loaded(next(r for r in packaged(FAMILY) if r.name.endswith(QUICK_METHOD)))
    tasks = family.tasks(QUICK_SPLIT, QUICK_TASKS)
    console.print(
        f"An arm that learned to learn is shown once how {len(tasks)} objects are grasped, of shapes that it has never "
        "seen, clumsily, as people do with a mouse."
    )
    shown = family.demonstrate(tasks, 1, QUICK_SEED)
    support = collate(shown, np.stack([family.hidden(task) for task in tasks]))
    made = []
    for name in (QUICK_METHOD, TRANSFER, NO_ADAPTATION):
        one = learner if name == QUICK_METHOD else baseline(FAMILY, name)
        tried = run_tasks(family, tasks, QUICK_EPISODES, one, skills_after(one, support, 1), QUICK_SEED)
        scores = figures(tried[family.metric].mean(1)[None], [family.task_key(task) for task in tasks])
        made.append(Row(name, 1, **scores, episodes=QUICK_EPISODES, ms=round(adaptation_ms(one, support, 1), 2)))
    cell = Cell.measured_here(
        cell=f"{FAMILY}-{QUICK_SPLIT}",
        metric=family.metric,
        unit="fraction",
        protocol=describe(family, QUICK_SPLIT, {"demonstrations"}),
        command="quickstudy demo --quick",
        seconds=time.perf_counter() - started,
        rows=[dataclasses.replace(row, iqm=None, iqm_ci95=None) for row in made],
    )
    cell.write(folder / "results" / f"{cell.cell}.json")
    tables.print_table(cell)
    if video and not rendering.available():
        console.print(f"No video: {rendering.why_not()}")
    elif video:
        film, family.film_every = folder / "before-and-after.mp4", 2
        before, after = (films.film_after(learner, family, tasks[0], shots, QUICK_SEED) for shots in (0, 1))
        films.write_side_by_side(film, [before, after])
        console.print(
            f"The arm before and after one demonstration ({family.caption(tasks[0])}), at twice its speed: "
            f"[bold]{escape(str(film))}[/]",
            soft_wrap=True,
        )
    console.print(
        f"{time.perf_counter() - started:.0f} s. Next, teach it yourself, or see all of it with meta-training:"
    )
    for command in NEXT:
        console.print(f"  {command}", highlight=False)
    return cell
