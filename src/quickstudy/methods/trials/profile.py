"""Where the time of meta-training by trial goes: to simulation, to the policy, or to the update.

No method is asked. VectorEnv are called in a fixed order, so that their clock sees it all: what passes between an answer
and the next step is the policy's time, what passes between an answer and the next episode is that of the update.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from quickstudy.errors import QuickstudyError
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.outer_loop import TrialConfig
from quickstudy.simulation.vector_env import StepResult, TrialFamily, VectorEnv


@dataclass(frozen=True)
class Profile:
    """One outer step.

    Attributes:
        simulation: seconds of making env, of resets and steps.
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


class Timed(VectorEnv):
    """The same env with a clock that runs from the start."""

    def __init__(self, make: Callable[[], VectorEnv]) -> None:
        self.seconds = {"simulation": 0.0, "policy": 0.0, "update": 0.0}
        self.steps, self._since = 0, time.perf_counter()
        self._worlds = env = make()
        self.tasks, self.episodes_per_task, self.horizon = env.tasks, env.episodes_per_task, env.horizon
        self.action_size = env.action_size
        self.passed("simulation")

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.passed("update")
        observations = self._worlds.reset(rng)
        self.passed("simulation")
        return observations

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        self.passed("policy")
        outcome = self._worlds.step(actions, alive)
        self.steps += int(alive.sum())
        self.passed("simulation")
        return outcome

    def expert_action(self) -> np.ndarray:
        return self._worlds.expert_action()

    def measures(self) -> dict[str, np.ndarray]:
        return self._worlds.measures()

    def close(self) -> None:
        self._worlds.close()

    def passed(self, part: str) -> None:
        """What passed since the last call was this part's."""
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now


def outer_step(learner: TrialLearner, make: Callable[[], VectorEnv], rng: torch.Generator) -> tuple[Profile, VectorEnv]:
    """Times one outer step, making its env included; also returns these, still open."""
    env = Timed(make)
    with suppress(FloatingPointError):  # nothing was learned, but the time was spent
        learner.outer_step(env, rng)
    env.passed("update")
    return Profile(**env.seconds, steps=env.steps), env


def profile(
    learner: TrialLearner, family: TrialFamily, config: TrialConfig, steps: int, seed: int = 0
) -> list[Profile]:
    """Profiles of `steps` outer steps, after one more that is not counted; `learner` learns on the way.

    Raises:
        QuickstudyError: no step, or a method that does not act in meta-training.
    """
    if steps < 1:
        raise QuickstudyError(f"A profile needs at least one outer step; got {steps}.")
    rng, found = torch.Generator().manual_seed(seed), []
    for _ in range(steps + 1):
        tasks = family.draw(config.meta_batch, rng)
        made, env = outer_step(learner, partial(family.vector_env, tasks, config.episodes_per_task), rng)
        env.close()
        if made.steps == 0:
            raise QuickstudyError("This method learns nothing from the training tasks: there is no step to profile.")
        found.append(made)
    return found[1:]
