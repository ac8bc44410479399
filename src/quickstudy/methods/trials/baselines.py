"""What meta-learning has to beat: learning from nothing, from a policy of all tasks, not learning, and knowing all.

- `Scratch`: PPO on the test task from a random policy.
- `MultiTask`: one policy trained by PPO on all training tasks at once, which on a test task
  goes on by PPO ('fine-tune': transfer),
  stays as it is ('nothing': domain randomisation without adaptation), or
  sees what is hidden ('reveal': the oracle).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from quickstudy.methods.trials.advantages import ReturnsConfig, judge
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.policy import GaussianPolicy, stack
from quickstudy.methods.trials.ppo import PPO, PPOConfig, learn
from quickstudy.methods.trials.rollout import Episodes, collect, parametric
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task


@dataclass(frozen=True)
class OpponentConfig:
    """Settings of the opponents.

    Attributes:
        training: PPO on the training tasks.
        test: PPO on a test task.
        returns: advantages.
    """

    training: PPOConfig = field(default_factory=lambda: PPOConfig(rate=1e-3))
    test: PPOConfig = field(default_factory=PPOConfig)
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)


class Scratch(TrialLearner):
    """Learns nothing from the training tasks: its policy is as it was drawn."""

    def __init__(self, policy: GaussianPolicy, config: OpponentConfig = OpponentConfig()) -> None:
        super().__init__()
        self.policy, self.config = policy, config

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        return {}

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        start = stack(self.policy.initial(), len(env.tasks))
        return learn(self.policy, start, env, rounds, rng, self.config.test, self.config.returns)[0]


class MultiTask(Scratch):
    """One policy for all training tasks.

    Args:
        at_test: 'fine-tune', 'nothing', or 'reveal', in training too.
        hidden: what the oracle sees of a task; its policy has that many more inputs.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        at_test: Literal["fine-tune", "nothing", "reveal"],
        hidden: Callable[[Task], np.ndarray],
        config: OpponentConfig = OpponentConfig(),
    ) -> None:
        super().__init__(policy, config)
        self.at_test, self._hidden = at_test, hidden
        self.shares_experience = at_test == "fine-tune"  # else no lane learns from another, nor from itself
        self._ppo = PPO(policy, policy.initial(), config.training)
        self.optimiser = self._ppo.optimiser

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        episodes = self._act(env, rng)
        self._ppo.improve(judge(episodes, self.config.returns), rng)
        return returns_by_round([episodes])

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        if self.at_test == "fine-tune":
            return super().trial(env, rounds, rng)
        return [self._act(env, rng) for _ in range(rounds + 1)]

    def _act(self, env: VectorEnv, rng: torch.Generator) -> Episodes:
        shown = Revealed(env, self._hidden) if self.at_test == "reveal" else env
        return collect(shown, parametric(self.policy, self._ppo.parameters), rng)


class Revealed(VectorEnv):
    """The same env, whose observations also hold what is hidden."""

    def __init__(self, env: VectorEnv, hidden: Callable[[Task], np.ndarray]) -> None:
        self.tasks, self.episodes_per_task, self.horizon = env.tasks, env.episodes_per_task, env.horizon
        self.action_size, self._worlds = env.action_size, env
        shown = np.stack([hidden(task) for task in env.tasks])
        self._hidden = np.repeat(shown[:, None], env.episodes_per_task, 1)

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        return self._with(self._worlds.reset(rng))

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        outcome = self._worlds.step(actions, alive)
        return outcome._replace(observations=self._with(outcome.observations))

    def expert_action(self) -> np.ndarray:
        return self._worlds.expert_action()

    def measures(self) -> dict[str, np.ndarray]:
        return self._worlds.measures()

    def _with(self, observations: np.ndarray) -> np.ndarray:
        return np.concatenate([observations, self._hidden], -1)
