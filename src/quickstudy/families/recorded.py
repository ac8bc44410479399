"""A family of a user's own demonstrations: its tasks are the labels that they come with, and nothing is simulated.

A learner is judged by how well it imitates demonstrations that it was not shown, step by step at the observations that
were recorded. That says whether it has understood which task it is, not yet whether it succeeds on the robot.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.settings import Changes
from quickstudy.task import Policy, Task, TaskFamily

SHARES = (0.6, 0.2, 0.2)
"""Of the tasks, for training, validation and test."""

QUERIES = 2
"""Demonstrations of each task that are kept to judge by."""


def split_by_shares(count: int, splits: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Which of `count` things belong to which split, drawn by these shares; none is empty where there are enough.

    Raises:
        QuickstudyError: these are no shares for training, validation and test.
    """
    if len(splits) != 3 or min(splits) < 0 or splits[0] * splits[2] == 0 or not np.isclose(sum(splits), 1.0):
        raise QuickstudyError(
            "splits must be three shares for training, validation (which may be 0) and test that sum to 1; got "
            f"{tuple(splits)}."
        )
    first, second = (np.cumsum(splits)[:2] * count).round().astype(int)
    if count >= 3:
        second = min(second, count - 1)
        first = max(1, min(first, second - (splits[1] > 0)))
    parts = np.split(np.random.default_rng(seed).permutation(count), [first, second])
    return dict(zip(("train", "validation", "test"), parts, strict=True))


def split_labels(
    labels: Sequence[str], splits: Sequence[float] | Mapping[str, Sequence[str | int]], seed: int
) -> dict[str, list[str]]:
    """Which labels belong to which split.

    Raises:
        QuickstudyError: shares or names that are not such, or too few labels.
    """
    if isinstance(splits, Mapping):
        chosen = {split: [str(label) for label in some] for split, some in splits.items()}
        for split, some in chosen.items():
            for label in some:
                if label not in labels:
                    raise unknown(f"task in split '{split}'", label, labels)
        for label in labels:
            where = [split for split, some in chosen.items() if label in some]
            if len(where) > 1:
                raise QuickstudyError(f"Task '{label}' is in the splits {' and '.join(where)}; they may not share one.")
    else:
        parts = split_by_shares(len(labels), splits, seed)
        chosen = {split: [labels[i] for i in part] for split, part in parts.items()}
    tests = [split for split in chosen if split not in ("train", "validation")]
    if not {"train", "validation"} <= chosen.keys() or not tests:
        raise QuickstudyError(f"A family needs 'train', 'validation' and a test split; got {', '.join(chosen)}.")
    empty = [split for split in ("train", *tests) if not chosen[split]]
    if empty:
        raise QuickstudyError(f"Of {len(labels)} tasks the split '{empty[0]}' gets none.")
    return chosen


class RecordedDemonstrations(TaskFamily):
    """The family; see the module's text and `quickstudy.families.from_demonstrations`."""

    scales_actions = True
    metric: str = "error"
    higher_is_better: ClassVar[bool] = False
    protocol = (
        "the task is hidden, the error is the mean squared one of the actions in recorded demonstrations that were not "
        "shown"
    )

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Mapping[str, Sequence[Demonstration]]],
        queries: int,
        seed: int = 0,
        rate: float | None = None,
    ) -> None:
        """
        Args:
            splits: for each split the tasks by label, and the demonstrations of each.
            queries: demonstrations of each task that are kept to judge by and never shown.
            rate: their steps a second, if known.

        Raises:
            QuickstudyError: widths that differ, or a task with too few demonstrations.
        """
        if queries < 1:
            raise QuickstudyError(f"Each task needs at least 1 demonstration to be judged by; got queries={queries}.")
        every = [d for tasks in splits.values() for some in tasks.values() for d in some]
        widths = sorted({(d.observations.shape[1], d.actions.shape[1]) for d in every})
        if len(widths) != 1:
            raise QuickstudyError(
                f"The demonstrations of '{name}' need equal widths; got (observation, action) widths {widths}."
            )
        for tasks in splits.values():
            for label, some in tasks.items():
                if len(some) <= queries:
                    raise QuickstudyError(
                        f"Task '{label}' of '{name}' has {len(some)} demonstrations; {queries} to judge by and at "
                        f"least one to show need {queries + 1}."
                    )
        self.name, self._queries, self.most_episodes, self.rate = name, queries, queries, rate
        ((self.observation_size, self.action_size),) = widths
        self.hidden_size = self.observation_size + self.action_size
        self.horizon = max(len(d) for d in every)
        self.sizes = {split: len(tasks) for split, tasks in splits.items()}
        self.method_settings = self._settings(min(map(len, splits["train"].values())))
        rng = np.random.default_rng(seed)
        self._labels = {split: list(tasks) for split, tasks in splits.items()}
        self._of = {
            label: [some[i] for i in rng.permutation(len(some))]
            for tasks in splits.values()
            for label, some in tasks.items()
        }
        # One demonstration at a time: all steps once more would double the memory that a large data set takes.
        total = sum(map(len, every))
        self._mean = sum((_steps(d).sum(0, dtype=float) for d in every), np.zeros(self.hidden_size)) / total
        squares = (np.square(_steps(d) - self._mean).sum(0) for d in every)
        self._deviation = np.sqrt(sum(squares, np.zeros(self.hidden_size)) / total)

    def task(self, split: str, index: int) -> Task:
        return Task(self.name, split, index, {"label": self._labels[split][index]})

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"label": self._labels[split][int(rng.integers(len(self._labels[split])))]}

    def hidden(self, task: Task) -> np.ndarray:
        """The mean step of all demonstrations, standardised: a stand-in for what nobody wrote down."""
        steps = [_steps(d) for d in self._of[task.parameters["label"]]]
        return ((np.concatenate(steps).mean(0) - self._mean) / np.maximum(self._deviation, 1e-6)).astype("f4")

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """`count` recorded demonstrations of each task, in the seed's order."""
        made = []
        for task in tasks:
            shown = self._of[task.parameters["label"]]
            shown = shown if task.split == "train" else shown[: -self._queries]  # training is never judged
            if not 1 <= count <= len(shown):
                raise QuickstudyError(
                    f"Asked for {count} demonstrations of {task.name} ('{task.parameters['label']}'); {len(shown)} may "
                    "be shown."
                )
            made.append([shown[i] for i in task.generator(seed, 0).permutation(len(shown))[:count]])
        return made

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Asks for the actions at the observations of `episodes` demonstrations of each task that are never shown.

        Returns:
            'error', the mean squared error over steps and action components, [task, episode].
        """
        if not tasks or not 1 <= episodes <= self._queries:
            raise QuickstudyError(
                f"Asked for {episodes} episodes of {len(tasks)} tasks of '{self.name}'; each is a recorded "
                f"demonstration, of which {self._queries} a task were kept."
            )
        judged = [
            [
                self._of[task.parameters["label"]][-1 - i]
                for i in task.generator(seed, 1).permutation(self._queries)[:episodes]
            ]
            for task in tasks
        ]
        lengths = np.array([[len(d) for d in some] for some in judged])
        # One that is over waits at its last step, and what is done there is not counted.
        at = np.minimum(np.arange(lengths.max()), lengths[..., None] - 1)
        x, y = (
            np.array([[getattr(d, part)[t] for d, t in zip(*row, strict=True)] for row in zip(judged, at, strict=True)])
            for part in ("observations", "actions")
        )
        errors = np.zeros(lengths.shape)
        for step in range(lengths.max()):
            errors += (step < lengths) * np.square(np.asarray(policy(x[:, :, step])) - y[:, :, step]).mean(-1)
        return {"error": errors / lengths}

    def caption(self, task: Task) -> str:
        return str(task.parameters["label"])

    def _settings(self, demonstrations: int) -> Mapping[str, Changes]:
        """What there is to learn from: so many tasks, and at least so many demonstrations of each."""
        tasks = self.sizes["train"]
        queries = max(1, min(2, demonstrations - 1))
        return {
            "demonstrations": {
                "training": {
                    "steps": 2000, "meta_batch": min(16, tasks), "queries": queries, "validate_every": 500,
                },
                "data": {
                    "tasks": min(400, tasks),
                    "demonstrations": min(10, demonstrations),
                    "validation_tasks": max(1, min(40, self.sizes["validation"])),
                    "validation_episodes": self._queries,
                },
            }
        }  # fmt: skip


def _steps(demonstration: Demonstration) -> np.ndarray:
    """Observations and actions side by side, [step, obs + act]."""
    return np.concatenate([demonstration.observations, demonstration.actions], 1)
