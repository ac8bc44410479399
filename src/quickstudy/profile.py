"""Where the time of meta-training goes.

From demonstrations: drawing meta-batches, and the outer step. By trial: simulation, policy and update, see
`quickstudy.methods.trials.profile`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from quickstudy.data import Batch, Source, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.train import DemonstrationSteps


@dataclass(frozen=True)
class Profile:
    """One outer step.

    Attributes:
        seconds: by part.
        steps: environment steps, or demonstrated steps that were gone through.
    """

    seconds: dict[str, float]
    steps: int


class _Timed:
    """A source with a clock."""

    def __init__(self, source: Source) -> None:
        self._source, self.seconds, self.steps = source, 0.0, 0

    @property
    def batch(self) -> Batch | None:
        return self._source.batch

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        started = time.perf_counter()
        drawn = self._source.sample(rng, tasks, shots, queries)
        self.seconds += time.perf_counter() - started
        self.steps += int(drawn.support.mask.sum() + drawn.query.mask.sum())
        return drawn

    def names(self) -> list[str]:
        return self._source.names()


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
    settings, learner = experiment.settings, experiment.build()
    if experiment.by_trial:
        from quickstudy.methods.trials.profile import profile as profile_trials

        found = profile_trials(learner, experiment.simulated, settings.training, steps, settings.seed)
        parts = ("simulation", "policy", "update")
        return [Profile({part: getattr(one, part) for part in parts}, one.steps) for one in found]
    source = experiment.source()
    assert source is not None
    if source.batch is not None:
        learner.standardise(source.batch)
    timed = _Timed(source)
    outer, rng, profiles = DemonstrationSteps(learner, timed, settings.training), _generator(settings.seed), []
    for number in range(1, steps + 2):
        timed.seconds, timed.steps, started = 0.0, 0, time.perf_counter()
        outer.step(rng, number)
        took = time.perf_counter() - started
        profiles.append(Profile({"drawing": timed.seconds, "outer step": took - timed.seconds}, timed.steps))
    return profiles[1:]


def table(experiment: Experiment, found: Sequence[Profile]) -> Group:
    """The mean of some outer steps as a table for a terminal, between two lines that say what was measured."""
    training: Any = experiment.settings.training
    each = "episodes" if experiment.by_trial else "demonstrations"
    count = training.episodes_per_task if experiment.by_trial else training.shots + training.queries
    steps, total = sum(p.steps for p in found), sum(sum(p.seconds.values()) for p in found)
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


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
