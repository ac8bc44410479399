"""Trains the small learners that come with the package: python tools/train_studio_learners.py

Each becomes a run folder of src/quickstudy/studio/learners with a card, and rows of benchmarks/results/packaged-*.json.
Where people can demonstrate a family, half of the demonstrations that a learner is trained to adapt from are as people
give them (`quickstudy.studio.people`); what it is asked for is always what the expert does. A call that was stopped
goes on when it is called again. Test tasks have no part in any choice: the best checkpoint and the width of the weights
are chosen by validation tasks.
"""

import functools
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from quickstudy import outside
from quickstudy.data import Batch, DemonstrationSet, Seen, SupportQuery, check_shots, collate, recorded
from quickstudy.evaluation import Evaluation, evaluate
from quickstudy.experiment import COST, TRAINING_SECONDS, Experiment
from quickstudy.io import checkpoint, files
from quickstudy.io.progress import console
from quickstudy.results import runs
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import describe, rows
from quickstudy.results.tables import print_table
from quickstudy.settings import Changes
from quickstudy.studio.learners import FOLDER, card, packaged
from quickstudy.studio.people import GraspingByPeople, ManipulationByPeople, NavigationByPeople
from quickstudy.task import TaskFamily

COMMAND = "python tools/train_studio_learners.py"
WORK = Path("build/studio-learners")
"""Where recorded demonstrations and trainings are kept."""
RESULTS = Path("benchmarks/results")
EACH = 3
"""Demonstrations of each training task by its expert, and as many by people."""
MOST_BYTES = 1_000_000
ROUNDS = (0, 1, 2, 3, 4)
"""Own tries that a learner by trial is measured after."""


@dataclass(frozen=True)
class Recipe:
    """One learner: what it learns, by which method and with which settings."""

    family: str
    method: str
    changes: Changes

    @property
    def name(self) -> str:
        return f"{self.family}-{self.method}"


def _recipe(family: str, method: str, steps: int, validate_every: int, tasks: int, episodes: int) -> Recipe:
    """One that learns from demonstrations of so many tasks, and is validated by so many episodes each of 25 others."""
    data = {"tasks": tasks, "demonstrations": EACH, "validation_tasks": 25, "validation_episodes": episodes}
    return Recipe(family, method, {"data": data, "training": {"steps": steps, "validate_every": validate_every}})


RECIPES = (
    _recipe("grasping", "matching", 1200, 400, 400, 2),
    _recipe("grasping", "maml", 1200, 400, 400, 2),
    _recipe("grasping", "transfer", 1000, 500, 400, 2),
    _recipe("navigation", "matching", 3000, 500, 800, 2),
    _recipe("navigation", "maml", 600, 200, 800, 2),
    _recipe("navigation", "transfer", 1500, 500, 800, 2),
    _recipe("ml1-pick-place", "hypernet", 2000, 500, 400, 2),
    _recipe("ml1-pick-place", "transfer", 1500, 500, 400, 2),
    Recipe("grasping-tries", "rl2-dagger", {"training": {"steps": 50, "meta_batch": 25}}),
)
PEOPLE: Mapping[str, Callable[[], TaskFamily]] = {
    "grasping": functools.partial(GraspingByPeople, threads=1),
    "navigation": functools.partial(NavigationByPeople, threads=1),
    "ml1-pick-place": functools.partial(
        ManipulationByPeople, "ml1-pick-place", dict.fromkeys(("train", "test"), ("pick-place-v3",)), threads=1
    ),
}
"""Families as people demonstrate them."""


class WithPeople(DemonstrationSet):
    """Support by people or by the expert, half of each; the query is always the expert's.

    Of each task's demonstrations the first half are the expert's, and the others people's.
    """

    def check(self, tasks: int, shots: int, queries: int) -> None:
        check_shots(shots, queries, self.batch.x.shape[1] // 2, "demonstrations of each kind a task")

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        self.check(tasks, shots, queries)
        half = self.batch.x.shape[1] // 2
        chosen = torch.randperm(len(self), generator=rng)[:tasks]
        experts = torch.rand(tasks, half, generator=rng).argsort(1)
        peoples = half + torch.rand(tasks, half, generator=rng).argsort(1)
        by_people = torch.rand(tasks, shots, generator=rng) < 0.5
        self._last = chosen
        support = torch.where(by_people, peoples[:, :shots], experts[:, :shots])
        return SupportQuery(self._pick(chosen, support), self._pick(chosen, experts[:, shots : shots + queries]))


def source_of(experiment: Experiment) -> WithPeople | None:
    """The training demonstrations of a family that people can demonstrate; recorded once, and kept."""
    family, name = experiment.family, experiment.family.name
    if experiment.by_trial or name not in PEOPLE:
        return None
    tasks = family.tasks("train", experiment.settings.data.tasks)
    place = WORK / f"demonstrations-{name}-{len(tasks)}"
    if checkpoint.exists(place):
        kept = checkpoint.load(place)
        return WithPeople(tasks, Batch(**kept.tensors), outside.from_plain(kept.config["seen"]))
    experts, peoples = (recorded(by, tasks, EACH, 0) for by in (family, PEOPLE[name]()))
    both = [expert + people for expert, people in zip(experts, peoples, strict=True)]
    batch, seen = collate(both, np.stack([family.hidden(task) for task in tasks])), Seen.of(both)
    checkpoint.save(place, batch._asdict(), {"seen": outside.plain(seen)})
    return WithPeople(tasks, batch, seen)


def evaluations(experiment: Experiment, learner: Any, split: str, tasks: int, episodes: int) -> dict[str, Evaluation]:
    """Of a split, by whose demonstrations were learned from, the most telling last; by trial, after each try."""
    family = experiment.family
    if experiment.by_trial:
        return {"": experiment.evaluate(learner, split, shots=ROUNDS, tasks=tasks, episodes=episodes)}
    whose = {"the expert": (family, (0, 1))}
    if family.name in PEOPLE:
        whose["a person"] = PEOPLE[family.name](), (1,)
    return {
        by: evaluate(learner, of, split, shots=shots, tasks=tasks, episodes=episodes)
        for by, (of, shots) in whose.items()
        if split != "validation" or by == list(whose)[-1]
    }


def figure(experiment: Experiment, found: Mapping[str, Evaluation]) -> float:
    """What the width of the weights is chosen by: the family's metric after the most experience of the last kind."""
    return round(float(list(found.values())[-1].metrics[experiment.family.metric][-1].mean()), 4)


def narrow(learner: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a learner with parameters of 16 bits; what it standardises by stays as it is."""
    parameters = {name for name, _ in learner.named_parameters()}
    return {name: t.half() if name in parameters and t.is_floating_point() else t for name, t in tensors.items()}


def make(recipe: Recipe, tasks: int, episodes: int) -> None:
    """Trains one learner and puts it into the package."""
    work, place = WORK / recipe.name, FOLDER / recipe.name
    experiment = Experiment.of(recipe.family, recipe.method, 0, recipe.changes)
    learner = experiment.train(work, source=source_of(experiment))
    best = checkpoint.load(work / "checkpoints/best")
    about = {name: value for name, value in best.config.items() if name not in ("versions", "history")}
    started = time.perf_counter()
    validated, kept = {}, {}
    for weights, tensors in (("float32", best.tensors), ("float16", narrow(learner, best.tensors))):
        kept[weights] = WORK / f"{recipe.name}-{weights}"
        checkpoint.save(kept[weights] / "checkpoints/best", tensors, about)
        validated[weights] = figure(
            experiment, evaluations(experiment, runs.load(kept[weights])[1], "validation", tasks, episodes)
        )
    weights = "float16" if validated["float16"] >= validated["float32"] else "float32"
    size = (kept[weights] / "checkpoints/best" / checkpoint.MODEL).stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{recipe.name} has {size} bytes with {weights} ({validated}); it must be smaller.")
    experiment, learner = runs.load(kept[weights])
    less = {"secondary_metrics": None, "iqm": None, "iqm_ci95": None}
    found = [
        replace(row, workload=f"{split}, shown by {by}" if by else split, **less)
        for split in experiment.family.test_splits
        for by, one in evaluations(experiment, learner, split, tasks, episodes).items()
        for row in rows(experiment.method, experiment.family, [one])
    ]
    cost = json.loads((work / COST).read_text())
    by_people = recipe.family in PEOPLE and not experiment.by_trial
    trained = round(float(json.loads((work / TRAINING_SECONDS).read_text())))
    told = {
        "family": recipe.family,
        "method": recipe.method,
        "command": f"{COMMAND} --only {recipe.name}",
        "weights": weights,
        "bytes": size,
        "parameters": experiment.parameters(),
        "seed": experiment.settings.seed,
        "training": f"{experiment.settings.training.steps} outer steps",
        "training_tasks": cost["train_tasks"],
        "demonstrations": f"{EACH} by the expert and {EACH} as people give them, of each task" if by_people else None,
        "training_seconds": trained,
        "measuring_seconds": round(time.perf_counter() - started),
        "validation": {
            "tasks": tasks,
            "metric": experiment.family.metric,
            **validated,
            "chosen": "float16 where it is no lower than float32",
        },
        "protocol": f"{tasks} held-out tasks of each split, {episodes} episodes each, one training",
    }
    head = json.dumps({name: value for name, value in told.items() if value is not None}, indent=1)
    body = ",\n".join("  " + json.dumps(row.plain(), allow_nan=False) for row in found)
    files.write(kept[weights] / "card.json", f'{head[:-2]},\n "rows": [\n{body}\n ]\n}}\n')
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(kept[weights], place)


def tabulate(name: str) -> None:
    """Writes the table of a family from its learners' cards."""
    cards = [card(run) for run in packaged(name)]
    family = Experiment.of(name, cards[0]["method"]).family
    found = [
        replace(
            Row(**row),
            parameters=told["parameters"],
            training_s=told["training_seconds"],
            train_tasks=told["training_tasks"],
        )
        for told in cards
        for row in told["rows"]
    ]
    cell = Cell.measured_here(
        cell=f"packaged-{name}",
        metric=family.metric,
        unit="fraction",
        protocol=describe(family, "' and '".join(family.test_splits), {row.learns_from for row in found}),
        command=f"{COMMAND} --only {' '.join(run.name for run in packaged(name))}",
        seconds=sum(told["training_seconds"] + told["measuring_seconds"] for told in cards),
        rows=found,
    )
    cell.write(RESULTS / f"{cell.cell}.json")
    print_table(cell)


@dataclass(frozen=True)
class Train:
    """Trains the small learners that come with the package, or some of them."""

    only: Annotated[tuple[str, ...], tyro.conf.arg(help="such as grasping-matching; all by default")] = ()
    tasks: Annotated[int, tyro.conf.arg(help="validation tasks, and held-out tasks of each split")] = 60
    episodes: Annotated[int, tyro.conf.arg(help="of each task")] = 2


def main() -> None:
    given = tyro.cli(Train, description=__doc__)
    for recipe in RECIPES:
        if not given.only or recipe.name in given.only:
            console.print(recipe.name)
            make(recipe, given.tasks, given.episodes)
            tabulate(recipe.family)


if __name__ == "__main__":
    main()
