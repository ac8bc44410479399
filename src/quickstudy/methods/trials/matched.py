"""From the first trial's transitions find the most similar known task, and go on learning from its policy.

The similarity of tasks is that of demonstrations (Koch, Zemel, Salakhutdinov 2015): embeddings of two sets of
transitions of one task are to be more alike than those of different tasks (Sohn 2016, eq. 6). The first policy is one
for all tasks, as in `quickstudy.methods.trials.baselines`; the known tasks are training tasks, and the policy of each
is what PPO makes of the first one there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.method import Method
from quickstudy.methods.trials.advantages import estimate_advantages
from quickstudy.methods.trials.baselines import BaselineConfig
from quickstudy.methods.trials.learner import Figures, TrialLearner, returns_by_round
from quickstudy.methods.trials.policy import GaussianPolicy, gaussian_policy, stack
from quickstudy.methods.trials.ppo import PPO, adapt_by_ppo, pick_episodes
from quickstudy.methods.trials.rollout import Episodes, collect, memoryless
from quickstudy.nets import MLP, unit
from quickstudy.settings import Config, PositiveFloat, PositiveInt, Settings, Widths
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task, TaskFamily


@dataclass(frozen=True)
class MatchedConfig(Config):
    """Settings of the start from the most similar known task.

    Attributes:
        known: tasks whose policies one can start from.
        known_rounds: of PPO for each of them.
        width, hidden: of the embedding and of its network.
        rate: of Adam for the embedding.
        sharpness: factor of the cosine similarity in the softmax.
        learning: the settings of PPO.
    """

    known: PositiveInt = 40
    known_rounds: PositiveInt = 5
    width: PositiveInt = 16
    hidden: Widths = (64, 64)
    rate: PositiveFloat = 3e-3
    sharpness: PositiveFloat = 10.0
    learning: BaselineConfig = field(default_factory=BaselineConfig)


class MatchedStart(TrialLearner):
    """Skill: the policy of the most similar known task, and what PPO then makes of it.

    Args:
        family: whose training tasks it knows.
    """

    def __init__(self, policy: GaussianPolicy, family: SimulatedFamily, config: MatchedConfig) -> None:
        super().__init__()
        self.policy, self.config, self._family = policy, config, family
        self.encoder = MLP(family.observation_size + family.action_size + 1, config.width, config.hidden)
        self._ppo = PPO(policy, policy.initial(), config.learning.training)
        self.optimiser = torch.optim.Adam(self.encoder.parameters(), config.rate)

    def experience(self, env: VectorEnv, rng: torch.Generator) -> Episodes:
        return collect(env, memoryless(self.policy, self._ppo.parameters), rng)

    def improve(self, experience: Episodes, tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        """PPO on all tasks, and one step of the encoder on two halves of each task's episodes."""
        episodes = experience
        self._ppo.improve(estimate_advantages(episodes, self.config.learning.returns), rng)
        loss, accuracy = self.matching_loss(episodes)
        self.gradient_step(loss, 1.0)
        return returns_by_round([episodes]) | {"matching-loss": float(loss.detach()), "matching-accuracy": accuracy}

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """The first round's episodes choose; the second acts with the known policy as it is; PPO follows."""
        first = collect(env, memoryless(self.policy, self._ppo.parameters), rng)
        if rounds == 0:
            return [first]
        embeddings, policies = self.known_tasks(env.episodes_per_task)
        with torch.no_grad():
            chosen = (self.embed(first) @ embeddings.mT).argmax(1)
        start = {n: p[chosen] for n, p in policies.items()}
        learning = self.config.learning
        return [first, *adapt_by_ppo(self.policy, start, env, rounds - 1, rng, learning.test, learning.returns)[0]]

    def embed(self, episodes: Episodes) -> Tensor:
        """Each task's transitions as one vector of length 1, [task, width]."""
        parts = [episodes.observations / self.policy.unit, episodes.actions, episodes.rewards[..., None]]
        encoded, mask = self.encoder(torch.cat(parts, -1)), episodes.mask[..., None]
        # The mean of the encoded real steps, divided by its length.
        return unit((encoded * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1.0))

    def matching_loss(self, episodes: Episodes) -> tuple[Tensor, float]:
        """Cross-entropy of finding each task's second half among those of all tasks, and how often it is found."""
        half = episodes.mask.shape[1] // 2
        if half == 0:
            raise QuickstudyError("Method 'matched' needs two or more episodes of each task; got 1.")
        one, other = (self.embed(pick_episodes(episodes, part)) for part in (slice(half), slice(half, None)))
        # Eq. 6 of Sohn 2016: -log softmax_j(sharpness <one_i, other_j>) at j = i.
        scores, own = self.config.sharpness * one @ other.mT, torch.arange(len(one))
        return torch.nn.functional.cross_entropy(scores, own), float((scores.argmax(1) == own).float().mean())

    def known_tasks(self, episodes_per_task: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The embeddings [known, width] of the known tasks' first episodes, and their policies, stacked [known, ...].

        Made anew from the parameters as they are, always by the same random numbers.
        """
        rng, learning = torch.Generator().manual_seed(0), self.config.learning
        tasks = self._family.tasks("train", self.config.known)
        with self._family.vector_env(tasks, episodes_per_task) as env:
            start = stack(self.policy.initial(), len(env.tasks))
            episodes, policies = adapt_by_ppo(
                self.policy, start, env, self.config.known_rounds, rng, learning.test, learning.returns
            )
        with torch.no_grad():
            return self.embed(episodes[0]), policies

    def state(self) -> dict[str, Any]:
        return super().state() | {"ppo": self._ppo.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._ppo.optimiser.load_state_dict(state["ppo"])


def _build(settings: Settings, family: TaskFamily) -> MatchedStart:
    assert isinstance(family, SimulatedFamily)
    return MatchedStart(gaussian_policy(settings, family), family, settings.algorithm)


METHODS = (
    Method(
        "matched",
        "starts from the policy of the most similar training task, then PPO",
        _build,
        paper="Koch, Zemel, Salakhutdinov: Siamese Neural Networks for One-shot Image Recognition, 2015 (adapted)",
        settings=MatchedConfig,
        learns_from="trials",
    ),
)
