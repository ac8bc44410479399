"""Meta-World's ML1 and ML10 by trial (Yu et al. 2019): one start and one goal a task.

A task is what it is in the package: one of its tasks with one random vector, the start of the object and the goal. All
episodes of a task begin alike, the goal is never observed, and only rewards (v2, 0 to 10 a step) say where it is. The
package draws 50 vectors for each of its tasks and split, by an unseeded generator by default; here they are drawn from
the same boxes and fixed. An action may be held for several steps, and training may recombine the starts and goals of
its vectors: both are options, and the table says so. As many episodes count after an adaptation as before it.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.families.metaworld import catalogue
from quickstudy.families.metaworld.catalogue import TASKS, official_name, short_name
from quickstudy.families.metaworld.family import Manipulation
from quickstudy.task import Task


class FixedStart(Manipulation):
    """Tasks of Meta-World that differ in their rewards alone; see the module's text, `ml1` and `ml10`."""

    secondary_metrics: tuple[str, ...] = ("success_last", "return")
    begins_with = "vector"
    learned_from = ("trials",)  # every demonstration of a task would be of the same start
    fixed_start = True

    def __init__(
        self,
        seed_name: str,
        classes: Mapping[str, Sequence[str]],
        *,
        horizon: int = 500,
        repeat: int = 1,
        vectors: int = 50,
        recombine: bool = False,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            seed_name: `Task.family` of its tasks, which seeds them; the family's name is this and '-fixed-start'.
            classes: Meta-World's tasks in each split: 'train', 'validation', 'test'.
            horizon: Meta-World's steps in an episode; 500 by its definition, many papers on ML1 have fewer.
            repeat: how many of these an action is held for, as one step of the learner with their mean reward.
            vectors: random vectors of each of Meta-World's tasks in each split.
            recombine: train with the start of any training vector and the goal of any other too. With 50 vectors alone,
                where the object starts tells a learner the goal: it learns that by heart, and it holds for no other.
            threads: that step the simulation; by default one for each core. Results do not depend on it.

        Raises:
            QuickstudyError: an unknown task, a number that is not positive, a `repeat` that does not divide `horizon`.
        """
        if horizon < 1 or vectors < 1:
            raise QuickstudyError(f"horizon and vectors must be positive; got {horizon} and {vectors}.")
        if repeat < 1 or horizon % repeat:
            raise QuickstudyError(f"repeat must divide the horizon, {horizon}; got {repeat}.")
        self.seed_name, self.vectors, self.repeat, self._recombine = seed_name, vectors, repeat, recombine
        super().__init__(f"{seed_name}-fixed-start", classes, horizon=horizon // repeat, noise=0.0, threads=threads)
        self.sizes = {split: vectors * len(tasks) for split, tasks in classes.items()}
        if recombine:
            self.sizes["train"] *= vectors
        self.rate, self.film_every = self.rate / repeat, max(1, self.film_every // repeat)
        self.default_method, self.holds_out_tasks = "maml-trpo", True

    def task(self, split: str, index: int) -> Task:
        """Meta-World's tasks take turns, so that every one has an equal share of any number of tasks.

        The first `vectors` of each have their own start and goal; those that follow, if any, the goals of others.
        """
        lap, turn = divmod(index, len(self._classes[split]))
        others, own = divmod(lap, self.vectors)
        parameters = self._official(split, turn, own)
        if others:
            goal = self._official(split, turn, (own + others) % self.vectors)["vector"][3:]
            mixed = [*parameters["vector"][:3], *goal]
            if TASKS[parameters["task"]].accepts(np.array(mixed)):
                parameters["vector"] = mixed
        return Task(self.seed_name, split, index, parameters)

    def draw(self, count: int, rng: torch.Generator) -> list[Task]:
        """Training tasks for one step of the outer loop, no two alike, with equal shares of Meta-World's tasks."""
        self.tasks("train", count)  # refuses more than there are
        classes = len(self._classes["train"])
        turns = torch.randperm(classes, generator=rng).tolist()
        vectors = [torch.randperm(self.sizes["train"] // classes, generator=rng).tolist() for _ in turns]
        drawn = [(turns[i % classes], i // classes) for i in range(count)]
        return [self.task("train", turn + classes * vectors[turn][k]) for turn, k in drawn]

    def caption(self, task: Task) -> str:
        name = short_name(task.parameters["task"]).replace("-", " ")
        return f"{name}, vector " + " ".join(f"{number:.2f}" for number in task.parameters["vector"])

    def _official(self, split: str, turn: int, number: int) -> dict[str, Any]:
        """Random vector `number` of the split's Meta-World task `turn`."""
        classes = self._classes[split]
        seed = [zlib.crc32(f"{self.seed_name}/{split}".encode()), turn + len(classes) * number]
        return self._parameters(split, classes[turn], np.random.default_rng(seed))

    def _parameters(self, split: str, name: str, rng: np.random.Generator) -> dict[str, Any]:
        return {"task": name, "vector": TASKS[name].vector(rng).tolist()}

    def _goal(self, task: Task) -> np.ndarray | None:
        name = task.parameters["task"]
        return np.array(task.parameters["vector"][3:]) if TASKS[name].has_goal else None

    def _protocol(self) -> str:
        mixed = " (in training any start with any goal of these)" if self._recombine else ""
        held = f", an action is held for {self.repeat} and earns their mean reward" if self.repeat > 1 else ""
        return (
            f"Meta-World v3 with v2 rewards, the goal is hidden, a task is one start of the object with one "
            f"goal, {self.vectors} of each of Meta-World's tasks{mixed}, an episode has {self.horizon * self.repeat} "
            f"steps{held}, success is the package's, at any step"
        )


def ml1(task: str, **options: Any) -> FixedStart:
    """ML1: one of Meta-World's 50 tasks ('push'), other starts and goals in each split.

    Raises:
        QuickstudyError: there is no such task.
    """
    name = official_name(task)
    return FixedStart(f"ml1-{short_name(name)}", dict.fromkeys(("train", "validation", "test"), (name,)), **options)


def ml10(**options: Any) -> FixedStart:
    """ML10: ten tasks to train on, five others to test on; 'validation' has five more, of ML45's training tasks."""
    return FixedStart("ml10", catalogue.ML10, **options)
