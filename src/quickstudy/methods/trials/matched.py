"""From the first trial's transitions find the most similar known task, and go on learning from its policy.

The similarity of tasks is learned as in the matching of demonstrations (`quickstudy.results.task_similarity`; Koch,
Zemel, Salakhutdinov 2015): an encoder of sets of transitions, whose embeddings of two sets of one task are to be more
alike than those of different tasks (the classification over a batch of Sohn 2016, eq. 6).

The first policy, and what known tasks are learned from, is one policy for all tasks
(`quickstudy.methods.trials.baselines`). A known task's policy is what PPO makes of it there; known tasks are training
tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
from quickstudy.task import TaskFamily


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


class KnownTasks(NamedTuple):
    """What one can start from.

    Attributes:
        embeddings: of each known task's first episodes, [known, width].
        policies: stacked [known, ...].
    """

    embeddings: Tensor
    policies: dict[str, Tensor]


class MatchedStart(TrialLearner):
    """Skill: the policy of the most similar known task, and what PPO then makes of it.

    Args:
        known: the environments of this many training tasks with so many episodes of each.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        observation_size: int,
        action_size: int,
        known: Callable[[int, int], VectorEnv],
        config: MatchedConfig = MatchedConfig(),
    ) -> None:
        super().__init__()
        self.policy, self.config, self._known = policy, config, known
        self.encoder = MLP(observation_size + action_size + 1, config.width, config.hidden)
        self._ppo = PPO(policy, policy.initial(), config.learning.training)
        self.optimiser = torch.optim.Adam(self.encoder.parameters(), config.rate)

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        """PPO on all tasks, and one step of the encoder on two halves of each task's episodes."""
        episodes = collect(env, memoryless(self.policy, self._ppo.parameters), rng)
        self._ppo.improve(estimate_advantages(episodes, self.config.learning.returns), rng)
        loss, accuracy = self.matching_loss(episodes)
        self.gradient_step(loss, 1.0)
        return returns_by_round([episodes]) | {"matching-loss": float(loss.detach()), "matching-accuracy": accuracy}

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """The first round's episodes choose; the second acts with the known policy as it is; PPO follows."""
        first = collect(env, memoryless(self.policy, self._ppo.parameters), rng)
        if rounds == 0:
            return [first]
        known = self.known_tasks(env.episodes_per_task)
        chosen = self.most_similar(first, known)
        start = {n: p[chosen] for n, p in known.policies.items()}
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

    @torch.no_grad()
    def most_similar(self, episodes: Episodes, known: KnownTasks) -> Tensor:
        """The index of the most similar known task of each task, [task]."""
        return (self.embed(episodes) @ known.embeddings.mT).argmax(1)

    def known_tasks(self, episodes_per_task: int) -> KnownTasks:
        """Made anew from the parameters as they are, always by the same random numbers."""
        rng, learning = torch.Generator().manual_seed(0), self.config.learning
        with self._known(self.config.known, episodes_per_task) as env:
            start = stack(self.policy.initial(), len(env.tasks))
            episodes, policies = adapt_by_ppo(
                self.policy, start, env, self.config.known_rounds, rng, learning.test, learning.returns
            )
        with torch.no_grad():
            return KnownTasks(self.embed(episodes[0]), policies)

    def state(self) -> dict[str, Any]:
        return super().state() | {"ppo": self._ppo.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._ppo.optimiser.load_state_dict(state["ppo"])


def _build(settings: Settings, family: TaskFamily) -> MatchedStart:
    assert isinstance(family, SimulatedFamily)

    def known(tasks: int, episodes_per_task: int) -> VectorEnv:
        return family.vector_env(family.tasks("train", tasks), episodes_per_task)

    policy = gaussian_policy(settings, family)
    return MatchedStart(policy, family.observation_size, family.action_size, known, settings.algorithm)


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
