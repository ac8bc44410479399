"""The contract of a method that learns by trial, point by point: what outer loop and evaluation rely on.

Every point acts in environments whose episodes end at different times, so that there is padding.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from quickstudy.check.points import BrokenError, Point, SkippedError, go_through
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.navigation2d import Navigation2D
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
"""Of the trials that are looked at."""
FILLER = 7.0
"""What finished environments say, in place of whatever theirs would say."""


class SmallNavigation(Navigation2D):
    """2D navigation in episodes of twelve steps."""

    horizon = 12


class _Probed(VectorWrapper):
    """Environment i is over after 2 + i % (horizon - 1) steps; terminated and truncated ones take turns.

    Args:
        filler: replaces what environments say whose episode is over, where it is given.
        not_a_number: the first environment of each task gives such a reward in its second step.
        breaks: the last environment of each task fails in its second step.
    """

    def __init__(
        self, env: VectorEnv, filler: float | None = None, not_a_number: bool = False, breaks: bool = False
    ) -> None:
        super().__init__(env)
        self._filler, self._not_a_number, self._breaks = filler, not_a_number, breaks
        self._ends = (2 + np.arange(self.size) % max(1, self.horizon - 1)).reshape(self.shape)
        self._count = 0

    def reset(
        self,
        generators: Sequence[np.random.Generator],
        chosen: np.ndarray | None = None,
        disturbance: float = 0.0,
    ) -> np.ndarray:
        self._count = 0
        return super().reset(generators, chosen, disturbance)

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        self._count += 1
        observations, rewards, terminated, truncated, success, broken = super().step(actions, active)
        ends, even = self._count >= self._ends, np.arange(self.size).reshape(self.shape) % 2 == 0
        if self._filler is not None:
            observations = np.where(active[..., None], observations, self._filler)
            rewards = np.where(active, rewards, self._filler)
        rewards, broken = np.array(rewards, float), np.array(broken)
        if self._not_a_number and self._count == 2:
            rewards[:, 0] = np.nan
        if self._breaks and self._count == 2:
            broken[:, -1] |= active[:, -1]
            self.faults += int(active[:, -1].sum())
        return StepResult(observations, rewards, terminated | (ends & even), truncated | ends, success, broken)


class _ProbedFamily:
    """A family whose environments are `_Probed`; for `TrialSteps`, which needs no more of it."""

    def __init__(self, family: SimulatedFamily, **probing: Any) -> None:
        self._family, self._probing = family, probing

    def draw(self, count: int, rng: torch.Generator) -> list[Task]:
        return self._family.draw(count, rng)

    def vector_env(self, tasks: Sequence[Task], episodes_per_task: int) -> VectorEnv:
        return _Probed(self._family.vector_env(tasks, episodes_per_task), **self._probing)


class _Looked:
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

    def trained(self, steps: int = 2, **probing: Any) -> tuple[TrialLearner, list[Figures], TrialSteps]:
        """A learner after some outer steps, what it logged, and the object that made the steps."""
        learner = self.build()
        family: Any = _ProbedFamily(self.family, **probing)
        loop, rng = TrialSteps(learner, family, self.settings.training), torch.Generator().manual_seed(0)
        return learner, [loop.step(rng, number) for number in range(1, steps + 1)], loop

    @cached_property
    def first(self) -> tuple[TrialLearner, list[Figures], TrialSteps]:
        return self.trained()

    def trial(self, learner: TrialLearner, **probing: Any) -> list[Episodes]:
        tasks = self.family.tasks("validation", TASKS)
        with _Probed(self.family.vector_env(tasks, EPISODES), **probing) as env:
            return learner.trial(env, ROUNDS, torch.Generator().manual_seed(1))

    @cached_property
    def episodes(self) -> list[Episodes]:
        return self.trial(self.first[0])

    def needs_training(self) -> None:
        if self.method.uses == "nothing":
            raise SkippedError("it learns nothing from the training tasks")


def check_trial_method(
    method: Method, family: SimulatedFamily | None = None, settings: Settings | None = None
) -> list[Point]:
    """Goes through all points of the contract.

    Args:
        family: whose tasks it learns; 2D navigation in short episodes by default.
        settings: the method's defaults on the family where not given, with small meta-batches.

    Raises:
        QuickstudyError: the method cannot learn the tasks of the family, or does not learn by trial.
    """
    family = SmallNavigation() if family is None else family
    if reason := method.why_not(family):
        raise QuickstudyError(reason)
    if method.learns_from != "trials":
        raise QuickstudyError(f"Method '{method.name}' learns from {method.learns_from}, not by trial.")
    if settings is None:
        small = {"meta_batch": TASKS, "episodes_per_task": EPISODES, "validation_tasks": TASKS}
        settings = method.defaults(family.name, family).changed({"training": small})
    return go_through(f"checking {method.name} on {family.name}", POINTS, _Looked(method, family, settings))


# ---- the points


def declares(looked: _Looked) -> str:
    method = looked.method
    if not method.name or not method.summary:
        raise BrokenError("Give the method a name and a summary.")
    if not is_dataclass(method.settings):
        raise BrokenError(f"settings must be a dataclass; it is {method.settings!r}.")
    learner = looked.build()
    return f"'{method.name}': {sum(p.numel() for p in learner.parameters() if p.requires_grad)} parameters"


def steps_are_repeated(looked: _Looked) -> str:
    looked.needs_training()
    (one, first, loop), (other, second, again) = looked.first, looked.trained()
    if first != second or not same(one.state_dict(), other.state_dict()) or not same(loop.state(), again.state()):
        raise BrokenError("Two trainings with one seed differ: draw from the generator that outer_step is given alone.")
    return "one seed gives one training"


def steps_learn(looked: _Looked) -> str:
    looked.needs_training()
    learner, figures, _ = looked.first
    if same(looked.build().state_dict(), learner.state_dict()):
        raise BrokenError("outer_step left all parameters as they were: nothing was learned.")
    if "return-0" not in figures[-1]:
        raise BrokenError("outer_step must return 'return-0', the mean return before adaptation: use returns_by_round.")
    bad = [name for name, value in figures[-1].items() if not np.isfinite(value)]
    if bad or not all(p.isfinite().all() for p in learner.parameters()):
        raise BrokenError(f"After two steps {', '.join(bad) or 'a parameter'} is not finite.")
    return f"logs {', '.join(figures[-1])}"


def resumes(looked: _Looked) -> str:
    looked.needs_training()
    whole, _, _ = looked.first
    before, family = looked.build(), looked.family
    probed: Any = _ProbedFamily(family)
    config, rng = looked.settings.training, torch.Generator().manual_seed(0)
    loop = TrialSteps(before, probed, config)
    loop.step(rng, 1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "last", before.state_dict(), {}, loop.state())
        saved = checkpoint.load(Path(folder) / "last")
    after = looked.build()
    checkpoint.load_into(after, saved.tensors, "the checkpoint")
    resumed = TrialSteps(after, probed, config)
    assert saved.training is not None
    resumed.restore(saved.training)
    resumed.step(rng, 2)
    if not same(whole.state_dict(), after.state_dict()):
        raise BrokenError(
            "A training that was resumed differs from one without a break: state() must hold all it needs."
        )
    return "a break changes nothing"


def trial_is_complete(looked: _Looked) -> str:
    family, episodes = looked.family, looked.episodes
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


def trial_is_pure(looked: _Looked) -> str:
    learner = looked.first[0]
    theta, state = _copied(learner.state_dict()), _copied(learner.state())
    again = looked.trial(learner)
    if not same(theta, learner.state_dict()) or not same(state, learner.state()):
        raise BrokenError("trial changed the learner: adapt copies of the parameters.")
    if not same(again, looked.episodes):
        raise BrokenError("Two trials with one seed differ: draw from the generator that trial is given alone.")
    return "a trial leaves the learner as it is, and one seed gives one trial"


def ignores_what_follows_an_end(looked: _Looked) -> str:
    learner, figures, _ = looked.first
    other, with_filler, _ = looked.trained(filler=FILLER)
    if figures != with_filler or not same(learner.state_dict(), other.state_dict()):
        raise BrokenError("outer_step reads what environments say after their episode is over: use the mask.")
    if not same(looked.episodes, looked.trial(learner, filler=FILLER)):
        raise BrokenError("trial reads what environments say after their episode is over: use the mask.")
    return "what comes after an episode's end changes nothing"


def survives_faults(looked: _Looked) -> str:
    if looked.family.horizon < 2:
        raise SkippedError("an episode has one step, after which nothing can fail")
    with _quiet():
        return _survives_faults(looked)


def _survives_faults(looked: _Looked) -> str:
    faults = {"not_a_number": True, "breaks": True}
    learner = looked.build()
    if looked.method.uses != "nothing":
        learner, figures, loop = looked.trained(**faults)
        if not all(p.isfinite().all() for p in learner.parameters()):
            raise BrokenError("A reward that is no number made a parameter one: leave broken steps out by the mask.")
        least = 2 * 2 * looked.settings.training.meta_batch
        if loop.faults < least or figures[-1]["faults"] != loop.faults:
            raise BrokenError(f"Of at least {least} failures {loop.faults} were counted.")
    episodes = looked.trial(learner, **faults)
    if not all(bool(one.broken[:, 0].all() and one.broken[:, -1].all()) for one in episodes):
        raise BrokenError("Episodes that were cut short must be marked as broken.")
    return "environments that fail and rewards that are no numbers are counted"


POINTS: dict[str, Callable[[_Looked], str]] = {
    "says what it is": declares,
    "an outer step is repeated by its seed": steps_are_repeated,
    "an outer step learns": steps_learn,
    "training resumes exactly": resumes,
    "a trial is complete": trial_is_complete,
    "a trial changes nothing": trial_is_pure,
    "padding changes nothing": ignores_what_follows_an_end,
    "faults are survived": survives_faults,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Faults that are made on purpose are not reported."""
    console.quiet, before = True, console.quiet
    try:
        yield
    finally:
        console.quiet = before


def same(one: Any, other: Any) -> bool:
    """Whether two trees hold the same numbers, bit for bit."""
    first, second = tree_leaves(one), tree_leaves(other)
    return len(first) == len(second) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(first, second, strict=True)
    )


def _copied(tree: Any) -> Any:
    return [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in tree_leaves(tree)]
