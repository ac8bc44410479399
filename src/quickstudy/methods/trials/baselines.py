"""What meta-learning has to beat: learning from nothing, from a policy of all tasks, not learning, and knowing all.

- `Scratch`: PPO on the test task from a random policy.
- `MultiTask`: one policy trained by PPO on all training tasks at once, which on a test task
  goes on by PPO ('fine-tune': transfer),
  stays as it is ('nothing': domain randomisation without adaptation), or
  receives the hidden parameters ('reveal': the oracle).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from quickstudy.method import Method
from quickstudy.methods.trials.advantages import ReturnsConfig, estimate_advantages
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.policy import GaussianPolicy, gaussian_policy, stack
from quickstudy.methods.trials.ppo import PPO, PPOConfig, adapt_by_ppo
from quickstudy.methods.trials.rollout import Episodes, collect, memoryless
from quickstudy.methods.trials.wrapper import VectorWrapper
from quickstudy.settings import Config, Settings
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task, TaskFamily

AtTest = Literal["fine-tune", "nothing", "reveal"]


@dataclass(frozen=True)
class BaselineConfig(Config):
    """Settings of the baselines.

    Attributes:
        training: PPO on the training tasks.
        test: PPO on a test task.
        returns: advantages.
    """

    training: PPOConfig = field(default_factory=lambda: PPOConfig(rate=1e-3))
    test: PPOConfig = field(default_factory=PPOConfig)
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)


class Scratch(TrialLearner):
    """Learns nothing from the training tasks: its policy stays as it was drawn."""

    def __init__(self, policy: GaussianPolicy, config: BaselineConfig = BaselineConfig()) -> None:
        super().__init__()
        self.policy, self.config = policy, config

    def experience(self, env: VectorEnv, rng: torch.Generator) -> Any:
        return ()

    def improve(self, experience: Any, tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        return {}

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        start = stack(self.policy.initial(), len(env.tasks))
        return adapt_by_ppo(self.policy, start, env, rounds, rng, self.config.test, self.config.returns)[0]


class MultiTask(Scratch):
    """One policy for all training tasks.

    Args:
        at_test: 'fine-tune', 'nothing', or 'reveal', in training too.
        hidden: the hidden parameters of a task, which the oracle receives; its policy has that many more inputs.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        at_test: AtTest,
        hidden: Callable[[Task], np.ndarray],
        config: BaselineConfig = BaselineConfig(),
    ) -> None:
        super().__init__(policy, config)
        self.at_test, self._hidden = at_test, hidden
        self.shares_experience = at_test == "fine-tune"  # otherwise no episode is learned from
        self._ppo = PPO(policy, policy.initial(), config.training)
        self.optimiser = self._ppo.optimiser

    def experience(self, env: VectorEnv, rng: torch.Generator) -> Episodes:
        return self._act(env, rng)

    def improve(self, experience: Episodes, tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        """PPO's clipped objective, mean over all tasks."""
        self._ppo.improve(estimate_advantages(experience, self.config.returns), rng)
        return returns_by_round([experience])

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        if self.at_test == "fine-tune":
            return super().trial(env, rounds, rng)
        return [self._act(env, rng) for _ in range(rounds + 1)]

    def _act(self, env: VectorEnv, rng: torch.Generator) -> Episodes:
        shown = Revealed(env, self._hidden) if self.at_test == "reveal" else env
        return collect(shown, memoryless(self.policy, self._ppo.parameters), rng)


class Revealed(VectorWrapper):
    """The same environments, whose observations also hold the hidden parameters."""

    def __init__(self, env: VectorEnv, hidden: Callable[[Task], np.ndarray]) -> None:
        super().__init__(env)
        revealed = np.stack([hidden(task) for task in env.tasks])
        self._hidden = np.repeat(revealed[:, None], env.episodes_per_task, 1)

    def reset(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self._with_hidden(super().reset(*args, **kwargs))

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        result = super().step(actions, active)
        return result._replace(observations=self._with_hidden(result.observations))

    def _with_hidden(self, observations: np.ndarray) -> np.ndarray:
        return np.concatenate([observations, self._hidden], -1)


def _multi_task(at_test: AtTest) -> Callable[[Settings, TaskFamily], MultiTask]:
    def build(settings: Settings, family: TaskFamily) -> MultiTask:
        policy = gaussian_policy(settings, family, family.hidden_size if at_test == "reveal" else 0)
        return MultiTask(policy, at_test, family.hidden, settings.algorithm)

    return build


_PPO = "Schulman, Wolski, Dhariwal, Radford, Klimov: Proximal Policy Optimization Algorithms, 2017"
_baseline = partial(Method, settings=BaselineConfig, learns_from="trials", role="baseline")

METHODS = (
    _baseline(
        "scratch-ppo",
        "PPO on each new task from a random policy",
        lambda s, f: Scratch(gaussian_policy(s, f), s.algorithm),
        paper=_PPO,
        uses="nothing",
    ),
    _baseline(
        "transfer-ppo",
        "one policy for all training tasks, which PPO fine-tunes to the new one",
        _multi_task("fine-tune"),
        paper=_PPO,
        pretrained_as="domain-randomisation",
    ),
    _baseline(
        "domain-randomisation",
        "one policy for all training tasks, which does not adapt",
        _multi_task("nothing"),
        paper="Tobin et al.: Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real "
        "World, IROS 2017",
    ),
    _baseline(
        "oracle-ppo",
        "one policy for all training tasks, which receives the hidden parameters",
        _multi_task("reveal"),
        role="oracle",
    ),
)
