"""Trains the small learners that come with the package, for the studio: python tools/train_studio_learners.py

Each becomes a run folder of src/quickstudy/studio/learners with weights of 16 bits and a card. Half of the shows
that they learn to adapt from are given by people, as `quickstudy.studio.people` draws them; what they are asked for is
always what the expert does. A training that was stopped goes on when the command is called again.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quickstudy.data import Batch, DemonstrationSet, Seen, SupportQuery, check_shots, collate, recorded
from quickstudy.evaluation import evaluate
from quickstudy.experiment import Experiment
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.navigation.family import Navigation
from quickstudy.io import checkpoint
from quickstudy.results import runs
from quickstudy.settings import Changes
from quickstudy.studio.learners import FOLDER
from quickstudy.studio.people import GraspingByPeople, NavigationByPeople
from quickstudy.task import TaskFamily

COMMAND = "python tools/train_studio_learners.py"
WORK = Path("build/studio-learners")
"""Where trainings keep their checkpoints."""
SHOWN = 3
"""Demonstrations of each training task by its expert, and as many by people."""


@dataclass(frozen=True)
class Recipe:
    """One learner: what it learns, how, and how long."""

    family: str
    method: str
    changes: Changes


_GRASPING: Mapping[str, Any] = {"data": {"tasks": 400, "validation_tasks": 25, "validation_episodes": 2}}
_NAVIGATION: Mapping[str, Any] = {"data": {"tasks": 600, "validation_tasks": 25, "validation_episodes": 1}}
RECIPES = (
    Recipe("grasping", "matching", {**_GRASPING, "training": {"steps": 1200, "validate_every": 400}}),
    Recipe("grasping", "maml", {**_GRASPING, "training": {"steps": 1200, "validate_every": 400}}),
    Recipe("grasping", "transfer", {**_GRASPING, "training": {"steps": 1000, "validate_every": 500}}),
    Recipe("navigation", "matching", {**_NAVIGATION, "training": {"steps": 1500, "validate_every": 500}}),
    Recipe("navigation", "transfer", {**_NAVIGATION, "training": {"steps": 800, "validate_every": 400}}),
)
FAMILIES: Mapping[str, tuple[type[TaskFamily], type[TaskFamily]]] = {
    "grasping": (Grasping, GraspingByPeople),
    "navigation": (Navigation, NavigationByPeople),
}
"""By name: demonstrated by its expert, and by people."""


class PeopleAsk(DemonstrationSet):
    """Support by people or by the expert, half of each; the query is always the expert's."""

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        half = self.batch.x.shape[1] // 2  # the expert's first, then people's
        check_shots(shots, queries, half, "demonstrations a task")
        chosen = torch.randperm(len(self), generator=rng)[:tasks]
        experts = torch.rand(tasks, half, generator=rng).argsort(1)
        peoples = half + torch.rand(tasks, half, generator=rng).argsort(1)
        by_people = torch.rand(tasks, shots, generator=rng) < 0.5
        self._last = chosen
        support = torch.where(by_people, peoples[:, :shots], experts[:, :shots])
        return SupportQuery(self._pick(chosen, support), self._pick(chosen, experts[:, shots : shots + queries]))


def source_of(name: str, tasks: int) -> PeopleAsk:
    """The training demonstrations of a family; recorded once, and kept."""
    expert, people = (kind(threads=1) for kind in FAMILIES[name])  # type: ignore[call-arg]
    chosen = expert.tasks("train", tasks)
    kept = WORK / f"{name}-{tasks}.pt"
    if kept.exists():
        batch, seen = torch.load(kept, weights_only=False)
        return PeopleAsk(chosen, Batch(*batch), seen)
    both = [a + b for a, b in zip(recorded(expert, chosen, SHOWN, 0), recorded(people, chosen, SHOWN, 0), strict=True)]
    import numpy as np

    made = PeopleAsk(chosen, collate(both, np.stack([expert.hidden(t) for t in chosen])), Seen.of(both))
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save((tuple(made.batch), made.seen), kept)
    return made


def figures(experiment: Experiment, learner: Any, tasks: int) -> dict[str, dict[str, list[float]]]:
    """Success on held-out tasks by split, after no demonstration, one of the expert's, and one of a person's."""
    found: dict[str, dict[str, list[float]]] = {}
    by_people = FAMILIES[experiment.family.name][1](threads=1)  # type: ignore[call-arg]
    for split in experiment.family.test_splits:
        own = evaluate(learner, experiment.family, split, shots=(0, 1), tasks=tasks, episodes=2)
        theirs = evaluate(learner, by_people, split, shots=(1,), tasks=tasks, episodes=2)
        values = [round(float(v), 3) for v in (*own.metrics["success"].mean((1, 2)), theirs.metrics["success"].mean())]
        found[split] = dict(zip(("no demonstration", "the expert's", "a person's"), values, strict=True))  # type: ignore[arg-type]
    return found


def make(recipe: Recipe, tasks: int) -> None:
    """Trains one learner and puts it into the package."""
    work = WORK / f"{recipe.family}-{recipe.method}"
    experiment = Experiment.of(recipe.family, recipe.method, 0, recipe.changes)
    learner = experiment.train(work, source=source_of(recipe.family, experiment.settings.data.tasks))
    place = FOLDER / f"{recipe.family}-{recipe.method}"
    best = checkpoint.load(work / "checkpoints/best")
    about = {name: value for name, value in best.config.items() if name not in ("versions", "history")}
    shutil.rmtree(place, ignore_errors=True)
    half = {name: t.half() if t.is_floating_point() else t for name, t in best.tensors.items()}
    checkpoint.save(place / "checkpoints/best", half, about)
    experiment, learner = runs.load(place)
    card = {
        "family": recipe.family,
        "method": recipe.method,
        "command": f"{COMMAND} --only {recipe.family}-{recipe.method}",
        "weights": "float16",
        "bytes": (place / "checkpoints/best" / checkpoint.MODEL).stat().st_size,
        "training_seconds": round(float(json.loads((work / "training-seconds.json").read_text()))),
        "training": f"{experiment.settings.training.steps} steps on {experiment.settings.data.tasks} tasks, each "
        f"demonstrated {SHOWN} times by its expert and {SHOWN} times as people do",
        "success": figures(experiment, learner, tasks),
        "protocol": f"{tasks} held-out tasks of each split, 2 episodes each",
    }
    (place / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card["success"]), card["training_seconds"], "s", card["bytes"], "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="such as grasping-matching")
    parser.add_argument("--tasks", type=int, default=40, help="held-out tasks of each split for the card's figures")
    given = parser.parse_args()
    for recipe in RECIPES:
        if not given.only or f"{recipe.family}-{recipe.method}" in given.only:
            make(recipe, given.tasks)


if __name__ == "__main__":
    main()
