"""Meta-World's ML1 and ML10 by trial (Yu et al. 2019), on the batched worlds of `quickstudy.skills.metaworld`.

**Rewards are v2** (metaworld 3.1.1, 0 to 10 a step); figures with v1 rewards are on another scale and not comparable.

A task is what it is in the package: one of its tasks with one random vector, the start of the object and the goal. All
episodes of a task begin alike, the goal is never observed (its three numbers are zero), and only rewards tell of it.
The package draws 50 vectors for each of its tasks and split, by an unseeded generator unless told otherwise; here they
are drawn from the same boxes, for ever the same. An episode is never terminated and truncated after 500 steps, the
package's definition, or after `horizon`. An action may be held for several steps, and training may recombine the starts
and goals of its vectors: both are options, and the table says so.

The published protocol is one adaptation to 10 episodes and then 3 episodes that count, success at any of their steps.
Here as many episodes count after an adaptation as before it, and both successes are reported.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.metaworld import official as stock
from quickstudy.families.metaworld.catalogue import ML10_TEST, ML10_TRAIN, ML10_VALIDATION, REWARD, TASKS
from quickstudy.families.metaworld.worlds import ACTION, OBSERVATION, MetaWorlds
from quickstudy.simulation.old_vector_env import StepResult, TrialFamily, VectorEnv
from quickstudy.task import Task

_GOAL = slice(36, 39)
_FRAME = (0.2,) * 3 + (1.0,) + 2 * ((0.2,) * 3 + (1.0,) * 4)
_UNIT = 2 * _FRAME + (0.2,) * 3
"""Of hand, opening, and place and quaternion of two objects, now and before, and goal: 20 cm, or 1."""
_TIPS = 0.045
"""Metres from the hand down to the finger tips."""


class FixedStartEnv(VectorEnv):
    """Meta-World's tasks, each with its vector in every lane; a world that became unstable is broken till its reset.

    Args:
        horizon: steps here, each of which is `repeat` of Meta-World's.
    """

    action_size = ACTION

    def __init__(
        self, tasks: Sequence[Task], episodes_per_task: int, horizon: int, repeat: int, threads: int | None
    ) -> None:
        self.tasks, self.episodes_per_task, self.horizon, self._repeat = list(tasks), episodes_per_task, horizon, repeat
        self._vectors = [np.array(task.parameters["vector"]) for task in tasks for _ in range(episodes_per_task)]
        self._names = np.array([task.parameters["task"] for task in tasks for _ in range(episodes_per_task)])
        self._sims = MetaWorlds(self._names.tolist(), threads)

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self._sims.reset(self._vectors)
        return self._observe()

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        chosen = None if alive.all() else np.flatnonzero(alive)
        rewards, success = np.zeros(alive.shape), np.zeros_like(alive)
        for _ in range(self._repeat):
            self._sims.advance(np.clip(actions, -1.0, 1.0).reshape(-1, ACTION), chosen)
            rewards += self._sims.reward.reshape(alive.shape) / self._repeat
            success |= self._sims.success.reshape(alive.shape)
        observations = self._observe()
        broken = alive & ~np.isfinite(observations).all(-1)
        self.faults += int(broken.sum())
        return StepResult(observations, rewards, np.zeros_like(alive), success, broken)

    def expert_action(self) -> np.ndarray:
        """The package's experts, who see the goal; the one of reaching brings the finger tips there, not the hand.

        Reaching is judged by the finger tips. With the hand at the goal they are 4.4 cm from it where 5 are allowed, so
        who does almost the same fails.
        """
        actions, seen = np.zeros((len(self._names), ACTION), np.float32), self._sims.observations.copy()
        seen[self._names == "reach-v3", 2] -= _TIPS
        for name in set(self._names):
            here = np.flatnonzero(self._names == name)
            actions[here] = stock.expert(name)(seen[here])
        return np.clip(actions, -1.0, 1.0).reshape(len(self.tasks), self.episodes_per_task, ACTION)

    def close(self) -> None:
        self._sims.close()

    def _observe(self) -> np.ndarray:
        seen = self._sims.observations.astype(np.float32)
        seen[:, _GOAL] = 0.0
        return seen.reshape(len(self.tasks), self.episodes_per_task, OBSERVATION)


class MetaWorldTrials(TrialFamily):
    """Tasks of Meta-World that only rewards tell apart; see the module's text, `ml1` and `ml10`."""

    metric = "success"
    secondary_metrics = ("success_last", "return")
    episodes = 10
    rate = 80.0
    has_expert = True
    observation_size, action_size = OBSERVATION, ACTION
    observation_unit = _UNIT

    def __init__(
        self,
        name: str,
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
            classes: Meta-World's tasks in each split: 'train', 'validation', 'test'.
            horizon: Meta-World's steps in an episode; 500 by its definition, many papers on ML1 have fewer.
            repeat: how many of these an action is held for, as one step of the learner with their mean reward.
            vectors: random vectors of each of Meta-World's tasks in each split.
            recombine: train with the start of any training vector and the goal of any other too. With 50 vectors alone,
                where the object starts tells a learner the goal: it learns that by heart, and it holds for no other.
            threads: that step the worlds; by default one for each core. Results do not depend on it.

        Raises:
            QuickstudyError: an unknown task, a number that is not positive, a `repeat` that does not divide `horizon`.
        """
        for task in (task for tasks in classes.values() for task in tasks):
            if task not in TASKS:
                raise unknown("Meta-World task", task, TASKS)
        if horizon < 1 or vectors < 1:
            raise QuickstudyError(f"horizon and vectors must be positive; got {horizon} and {vectors}.")
        if repeat < 1 or horizon % repeat:
            raise QuickstudyError(f"repeat must divide the horizon, {horizon}; got {repeat}.")
        self.name, self.vectors, self.threads, self._classes = name, vectors, threads, classes
        self.horizon, self.repeat = horizon, repeat
        self._all = list(dict.fromkeys(task for tasks in classes.values() for task in tasks))
        self.sizes = {split: vectors * len(tasks) for split, tasks in classes.items()}
        if recombine:
            self.sizes["train"] *= vectors
        self.hidden_size = 3 + (len(self._all) if len(self._all) > 1 else 0)
        mixed = " (in training any start with any goal of these)" if recombine else ""
        held = f", an action is held for {repeat} and earns their mean reward" if repeat > 1 else ""
        self.protocol = (
            f"Meta-World v3 with {REWARD} rewards, the goal is hidden, a task is one start of the object with one "
            f"goal, {vectors} of each of Meta-World's tasks{mixed}, an episode has {horizon} steps{held}, success is "
            "the package's, at any step"
        )

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
        return Task(self.name, split, index, parameters)

    def _official(self, split: str, turn: int, number: int) -> dict[str, Any]:
        """Random vector `number` of the split's Meta-World task `turn`."""
        classes = self._classes[split]
        rng = np.random.default_rng([zlib.crc32(f"{self.name}/{split}".encode()), turn + len(classes) * number])
        return self._drawn(classes[turn], rng)

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return self._drawn(str(rng.choice(self._classes[split])), rng)

    def draw(self, count: int, rng: torch.Generator) -> list[Task]:
        """Training tasks for one step of the outer loop, no two alike, with equal shares of Meta-World's tasks."""
        self.tasks("train", count)  # refuses more than there are
        classes = len(self._classes["train"])
        turns = torch.randperm(classes, generator=rng).tolist()
        vectors = [torch.randperm(self.sizes["train"] // classes, generator=rng).tolist() for _ in turns]
        places = [(turns[i % classes], i // classes) for i in range(count)]
        return [self.task("train", kind + classes * vectors[kind][k]) for kind, k in places]

    def hidden(self, task: Task) -> np.ndarray:
        """The goal in -1..1 of its box (0 where it moves with the object), and which of Meta-World's tasks it is."""
        name, vector = task.parameters["task"], np.array(task.parameters["vector"])
        goal = TASKS[name].relative(vector[3:]) if TASKS[name].has_goal else np.zeros(3)
        which = [name == other for other in self._all] if len(self._all) > 1 else []
        return np.concatenate([goal, which]).astype(np.float32)

    def vector_env(self, tasks: Sequence[Task], episodes_per_task: int) -> VectorEnv:
        """Raises QuickstudyError for a task of another family, such as that of demonstrations with the same name."""
        for task in tasks:
            if task.family != self.name or "vector" not in task.parameters:
                raise QuickstudyError(f"Task {task.name} is not one of '{self.name}' by trial.")
        return FixedStartEnv(tasks, episodes_per_task, self.horizon // self.repeat, self.repeat, self.threads)

    def caption(self, task: Task) -> str:
        name = task.parameters["task"].removesuffix("-v3").replace("-", " ")
        return f"{name}, vector " + " ".join(f"{number:.2f}" for number in task.parameters["vector"])

    @staticmethod
    def _drawn(name: str, rng: np.random.Generator) -> dict[str, Any]:
        return {"task": name, "vector": TASKS[name].vector(rng).tolist()}


def ml1(task: str, **options: Any) -> MetaWorldTrials:
    """ML1: one of Meta-World's 50 tasks ('push'), other starts and goals in each split.

    Raises:
        QuickstudyError: there is no such task.
    """
    short = task.removesuffix("-v3")
    if f"{short}-v3" not in TASKS:
        raise unknown("Meta-World task", task, [name.removesuffix("-v3") for name in TASKS])
    return MetaWorldTrials(f"ml1-{short}", dict.fromkeys(("train", "validation", "test"), (f"{short}-v3",)), **options)


def ml10(**options: Any) -> MetaWorldTrials:
    """ML10: ten tasks to train on, five others to test on; 'validation' has five more, of ML45's training tasks."""
    classes = {"train": ML10_TRAIN, "validation": ML10_VALIDATION, "test": ML10_TEST}
    return MetaWorldTrials("ml10", classes, **options)
