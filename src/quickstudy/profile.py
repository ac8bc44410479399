"""Where the time of meta-training goes.

From demonstrations: to drawing meta-batches, or to the outer step. By trial: to simulation, to the policy, or to the
update. No method needs to take part. A vector environment is called in a fixed order, so its clock sees everything: the
time between an answer and the next step is the policy's, the time between an answer and the next episode is the
update's.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from quickstudy.data import Batch, Source, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.wrapper import VectorWrapper
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.train import DemonstrationSteps


@dataclass(frozen=True)
class Profile:
    """One outer step.

    Attributes:
        seconds: by part. 'drawing' and 'outer step'; or 'simulation', that is making environments, resets and steps,
            'policy', choosing actions and keeping what was seen, and 'update', all the rest.
        steps: environment steps, or demonstrated steps that were gone through.
    """

    seconds: dict[str, float]
    steps: int

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.total


class _Clock:
    """Counts seconds by part, and steps."""

    def __init__(self, *parts: str) -> None:
        self.seconds, self.steps, self._since = dict.fromkeys(parts, 0.0), 0, time.perf_counter()

    def passed(self, part: str, steps: int = 0) -> None:
        """Counts the time since the last call as this part's."""
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now
        self.steps += steps

    def stop(self, part: str) -> Profile:
        self.passed(part)
        return Profile(self.seconds, self.steps)


class _TimedSource:
    """The same source with a clock."""

    def __init__(self, source: Source) -> None:
        self._source, self.clock = source, _Clock()

    @property
    def batch(self) -> Batch | None:
        return self._source.batch

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        self.clock.passed("outer step")
        drawn = self._source.sample(rng, tasks, shots, queries)
        self.clock.passed("drawing", int(drawn.support.mask.sum() + drawn.query.mask.sum()))
        return drawn

    def names(self) -> list[str]:
        return self._source.names()


class _TimedEnv(VectorWrapper):
    """The same environments with a clock that runs from the moment before they are made."""

    def __init__(self, make: Callable[[], VectorEnv]) -> None:
        self.clock = _Clock("simulation", "policy", "update")
        super().__init__(make())
        self.clock.passed("simulation")

    def reset(self, *args: Any, **kwargs: Any) -> np.ndarray:
        self.clock.passed("update")
        observations = super().reset(*args, **kwargs)
        self.clock.passed("simulation")
        return observations

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        self.clock.passed("policy")
        result = super().step(actions, active)
        self.clock.passed("simulation", int(active.sum()))
        return result


def profile(experiment: Experiment, steps: int) -> list[Profile]:
    """Profiles of `steps` outer steps, after one more that is not counted.

    Raises:
        QuickstudyError: no step, or a method that is not trained.
    """
    if steps < 1:
        raise QuickstudyError(f"A profile needs at least one outer step; got {steps}.")
    if experiment.method.uses != "all":
        raise QuickstudyError(
            f"Method '{experiment.method.name}' learns nothing from the training tasks: there is no step to profile."
        )
    profiles = _by_trial(experiment) if experiment.by_trial else _from_demonstrations(experiment)
    return list(islice(profiles, 1, steps + 1))


def _from_demonstrations(experiment: Experiment) -> Iterator[Profile]:
    learner, source = experiment.build(), experiment.source()
    assert source is not None
    if source.batch is not None:
        learner.standardise(source.batch)
    timed, rng = _TimedSource(source), torch.Generator().manual_seed(experiment.settings.seed)
    outer = DemonstrationSteps(learner, timed, experiment.settings.training)
    for number in count(1):
        timed.clock = _Clock("drawing", "outer step")
        outer.step(rng, number)
        yield timed.clock.stop("outer step")


def _by_trial(experiment: Experiment) -> Iterator[Profile]:
    family, training = experiment.simulated, experiment.settings.training
    learner, rng = experiment.build(), torch.Generator().manual_seed(experiment.settings.seed)
    while True:
        tasks = family.draw(training.meta_batch, rng)
        made, env = profile_step(learner, partial(family.vector_env, tasks, training.episodes_per_task), rng)
        env.close()
        yield made


def profile_step(
    learner: TrialLearner, make: Callable[[], VectorEnv], rng: torch.Generator
) -> tuple[Profile, VectorEnv]:
    """Times one outer step by trial, with making its environments; also returns these, still open."""
    env = _TimedEnv(make)
    with suppress(FloatingPointError):  # nothing was learned, but the time was spent
        learner.outer_step(env, rng)
    return env.clock.stop("update"), env


def table(experiment: Experiment, found: Sequence[Profile]) -> Group:
    """The mean of some outer steps as a table for a terminal, between two lines that say what was measured."""
    training: Any = experiment.settings.training
    each = "episodes" if experiment.by_trial else "demonstrations"
    count = training.episodes_per_task if experiment.by_trial else training.shots + training.queries
    steps, total = sum(p.steps for p in found), sum(p.total for p in found)
    made = Table("", Column("s an outer step", justify="right"), Column("%", justify="right"))
    for part in found[0].seconds:
        seconds = sum(p.seconds[part] for p in found)
        made.add_row(part, f"{seconds / len(found):.3g}", f"{100 * seconds / total:.0f}")
    return Group(
        Text(f"{experiment.method.name} on {experiment.family.name}: {steps / total:,.0f} steps per second"),
        made,
        Text(
            f"{training.meta_batch} tasks x {count} {each}, mean of {len(found)} outer steps, torch threads: "
            f"{torch.get_num_threads()}; {experiment.family.protocol}."
        ),
    )
