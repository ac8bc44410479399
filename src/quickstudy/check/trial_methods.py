"""The contract of a method that learns by trial, point by point: what outer loop and evaluation rely on.

Every point acts in environments whose episodes end at different times, so that there is padding.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from quickstudy.check.methods import says_what_it_is
from quickstudy.check.points import BrokenError, Point, SkippedError, go_through
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.io import checkpoint
from quickstudy.io.progress import console
from quickstudy.method import Method
from quickstudy.methods.trials.learner import Figures, TrialLearner
from quickstudy.methods.trials.outer_loop import TrialSteps
from quickstudy.methods.trials.rollout import Episodes
from quickstudy.methods.trials.wrapper import VectorWrapper
from quickstudy.settings import Settings
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task

TASKS, EPISODES, ROUNDS = 3, 4, 2
"""Of the trials that the points look at."""
FILLER = 7.0
"""What finished environments say, in place of whatever theirs would say."""


class _Probed(VectorWrapper):
    """Environment i is over after 2 + i % (horizon - 1) steps; terminated and truncated ones take turns.

    Args:
        filler: replaces what environments say whose episode is over, where it is given.
        faults: in the second step the reward of each task's first environment is no number, and the last one fails.
    """

    def __init__(self, env: VectorEnv, filler: float | None = None, faults: bool = False) -> None:
        super().__init__(env)
        self._filler, self._faults, self._count = filler, faults, 0
        self._ends = (2 + np.arange(self.size) % max(1, self.horizon - 1)).reshape(self.shape)

    def reset(self, *args: Any, **kwargs: Any) -> np.ndarray:
        self._count = 0
        return super().reset(*args, **kwargs)

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        self._count += 1
        observations, rewards, terminated, truncated, success, broken = super().step(actions, active)
        ends, even = self._count >= self._ends, np.arange(self.size).reshape(self.shape) % 2 == 0
        if self._filler is not None:
            observations = np.where(active[..., None], observations, self._filler)
            rewards = np.where(active, rewards, self._filler)
        rewards, broken = np.array(rewards, float), np.array(broken)
        if self._faults and self._count == 2:
            rewards[:, 0] = np.nan
            broken[:, -1] |= active[:, -1]
            self.faults += int(active[:, -1].sum())
        return StepResult(observations, rewards, terminated | (ends & even), truncated | ends, success, broken)


class _Training(NamedTuple):
    """Some outer steps of a learner, what each logged, and the generator that they drew from."""

    learner: TrialLearner
    steps: TrialSteps
    figures: list[Figures]
    rng: torch.Generator


class _Subject:
    """A method on a family, and what several points look at, made once."""

    def __init__(self, method: Method, family: SimulatedFamily, settings: Settings) -> None:
        self.method, self.family, self.settings = method, family, settings

    def build(self) -> TrialLearner:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            learner = self.method.build(self.settings, self.family)
        if not isinstance(learner, TrialLearner):
            raise BrokenError(f"build must give a TrialLearner; it gave {type(learner).__name__}.")
        return learner

    def env(self, tasks: Sequence[Task], episodes: int, **probing: Any) -> VectorEnv:
        return _Probed(self.family.vector_env(tasks, episodes), **probing)

    def steps(self, learner: TrialLearner, **probing: Any) -> TrialSteps:
        """Those of the outer loop, in environments that are `_Probed`."""
        family: Any = SimpleNamespace(draw=self.family.draw, vector_env=partial(self.env, **probing))
        return TrialSteps(learner, family, self.settings.training)

    def train(self, count: int = 2, **probing: Any) -> _Training:
        """`count` outer steps of a new learner."""
        learner, rng = self.build(), torch.Generator().manual_seed(0)
        steps = self.steps(learner, **probing)
        return _Training(learner, steps, [steps.step(rng, number) for number in range(1, count + 1)], rng)

    def trial(self, learner: TrialLearner, **probing: Any) -> list[Episodes]:
        with self.env(self.family.tasks("validation", TASKS), EPISODES, **probing) as env:
            return learner.trial(env, ROUNDS, torch.Generator().manual_seed(1))

    @cached_property
    def trained(self) -> _Training:
        return self.train()

    @cached_property
    def episodes(self) -> list[Episodes]:
        return self.trial(self.trained.learner)

    def needs_training(self) -> None:
        if self.method.uses == "nothing":
            raise SkippedError("it learns nothing from the training tasks")


def check_trial_method(method: Method, family: SimulatedFamily, settings: Settings | None = None) -> list[Point]:
    """Goes through all points of the contract.

    Args:
        settings: the method's defaults on the family where not given, with small meta-batches.

    Raises:
        QuickstudyError: the method cannot learn the tasks of the family, or does not learn by trial.
    """
    if reason := method.why_not(family):
        raise QuickstudyError(reason)
    if method.learns_from != "trials":
        raise QuickstudyError(f"Method '{method.name}' learns from {method.learns_from}, not by trial.")
    if settings is None:
        small = {"meta_batch": TASKS, "episodes_per_task": EPISODES, "validation_tasks": TASKS}
        settings = method.defaults(family.name, family).changed({"training": small})
    return go_through(f"checking {method.name} on {family.name}", POINTS, _Subject(method, family, settings))


# ---- the points


def steps_are_repeated(subject: _Subject) -> str:
    subject.needs_training()
    one, other = subject.trained, subject.train()
    if one.figures != other.figures or not same(_state(one.learner), _state(other.learner)):
        raise BrokenError("Two trainings with one seed differ: draw from the generator that outer_step is given alone.")
    return "one seed gives one training"


def steps_learn(subject: _Subject) -> str:
    subject.needs_training()
    learner, figures = subject.trained.learner, subject.trained.figures[-1]
    if same(subject.build().state_dict(), learner.state_dict()):
        raise BrokenError("outer_step left all parameters as they were: nothing was learned.")
    if "return-0" not in figures:
        raise BrokenError("outer_step must return 'return-0', the mean return before adaptation: use returns_by_round.")
    bad = [name for name, value in figures.items() if not np.isfinite(value)]
    if bad or not _finite(learner):
        raise BrokenError(f"After two steps {', '.join(bad) or 'a parameter'} is not finite.")
    return f"logs {', '.join(figures)}"


def resumes(subject: _Subject) -> str:
    subject.needs_training()
    begun, resumed = subject.train(1), subject.build()
    with TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "last", begun.learner.state_dict(), {}, begun.steps.state())
        saved = checkpoint.load(Path(folder) / "last")
    checkpoint.load_into(resumed, saved.tensors, "the checkpoint")
    steps = subject.steps(resumed)
    assert saved.training is not None
    steps.restore(saved.training)
    steps.step(begun.rng, 2)
    if not same(subject.trained.learner.state_dict(), resumed.state_dict()):
        raise BrokenError(
            "A training that was resumed differs from one without a break: state() must hold all it needs."
        )
    return "a break changes nothing"


def trial_is_complete(subject: _Subject) -> str:
    family, episodes = subject.family, subject.episodes
    if len(episodes) != ROUNDS + 1:
        raise BrokenError(f"trial with {ROUNDS} rounds must return {ROUNDS + 1} Episodes; it returned {len(episodes)}.")
    for one in episodes:
        steps = one.mask.shape[-1]
        if one.mask.shape[:2] != (TASKS, EPISODES) or not steps <= family.horizon:
            raise BrokenError(f"mask must be [task, episode, step], {(TASKS, EPISODES)} of them; got {one.mask.shape}.")
        if one.actions.shape != (TASKS, EPISODES, steps, family.action_size):
            raise BrokenError(f"actions must be [task, episode, step, act]; got {tuple(one.actions.shape)}.")
        if not all(bool(t.isfinite().all()) for t in (one.actions, one.rewards, one.mean, one.log_std)):
            raise BrokenError("An action or what it was drawn from is not finite.")
        if bool((one.mask[..., 1:] > one.mask[..., :-1]).any()):
            raise BrokenError("Padding must come last: mask rises again within an episode.")
    return f"{ROUNDS + 1} rounds of {TASKS} tasks x {EPISODES} episodes"


def trial_is_pure(subject: _Subject) -> str:
    before = copy.deepcopy(_state(subject.trained.learner))
    again = subject.trial(subject.trained.learner)
    if not same(before, _state(subject.trained.learner)):
        raise BrokenError("trial changed the learner: adapt copies of the parameters.")
    if not same(again, subject.episodes):
        raise BrokenError("Two trials with one seed differ: draw from the generator that trial is given alone.")
    return "a trial leaves the learner as it is, and one seed gives one trial"


def ignores_what_follows_an_end(subject: _Subject) -> str:
    plain, filled = subject.trained, subject.train(filler=FILLER)
    if plain.figures != filled.figures or not same(plain.learner.state_dict(), filled.learner.state_dict()):
        raise BrokenError("outer_step reads what environments say after their episode is over: use the mask.")
    if not same(subject.episodes, subject.trial(plain.learner, filler=FILLER)):
        raise BrokenError("trial reads what environments say after their episode is over: use the mask.")
    return "what comes after an episode's end changes nothing"


def survives_faults(subject: _Subject) -> str:
    if subject.family.horizon < 2:
        raise SkippedError("an episode has one step, after which nothing can fail")
    with console.capture():  # what is reported of them is meant
        learner, steps, figures, _ = subject.train(faults=True)
    if not _finite(learner):
        raise BrokenError("A reward that is no number made a parameter one: leave broken steps out by the mask.")
    least = 0 if subject.method.uses == "nothing" else 2 * 2 * subject.settings.training.meta_batch
    if steps.faults < least or figures[-1]["faults"] != steps.faults:
        raise BrokenError(f"Of at least {least} failures {steps.faults} were counted.")
    with console.capture():
        episodes = subject.trial(learner, faults=True)
    if not all(bool(one.broken[:, 0].all() and one.broken[:, -1].all()) for one in episodes):
        raise BrokenError("Episodes that were cut short must be marked as broken.")
    return "environments that fail and rewards that are no numbers are counted"


POINTS: dict[str, Callable[[Any], str]] = {
    "says what it is": says_what_it_is,
    "an outer step is repeated by its seed": steps_are_repeated,
    "an outer step learns": steps_learn,
    "training resumes exactly": resumes,
    "a trial is complete": trial_is_complete,
    "a trial changes nothing": trial_is_pure,
    "padding changes nothing": ignores_what_follows_an_end,
    "faults are survived": survives_faults,
}


def same(one: Any, other: Any) -> bool:
    """Whether two trees hold the same numbers, bit for bit."""
    first, second = tree_leaves(one), tree_leaves(other)
    return len(first) == len(second) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(first, second, strict=True)
    )


def _state(learner: TrialLearner) -> Any:
    """All that training changes."""
    return learner.state_dict(), learner.state()


def _finite(learner: TrialLearner) -> bool:
    return all(bool(p.isfinite().all()) for p in learner.parameters())
