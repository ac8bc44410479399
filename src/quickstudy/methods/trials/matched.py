"""From the first trial's transitions find the most similar known task, and go on learning from its policy.

The similarity of tasks is learned as in the matching of demonstrations (`quickstudy.results.task_similarity`; Koch, Zemel, Salakhutdinov
2015): an encoder of sets of transitions, whose embeddings of two sets of one task are to be more alike than those of
different tasks (the classification over a batch of Sohn 2016, eq. 6).

The first policy, and what known tasks are learned from, is one policy for all tasks (`quickstudy.methods.trials.baselines`). A
known task's policy is what PPO makes of it there; known tasks are training tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from quickstudy.errors import QuickstudyError
from quickstudy.methods.trials.advantages import judge
from quickstudy.methods.trials.baselines import OpponentConfig
from quickstudy.methods.trials.learner import Figures, TrialLearner, finite_step, returns_by_round
from quickstudy.methods.trials.policy import GaussianPolicy, stack
from quickstudy.methods.trials.ppo import PPO, learn
from quickstudy.methods.trials.rollout import Episodes, collect, parametric
from quickstudy.nets import MLP, check_widths, unit
from quickstudy.simulation.vector_env import VectorEnv


@dataclass(frozen=True)
class MatchedConfig:
    """Settings of the metric-based start.

    Attributes:
        known: tasks whose policies one can start from.
        known_rounds: of PPO for each of them.
        width, hidden: of the embedding and of its network.
        rate: of Adam for the embedding.
        sharpness: factor of the cosine similarity in the softmax.
        learning: the settings of PPO.
    """

    known: int = 40
    known_rounds: int = 5
    width: int = 16
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 3e-3
    sharpness: float = 10.0
    learning: OpponentConfig = field(default_factory=OpponentConfig)

    def __post_init__(self) -> None:
        check_widths(hidden=self.hidden)
        for name in ("known", "known_rounds", "width", "rate", "sharpness"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")


class Library(NamedTuple):
    """What is known.

    Attributes:
        embeddings: of each known task's first episodes, [known, width].
        policies: stacked [known, ...].
    """

    embeddings: Tensor
    policies: dict[str, Tensor]


class MatchedStart(TrialLearner):
    """Skill: the policy of the most similar known task, and what PPO then makes of it.

    Args:
        known: the env of this many training tasks with so many episodes_per_task each.
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
        episodes = collect(env, parametric(self.policy, self._ppo.parameters), rng)
        self._ppo.improve(judge(episodes, self.config.learning.returns), rng)
        loss, accuracy = self.matching_loss(episodes)
        assert self.optimiser is not None
        finite_step(self.optimiser, self.encoder, loss, 1.0)
        return returns_by_round([episodes]) | {"matching-loss": float(loss.detach()), "matching-accuracy": accuracy}

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        """The first round's episodes choose; the second acts with the known policy as it is; PPO follows."""
        first = collect(env, parametric(self.policy, self._ppo.parameters), rng)
        if rounds == 0:
            return [first]
        library = self.library(env.episodes_per_task)
        chosen = self.match(first, library)
        start = {n: p[chosen] for n, p in library.policies.items()}
        learning = self.config.learning
        return [first, *learn(self.policy, start, env, rounds - 1, rng, learning.test, learning.returns)[0]]

    def embed(self, episodes: Episodes) -> Tensor:
        """Each task's transitions as one vector of length 1, [task, width]."""
        parts = [episodes.observations / self.policy.unit, episodes.actions, episodes.rewards[..., None]]
        seen, mask = self.encoder(torch.cat(parts, -1)), episodes.mask[..., None]
        return unit((seen * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1.0))

    def matching_loss(self, episodes: Episodes) -> tuple[Tensor, float]:
        """Cross-entropy of finding each task's second half among those of all tasks, and how often it is found."""
        half = episodes.mask.shape[1] // 2
        if half == 0:
            raise QuickstudyError("Matching by trial needs at least two episodes_per_task; got 1.")
        one, other = (self.embed(_lanes(episodes, some)) for some in (slice(half), slice(half, None)))
        scores, own = self.config.sharpness * one @ other.mT, torch.arange(len(one))
        return torch.nn.functional.cross_entropy(scores, own), float((scores.argmax(1) == own).float().mean())

    @torch.no_grad()
    def match(self, episodes: Episodes, library: Library) -> Tensor:
        """The most similar known task of each task, [task]."""
        return (self.embed(episodes) @ library.embeddings.mT).argmax(1)

    def library(self, episodes_per_task: int) -> Library:
        """Made anew from the parameters as they are, always by the same random numbers."""
        rng, learning = torch.Generator().manual_seed(0), self.config.learning
        env = self._known(self.config.known, episodes_per_task)
        start = stack(self.policy.initial(), len(env.tasks))
        episodes, policies = learn(
            self.policy, start, env, self.config.known_rounds, rng, learning.test, learning.returns
        )
        env.close()
        with torch.no_grad():
            return Library(self.embed(episodes[0]), policies)

    def state(self) -> dict[str, Any]:
        return super().state() | {"ppo": self._ppo.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._ppo.optimiser.load_state_dict(state["ppo"])


def _lanes(episodes: Episodes, some: slice) -> Episodes:
    """These episodes_per_task of every task."""
    picked: Episodes = tree_map(lambda t: t[:, some], episodes)
    return picked
