"""Manipulation with Meta-World's Sawyer: ML1 of any of its 50 tasks, ML10, ML45, and tools of other sizes.

**The goal is hidden**, as Meta-World's ML benchmarks have it (its MT benchmarks show it): the last three numbers of an
observation are zero, and only a demonstration, or rewards, say where to go. `goal="visible"` shows it.

Here a task is what the episodes of one demonstration share. With a hidden goal that is Meta-World's task (push, say)
and one goal; the object starts elsewhere in every episode. With a visible goal it is Meta-World's task alone; object
and goal are elsewhere in every episode, so that a demonstration is of another goal. Rewards are v2, success is counted
both ways: at any step (as most papers do) and at the last one.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.metaworld.catalogue import ML10, ML45, TASKS, official_name, short_name
from quickstudy.families.metaworld.env import GOAL, MetaWorldEnv
from quickstudy.families.metaworld.settings import method_settings
from quickstudy.families.metaworld.worlds import ACTION, OBSERVATION
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import ObservationLayout, Task, check_run

TOOLS = ("hammer-v3", "stick-push-v3", "peg-insert-side-v3", "assembly-v3")
"""Tool tasks to train on; the fifth, stick-pull, is kept for the split 'tasks'."""
HELD_OUT_TOOLS = ("stick-pull-v3",)
LENGTHS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "train": ((0.80, 0.90), (0.97, 1.05), (1.15, 1.25)),
    "validation": ((0.90, 0.93), (1.05, 1.08)),
    "tools": ((0.93, 0.97), (1.08, 1.15), (1.25, 1.35)),
    "tasks": ((0.80, 1.25),),
}
"""Tools' lengths relative to Meta-World's own, half-open [low, high): none of the split 'tools' occurs in training."""
WIDTHS = (0.85, 1.1)
QUICK = 150
"""Steps to a success that counts as a good demonstration: one that took longer, because a grasp slipped and the expert
stood there, say, is tried again, up to `QUICK_ATTEMPTS` times in all, and the quickest is kept."""
QUICK_ATTEMPTS = 4
_PLACE, _OBJECT = (0.2,) * 3, (0.2,) * 3 + (1.0,) * 4
_UNIT = 2 * (*_PLACE, 1.0, *_OBJECT, *_OBJECT) + _PLACE
"""Of hand, opening, and position and quaternion of two objects, now and before, and goal: 20 cm, or 1."""


class Manipulation(SimulatedFamily):
    """Tasks of Meta-World; see the module's text and `ml1`, `ml10`, `ml45` and `tools`."""

    metric: str = "success"
    secondary_metrics: tuple[str, ...] = ("success_last",)
    rate = 80.0
    observation_size = OBSERVATION
    action_size = ACTION
    rest = (0.0, 0.0, 0.0, None)
    attempts = 16
    demonstrated_at_once = 200
    film_every, film_ends_with_success = 4, True
    episodes_per_task = 10
    repeat = 1
    """For how many of Meta-World's steps an action is held."""
    begins_with: ClassVar[Literal["goal", "vector"]] = "goal"
    """What of an episode's random vector belongs to the task: see `MetaWorldEnv`."""

    def __init__(
        self,
        name: str,
        classes: Mapping[str, Sequence[str]],
        *,
        goal: Literal["hidden", "visible"] = "hidden",
        scramble: bool = False,
        lengths: Mapping[str, Sequence[tuple[float, float]]] | None = None,
        horizon: int = 200,
        tail: int = 10,
        noise: float = 0.05,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            classes: Meta-World's tasks in each split, 'train' among them. Without a 'validation', it holds other goals
                of those training tasks that have one; where none has, other episodes of the training tasks.
            goal: hidden, as in Meta-World's ML benchmarks, or visible.
            scramble: the numbers of an observation are in an order of the task's own.
            lengths: of tools, relative, in each split; Meta-World's own tools where there are none.
            horizon: steps of an episode (Meta-World's own is 500); all of them are run.
            tail: steps that a demonstration goes on for after its success.
            noise: standard deviation of the noise on actions in every episode, of their range of -1..1.
            threads: that step the simulation; by default one for each core. Results do not depend on it.

        Raises:
            QuickstudyError: an unknown task or option, or a number out of its range.
        """
        classes = {split: [official_name(task) for task in tasks] for split, tasks in classes.items()}
        if goal not in ("hidden", "visible"):
            raise unknown("way to treat the goal", goal, ("hidden", "visible"))
        if horizon < 1 or tail < 0:
            raise QuickstudyError(f"Manipulation needs horizon >= 1 and tail >= 0; got {horizon} and {tail}.")
        if not 0.0 <= noise <= 1.0:
            raise QuickstudyError(f"noise must be within 0..1; got {noise}.")
        self.name, self.goal, self.scramble, self.horizon, self.tail = name, goal, scramble, horizon, tail
        self.noise, self.threads = noise, threads
        self.observation_layout = None if scramble else ObservationLayout(slice(0, 3), slice(4, 7), GOAL, slice(3, 4))
        self.observation_unit = 1.0 if scramble else _UNIT
        others = [task for task in classes["train"] if lengths or (goal == "hidden" and TASKS[task].has_goal)]
        self._classes = {"train": classes["train"], "validation": others or classes["train"], **classes}
        self._all = list(dict.fromkeys(task for tasks in self._classes.values() for task in tasks))
        self._lengths = lengths
        new = {task for tasks in classes.values() for task in tasks} - {*classes["train"]}
        self.holds_out_tasks = bool(new or others or scramble)  # door-open, say, has no goal: all its tasks are alike
        self.sizes = {split: 100_000 if split == "train" else 10_000 for split in self._classes}
        self.hidden_size = 3 + (len(self._all) if len(self._all) > 1 else 0)
        self.hidden_size += 2 * (lengths is not None) + OBSERVATION * scramble
        self.protocol = self._protocol()
        self.default_method, self.method_settings = method_settings(self._all, scramble)

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        """Environments of these tasks; a demonstration goes on for `tail` steps after its success."""
        check_run(tasks, episodes_per_task)
        return MetaWorldEnv(
            [self.check(task) for task in tasks],
            episodes_per_task,
            self.horizon,
            goal_visible=self.goal == "visible",
            noise=self.noise,
            repeat=self.repeat,
            tail=self.tail if demonstrating else None,
            threads=self.threads,
        )

    def check(self, task: Task) -> Task:
        """The task itself, if it belongs to this family; raises QuickstudyError otherwise."""
        if self.begins_with not in task.parameters:  # the other family, whose tasks may have the same name
            raise QuickstudyError(f"Task {task.name} is not of the family '{self.name}'.")
        return super().check(task)

    def worth_another(self, demonstration: Demonstration, attempt: int) -> bool:
        """Whether it took longer than `QUICK` steps to its success, in the first `QUICK_ATTEMPTS` attempts."""
        return attempt < QUICK_ATTEMPTS and len(demonstration) > QUICK + self.tail

    def task(self, split: str, index: int) -> Task:
        """Meta-World's tasks take turns, so that every one has an equal share of any number of tasks."""
        rng = np.random.default_rng([zlib.crc32(f"{self.name}/{split}".encode()), index])
        classes = self._classes[split]
        return Task(self.name, split, index, self._parameters(split, classes[index % len(classes)], rng))

    def task_key(self, task: Task) -> str:
        """The kind alone, where training has none of it: other goals and tools of it are draws of one new task."""
        kind = str(task.parameters["task"])
        return super().task_key(task) if kind in self._classes["train"] else kind

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return self._parameters(split, str(rng.choice(self._classes[split])), rng)

    def hidden(self, task: Task) -> np.ndarray:
        """Which of Meta-World's tasks it is (one-hot, if there are several), goal, tool, order of the observation."""
        parameters, goal = task.parameters, self._goal(task)
        parts = [np.zeros(3) if goal is None else TASKS[parameters["task"]].relative(goal)]
        if len(self._all) > 1:
            parts.append(np.array([parameters["task"] == name for name in self._all], np.float64))
        if self._lengths is not None:
            parts.append(np.array([(parameters["length"] - 1.0) / 0.2, (parameters["width"] - 1.0) / 0.1]))
        if self.scramble:
            parts.append(np.array(parameters["order"]) / OBSERVATION)
        return np.concatenate(parts).astype(np.float32)

    def caption(self, task: Task) -> str:
        parameters = task.parameters
        words = [short_name(parameters["task"]).replace("-", " ")]
        if parameters["goal"] is not None:
            words.append("to " + " ".join(f"{number:.2f}" for number in parameters["goal"]))
        if "length" in parameters:
            words.append(f"tool {parameters['length']:.2f} x as long")
        return ", ".join(words)

    def _goal(self, task: Task) -> np.ndarray | None:
        """The goal [3] that all episodes of a task share, if there is one."""
        goal = task.parameters["goal"]
        return None if goal is None else np.array(goal)

    def _parameters(self, split: str, name: str, rng: np.random.Generator) -> dict[str, Any]:
        parameters: dict[str, Any] = {"task": name, "goal": None}
        if self.goal == "hidden" and TASKS[name].has_goal:
            parameters["goal"] = TASKS[name].vector(rng)[3:].tolist()
        if self._lengths is not None:
            bands = self._lengths[split]
            sizes = np.array([high - low for low, high in bands])
            low, high = bands[int(rng.choice(len(bands), p=sizes / sizes.sum()))]
            parameters |= {"length": float(rng.uniform(low, high)), "width": float(rng.uniform(*WIDTHS))}
        if self.scramble:
            parameters["order"] = rng.permutation(OBSERVATION).tolist()
        return parameters

    def _protocol(self) -> str:
        if self.goal == "hidden":
            what = "goal hidden, the object's start drawn anew for every episode"
        else:
            what = "goal visible, object and goal drawn anew for every episode"
        if self._lengths is not None:
            what += ", tools of other lengths and widths"
        if self.scramble:
            what += ", observations in an order of the task's own"
        return (
            f"Meta-World v3 with v2 rewards, {what}, action noise {self.noise:g}, success is the package's, at any of "
            f"{self.horizon} steps"
        )


def ml1(task: str, **options: Any) -> Manipulation:
    """ML1: one of Meta-World's 50 tasks ('push'), other goals in each split.

    Raises:
        QuickstudyError: there is no such task.
    """
    name, scrambled = official_name(task), "-scrambled" if options.get("scramble") else ""
    return Manipulation(f"ml1-{short_name(name)}{scrambled}", {"train": [name], "test": [name]}, **options)


def ml10(goal: Literal["hidden", "visible"] = "hidden", **options: Any) -> Manipulation:
    """ML10: ten tasks to train on, five others to test on; 'validation' has five more, of ML45's training tasks."""
    name = "ml10" if goal == "hidden" else "ml10-imitation"
    return Manipulation(name, ML10, goal=goal, **{"horizon": 300, **options})


def ml45(goal: Literal["hidden", "visible"] = "hidden", **options: Any) -> Manipulation:
    """ML45: 45 tasks to train on, five others to test on; 'validation' holds other goals of the 45.

    With visible goals there is no task left that training has not: 'validation' then has other episodes of the 45.
    """
    name = "ml45" if goal == "hidden" else "ml45-imitation"
    return Manipulation(name, ML45, goal=goal, **{"horizon": 300, **options})


def tools(**options: Any) -> Manipulation:
    """Hammer, stick, peg and wrench of many lengths and widths, which the observation does not tell; the goal it does.

    The split 'tools' has tools of lengths that no training task has, 'tasks' a tool task that training has not.
    """
    classes = {"train": TOOLS, "tools": TOOLS, "tasks": HELD_OUT_TOOLS}
    return Manipulation("tools", classes, lengths=LENGTHS, **{"goal": "visible", "horizon": 300, **options})
