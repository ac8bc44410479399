"""A family of a user's own demonstrations: its tasks are the labels that they come with, and nothing is simulated.

A learner is judged by how well it imitates demonstrations that it was not shown, step by step at the observations that
were recorded. That says whether it has understood which task it is, not yet whether it succeeds on the robot.
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from quickstudy.datasets import angles
from quickstudy.datasets.episodes import About, numbered
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, listed, unknown
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


def spelling(label: str) -> str:
    """What two labels share that differ by blanks, Unicode form, case or a full stop alone."""
    shown = "".join(sign for sign in unicodedata.normalize("NFKC", label) if unicodedata.category(sign) != "Cf")
    return " ".join(shown.casefold().split()).rstrip(".。 ") or label


def one_spelling(labels: Sequence[str]) -> dict[str, str]:
    """For each label, that spelling of it that most have; of two as frequent, the first."""
    same: dict[str, Counter[str]] = defaultdict(Counter)
    for label in labels:
        same[spelling(label)][label] += 1
    return {label: some.most_common(1)[0][0] for some in same.values() for label in some}


def split_labels(
    labels: Sequence[str], splits: Sequence[float] | Mapping[str, Sequence[str | int]], seed: int
) -> dict[str, list[str]]:
    """Which labels belong to which split; where splits are named, another spelling of a label will do.

    Raises:
        QuickstudyError: shares or names that are not such, or too few labels.
    """
    if isinstance(splits, Mapping):
        known = {spelling(label): label for label in labels}
        chosen: dict[str, list[str]] = {}
        for split, some in splits.items():
            for label in map(str, some):
                if spelling(label) not in known:
                    raise unknown(f"task in split '{split}'", label, labels)
            chosen[split] = list(dict.fromkeys(known[spelling(str(label))] for label in some))
        for label in labels:
            where = [split for split, some in chosen.items() if label in some]
            if len(where) > 1:
                raise QuickstudyError(f"Task '{label}' is in the splits {' and '.join(where)}; they may not share one.")
        needed = ""
    else:
        parts = split_by_shares(len(labels), splits, seed)
        chosen = {split: [labels[i] for i in part] for split, part in parts.items()}
        least = 3 if splits[1] > 0 else 2
        needed = (
            f" Learning to learn needs at least {least} tasks, one for each split, and better dozens; this is "
            f"{listed([repr(label) for label in labels])}."
        )
    tests = [split for split in chosen if split not in ("train", "validation")]
    if not {"train", "validation"} <= chosen.keys() or not tests:
        raise QuickstudyError(f"A family needs 'train', 'validation' and a test split; got {', '.join(chosen)}.")
    empty = [split for split in ("train", *tests) if not chosen[split]]
    if empty:
        tasks = f"Of {len(labels)} tasks" if len(labels) != 1 else "Of one task"
        raise QuickstudyError(f"{tasks} the split '{empty[0]}' gets none.{needed}")
    return chosen


def check_copies(of: Mapping[str, Iterable[Demonstration]], splits: Mapping[str, Sequence[str]]) -> str:
    """Looks for demonstrations of several steps that stand under two labels.

    Returns:
        a sentence about labels of one split that share some; empty where none do.

    Raises:
        QuickstudyError: labels of two splits do: one task would be trained and tested.
    """
    split_of = {label: split for split, some in splits.items() for label in some}
    owners: dict[bytes, dict[str, None]] = defaultdict(dict)
    for label in split_of:
        for one in of[label]:
            if len(one) > 1:
                owners[hashlib.blake2b(_steps(one).tobytes(), digest_size=16).digest()][label] = None
    shared = Counter(tuple(some) for some in owners.values() if len(some) > 1)
    if not shared:
        return ""
    found = max(shared, key=lambda some: (len({split_of[label] for label in some}), shared[some]))
    names = " and ".join(f"'{label}'" for label in found[:3]) + (" and more" if len(found) > 3 else "")
    count = f"{shared[found]} demonstrations stand" if shared[found] > 1 else "One demonstration stands"
    said = f"{count} alike under the labels {names}"
    parts = sorted({split_of[label] for label in found})
    if len(parts) > 1:
        raise QuickstudyError(
            f"{said}, which are in the splits {' and '.join(parts)}: no two splits may share a task; give "
            "them one label, or name the splits so that they are in one."
        )
    return f"{said}; are these one task?"


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
        about: About | None = None,
    ) -> None:
        """
        Args:
            splits: for each split the tasks by label, and the demonstrations of each.
            queries: demonstrations of each task that are kept to judge by and never shown.
            rate: their steps a second, if known.
            about: names and units of their channels, if known.

        Raises:
            QuickstudyError: widths that differ, from each other or from the names, or a task with too few
                demonstrations.
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
        self._describe(about or About())
        self.hidden_size = self.observation_size + self.action_size
        self.horizon = max(len(d) for d in every)
        self.sizes = {split: len(tasks) for split, tasks in splits.items()}
        held_out = [len(some) for split, tasks in splits.items() if split != "train" for some in tasks.values()]
        self.most_shown = min(held_out) - queries
        self.method_settings = self._settings(min(map(len, splits["train"].values())))
        rng = np.random.default_rng(seed)
        self._labels = {split: list(tasks) for split, tasks in splits.items()}
        self._of = {
            label: [some[i] for i in rng.permutation(len(some))]
            for tasks in splits.values()
            for label, some in tasks.items()
        }
        self._wraps = (
            angles.find([d.observations for d in every], self.observation_channels, self.observation_units),
            angles.find([d.actions for d in every], self.action_channels, self.action_units),
        )
        self._reference = [
            wraps.continuous(values).mean(0)
            for wraps, values in zip(self._wraps, (every[0].observations, every[0].actions), strict=True)
        ]
        # One demonstration at a time: all steps once more would double the memory that a large data set takes.
        total = sum(map(len, every))
        self._mean = sum((self._continuous(d).sum(0, dtype=float) for d in every), np.zeros(self.hidden_size)) / total
        squares = (np.square(self._continuous(d) - self._mean).sum(0) for d in every)
        self._deviation = np.sqrt(sum(squares, np.zeros(self.hidden_size)) / total)

    def _describe(self, about: About) -> None:
        named = about.named(self.observation_size, self.action_size)
        for kind, names, units, width in (
            ("observation", named.observations, about.observation_units, self.observation_size),
            ("action", named.actions, about.action_units, self.action_size),
        ):
            if units and len(units) != width:
                raise QuickstudyError(f"There are {len(units)} units for {width} channels of {kind}s.")
            setattr(self, f"{kind}_channels", () if names == numbered(kind, width) else names)
            setattr(self, f"{kind}_units", units)

    def _continuous(self, demonstration: Demonstration) -> np.ndarray:
        """Observations and actions side by side, [step, obs + act]; angles and quaternions fit to be averaged."""
        if not any(self._wraps):
            return _steps(demonstration)
        parts = (demonstration.observations, demonstration.actions)
        return np.concatenate(
            [
                wraps.near(values, reference)
                for wraps, values, reference in zip(self._wraps, parts, self._reference, strict=True)
            ],
            1,
        )

    def task(self, split: str, index: int) -> Task:
        return Task(self.name, split, index, {"label": self._labels[split][index]})

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"label": self._labels[split][int(rng.integers(len(self._labels[split])))]}

    def hidden(self, task: Task) -> np.ndarray:
        """The mean step of all demonstrations, standardised: a stand-in for what nobody wrote down."""
        steps = [self._continuous(d) for d in self._of[task.parameters["label"]]]
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
            'error', the mean squared error over steps and action components, angles the short way round, [task,
            episode].
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
            off = self._wraps[1].difference(np.asarray(policy(x[:, :, step])), y[:, :, step])
            errors += (step < lengths) * np.square(off).mean(-1)
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
