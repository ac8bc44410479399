"""Tasks and the families that they come from.

A `Task` is plain data: one thing to learn. A `TaskFamily` is a distribution over tasks, cut into splits that share no
task, and knows how to demonstrate a task and how to run a policy on it. Everything here is NumPy: the learners are
the first to see a tensor.
"""

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.settings import Changes

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations [task, episode, obs] of one step to actions [task, episode, act]; called once a step, in order.

A policy may keep state from call to call: every `TaskFamily.run` gets a fresh one.
"""


class ObservationLayout(NamedTuple):
    """Which numbers of an observation are the position of the hand, of the object and of the goal, in metres.

    Attributes:
        gripper: numbers that say how far it is open.
    """

    hand: slice
    object: slice
    goal: slice
    gripper: slice


class Symmetry(NamedTuple):
    """What turns a trial of a family into another one, such as a mirror: rewards stay, observations and actions change.

    Attributes:
        observation: matrix [obs, obs] from an observation to that of the other trial.
        action: matrix [act, act], likewise.
    """

    observation: np.ndarray
    action: np.ndarray


@dataclass(frozen=True)
class Task:
    """One thing to learn, as plain data that JSON can hold.

    Attributes:
        family: name of the family that it was drawn from.
        split: the split of the family that it belongs to.
        index: its place in the split; (family, split, index) is its name in every version.
        parameters: what makes this task different from its siblings.
    """

    family: str
    split: str
    index: int
    parameters: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        return f"{self.family}/{self.split}/{self.index}"

    def generator(self, *purpose: int) -> np.random.Generator:
        """A random generator that belongs to this task alone; `purpose` tells its uses (an episode, a seed) apart."""
        return np.random.default_rng([zlib.crc32(self.name.encode()), *purpose])


class TaskFamily(ABC):
    """A distribution over tasks with disjoint splits.

    A family is written for lists of tasks, because simulation is fastest with many worlds at once; a family without a
    fast way may well loop. The class attributes say what a learner must know before it sees a task. A family that is
    simulated says how by one vector environment, see `quickstudy.families.base.SimulatedFamily`.
    """

    name: str
    seed_name: str = ""
    """Where it is given, `Task.family` of its tasks, which seeds them: families that share their tasks share it."""
    sizes: Mapping[str, int]
    """The splits and how many tasks each holds; 'train', 'validation', then one or more test splits."""
    protocol: str
    """What is hidden, what varies and what counts as success; part of a sentence, for tables."""
    metric: str
    """The key of `run`'s result that a comparison ranks by, such as 'success'."""
    secondary_metrics: tuple[str, ...] = ()
    """Other keys of it whose means a table shows beside."""
    higher_is_better: ClassVar[bool] = True
    labelled: ClassVar[bool] = False
    """Recognition: an action is a one-hot label, and what a policy gives are logits."""
    image: tuple[int, int] | None = None
    """Height and width, where an observation is a grey image, flattened."""
    scales_actions: bool = False
    """Whether learners from demonstrations see its numbers scaled to deviation 1 by those of training, because nobody
    knows their units; if not, observations alone are standardised."""
    observation_channels: tuple[str, ...] = ()
    """Their names, in order; empty where nobody named them."""
    action_channels: tuple[str, ...] = ()
    observation_units: tuple[str, ...] = ()
    """Of each channel, such as 'rad', 'deg' or 'm', '' where nobody said; empty where nobody said of any."""
    action_units: tuple[str, ...] = ()
    observation_layout: ObservationLayout | None = None
    """Where hand, object and goal are observed; an action's first three numbers then move the hand. For one floor only:
    learners do not see it."""
    observation_size: int
    action_size: int
    rest: tuple[float | None, ...] | None = None
    """The action that keeps the robot where it is, None for a number that keeps its last value; None if nobody said."""
    hidden_size: int
    """Width of `hidden`, what an oracle sees of a task."""
    horizon: int
    """The most steps that an episode, and so a demonstration, can have."""
    rate: float | None = None
    """Steps a second; None where a step has no duration, or nobody said which."""
    most_shown: int | None = None
    """How many demonstrations of a held-out task can be shown; None where there are always more."""
    most_episodes: int | None = None
    """How many episodes of a task can be run; None where there are always more."""
    has_expert: bool = True
    """Whether somebody who knows what is hidden can demonstrate its tasks, or say during a trial what to do."""
    default_method: str = "maml"
    """What a training takes where nobody names a method."""
    method_settings: Mapping[str, Changes] = {}
    """What differs here from the general settings: by 'demonstrations' or 'trials' for all methods that learn from
    them, and by the name of a method."""
    shots: tuple[int, ...] = (0, 1)
    """Numbers of demonstrations, or of own trials, that an evaluation adapts from where nobody says otherwise."""
    observation_unit: float | Sequence[float] = 1.0
    """What policies that learn by trial divide observations by, one number for all or one for each."""
    episodes_per_task: int = 20
    """Episodes of a task between two adaptations by trial, in an evaluation where nobody says otherwise."""
    holds_out_tasks: bool = True
    """Whether the test splits have tasks that training does not; if not, no table says 'held-out tasks'."""
    fixed_start: bool = False
    """Whether all episodes of a task start alike; if not, the start of each is drawn anew."""
    symmetries: Sequence[Symmetry] = ()
    """Of its trials; some of them one after the other are one as well."""

    @property
    def learned_from(self) -> tuple[str, ...]:
        """What its tasks can be learned from: 'demonstrations', 'trials', or both."""
        return ("demonstrations",)

    @property
    def test_splits(self) -> list[str]:
        return [split for split in self.sizes if split not in ("train", "validation")]

    def tasks(self, split: str, count: int, first: int = 0) -> list[Task]:
        """Tasks `first` to `first + count` of a split; the same call always gives the same tasks.

        Raises:
            QuickstudyError: the split is unknown or empty, or holds fewer tasks.
        """
        if split not in self.sizes:
            raise unknown(f"split of '{self.name}'", split, self.sizes)
        size = self.sizes[split]
        if size == 0:
            raise QuickstudyError(f"Split '{split}' of '{self.name}' is empty: there is no task to draw from it.")
        if count < 1 or first < 0 or first + count > size:
            raise QuickstudyError(
                f"Asked for tasks {first} to {first + count} of split '{split}' of '{self.name}', which holds {size}."
            )
        return [self.task(split, index) for index in range(first, first + count)]

    def task(self, split: str, index: int) -> Task:
        name = self.seed_name or self.name
        seed = [zlib.crc32(f"{name}/{split}".encode()), index]
        return Task(name, split, index, self.sample(split, np.random.default_rng(seed)))

    @abstractmethod
    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        """The parameters of a task drawn from a split, as plain numbers, strings and lists of them."""

    @abstractmethod
    def hidden(self, task: Task) -> np.ndarray:
        """What a demonstration reveals and an observation does not, [hidden_size]; only the oracle sees it."""

    @abstractmethod
    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """`count` demonstrations of each task by its expert, every one from a newly drawn start."""

    @abstractmethod
    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Runs exactly `episodes` whole episodes of every task.

        Returns:
            metrics, each [task, episode]; `metric` is one of them. Every episode counts, however it ended.
        """

    def actions(self, policy: Policy, observations: np.ndarray, tasks: Sequence[Task], episodes: int) -> np.ndarray:
        """What a policy does in all worlds, [task x episode, act], for `run` of a family that simulates them together.

        Args:
            observations: [task x episode, obs].

        Raises:
            QuickstudyError: actions of another shape, or that are not finite.
        """
        wanted = (len(tasks), episodes, self.action_size)
        given = np.asarray(policy(observations.reshape(len(tasks), episodes, -1)))
        if given.shape != wanted:
            raise QuickstudyError(f"A policy of '{self.name}' returns actions {wanted}; got {given.shape}.")
        if not np.isfinite(given).all():
            bad = tasks[int(np.argwhere(~np.isfinite(given))[0, 0])]
            raise QuickstudyError(f"The policy's actions for task {bad.name} are not finite.")
        return given.reshape(-1, self.action_size)

    def task_key(self, task: Task) -> str:
        """What is distinct about a task: intervals count tasks with one key as one, however often it is drawn.

        By default all its parameters. A family whose parameters hold what is drawn anew for the same task says here
        what is left without it.
        """
        return json.dumps(task.parameters, sort_keys=True, default=str)

    def caption(self, task: Task) -> str:
        """A task in a few words, for people."""
        return f"task {task.index}"

    def snapshot(self, task: Task) -> np.ndarray:
        """A small picture of a task, uint8 [height, width, 3], for a contact sheet.

        Raises:
            QuickstudyError: the family draws no pictures, or nothing on this machine can draw them.
        """
        raise QuickstudyError(f"Family '{self.name}' draws no pictures of its tasks.")

    def film(self, task: Task, policy: Policy, seed: int) -> np.ndarray:
        """One episode of a task, uint8 [frame, height, width, 3], 20 frames a second.

        Raises:
            QuickstudyError: the family makes no films, or nothing on this machine can draw them.
        """
        raise QuickstudyError(f"Family '{self.name}' makes no films of its tasks.")

    def make(self, task: Task) -> gymnasium.Env:
        """A Gymnasium environment of one task.

        Raises:
            QuickstudyError: the family has no environment (it is a regression, say).
        """
        raise QuickstudyError(f"Family '{self.name}' has no environment: its tasks are data only.")


def check_run(tasks: Sequence[Task], episodes: int) -> None:
    """Raises QuickstudyError unless there is something to run."""
    if not tasks or episodes < 1:
        raise QuickstudyError(f"Running needs tasks and episodes; got {len(tasks)} tasks, {episodes} episodes.")


def check_count(count: int) -> None:
    """Raises QuickstudyError unless a demonstration is asked for."""
    if count < 1:
        raise QuickstudyError(f"Asked for {count} demonstrations of each task; at least one is needed.")
