"""Where the time of meta-training by trial goes: to simulation, to the policy, or to the update.

No method needs to take part. A vector environment is called in a fixed order, so its clock sees everything: the time
between an answer and the next step is the policy's, the time between an answer and the next episode is the update's.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.wrapper import VectorWrapper
from quickstudy.settings import TrialConfig
from quickstudy.simulation.vector_env import StepResult, VectorEnv

PARTS = ("simulation", "policy", "update")


@dataclass(frozen=True)
class Profile:
    """One outer step.

    Attributes:
        simulation: seconds of making environments, of resets and steps.
        policy: seconds of choosing actions, and of keeping what was seen.
        update: the other seconds: advantages, adaptation and the outer update.
        steps: environment steps.
    """

    simulation: float
    policy: float
    update: float
    steps: int

    @property
    def seconds(self) -> float:
        return self.simulation + self.policy + self.update

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds


class Timed(VectorWrapper):
    """The same environments with a clock that runs from the moment before they are made."""

    def __init__(self, make: Callable[[], VectorEnv]) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps, self._since = 0, time.perf_counter()
        super().__init__(make())
        self.passed("simulation")

    def reset(
        self,
        generators: Sequence[np.random.Generator],
        chosen: np.ndarray | None = None,
        disturbance: float = 0.0,
    ) -> np.ndarray:
        self.passed("update")
        observations = super().reset(generators, chosen, disturbance)
        self.passed("simulation")
        return observations

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        self.passed("policy")
        result = super().step(actions, active)
        self.steps += int(active.sum())
        self.passed("simulation")
        return result

    def passed(self, part: str) -> None:
        """Counts the time since the last call as this part's."""
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now


def profile_step(
    learner: TrialLearner, make: Callable[[], VectorEnv], rng: torch.Generator
) -> tuple[Profile, VectorEnv]:
    """Times one outer step, with making its environments; also returns these, still open."""
    env = Timed(make)
    with suppress(FloatingPointError):  # nothing was learned, but the time was spent
        learner.outer_step(env, rng)
    env.passed("update")
    return Profile(**env.seconds, steps=env.steps), env


def profile(
    learner: TrialLearner, family: SimulatedFamily, config: TrialConfig, steps: int, seed: int = 0
) -> list[Profile]:
    """Profiles of `steps` outer steps, after one more that is not counted; `learner` learns on the way.

    Raises:
        QuickstudyError: no step, or a method that does not act in meta-training.
    """
    if steps < 1:
        raise QuickstudyError(f"A profile needs at least one outer step; got {steps}.")
    rng, profiles = torch.Generator().manual_seed(seed), []
    for _ in range(steps + 1):
        tasks = family.draw(config.meta_batch, rng)
        made, env = profile_step(learner, partial(family.vector_env, tasks, config.episodes_per_task), rng)
        env.close()
        if made.steps == 0:
            raise QuickstudyError("This method learns nothing from the training tasks: there is no step to profile.")
        profiles.append(made)
    return profiles[1:]
