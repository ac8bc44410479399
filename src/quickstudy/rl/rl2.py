"""RL squared: a recurrent policy whose memory, carried from episode to episode, is what it learned of the task.

Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel: RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning,
2016; Wang et al.: Learning to Reinforcement Learn, 2016. Several episodes of one task make a *trial*. The policy sees
its observation, its last action, the last reward and whether a new episode has begun; its state is reset between
trials only, and what it maximises is the return of the whole trial, episodes' ends or not. The outer algorithm is PPO.

The core is an LSTM, or the external memory of `quickstudy.learners.mann` (Santoro et al. 2016).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner
from quickstudy.learners.mann import MANN, MANNConfig, Memory
from quickstudy.rl.learner import Figures, TrialLearner, finite_step, returns_by_round
from quickstudy.rl.policy import Gaussian, clamped_log_std
from quickstudy.rl.returns import gae
from quickstudy.rl.rollouts import Episodes, Seen, collect
from quickstudy.rl.worlds import Worlds


@dataclass(frozen=True)
class RL2Config:
    """Settings of RL squared.

    Attributes:
        core: 'lstm' or 'mann'.
        width: of the LSTM, or of what the memory's controller hands out.
        memory: of 'mann'.
        episodes: of a trial in training.
        std: deviation of actions before training.
        rate, epochs, minibatches, clip, norm: of PPO; a minibatch is made of whole trials.
        discount, trace: of the advantages, over the whole trial.
        value: weight of the value's loss.
        entropy: weight of the entropy bonus.
    """

    core: Literal["lstm", "mann"] = "lstm"
    width: int = 64
    memory: MANNConfig = field(default_factory=lambda: MANNConfig(slots=16, width=16, heads=2, controller=64))
    episodes: int = 2
    std: float = 0.7
    rate: float = 1e-3
    epochs: int = 5
    minibatches: int = 2
    clip: float = 0.2
    norm: float = 1.0
    discount: float = 0.99
    trace: float = 0.95
    value: float = 0.5
    entropy: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "episodes", "std", "rate", "epochs", "minibatches", "clip", "norm"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")


class Core(nn.Module, ABC):
    """A recurrent network, for any number of lanes at once."""

    @abstractmethod
    def begin(self, lanes: int) -> Any:
        """The state before a trial, a tree of [lane, ...]."""

    @abstractmethod
    def advance(self, state: Any, x: Tensor) -> tuple[Tensor, Any]:
        """Features [lane, width] for inputs [lane, in], and the next state."""


class LSTMCore(Core):
    """One LSTM layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(inputs, width)
        self.width = width

    def begin(self, lanes: int) -> tuple[Tensor, Tensor]:
        zeros = self.cell.weight_hh.new_zeros(lanes, self.width)
        return zeros, zeros

    def advance(self, state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Any]:
        following = self.cell(x, state)
        return following[0], following


class MemoryCore(Core):
    """The memory-augmented network of `quickstudy.learners.mann`: reads, then writes, at every step.

    What MANN is shown one step late, the label, is here the last action and reward, which are among the inputs; the
    place for labels stays empty.
    """

    def __init__(self, inputs: int, width: int, config: MANNConfig) -> None:
        super().__init__()
        self.mann = MANN(BaseLearner(nn.Identity(), inputs), inputs, width, config)

    def begin(self, lanes: int) -> Memory:
        return tree_map(lambda t: t.expand(lanes, *t.shape), self.mann.begin())

    def advance(self, state: Memory, x: Tensor) -> tuple[Tensor, Memory]:
        return self.mann.write(state, x)


class Trial(NamedTuple):
    """Trials as sequences, their episodes one after the other, [lane, step, ...]; padding comes last.

    Attributes:
        inputs: what the core sees.
        actions, rewards, mask: as in `Episodes`.
        log_prob: of the actions when they were drawn.
        advantages, targets: of policy and value.
    """

    inputs: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    log_prob: Tensor
    advantages: Tensor
    targets: Tensor


class RL2(TrialLearner):
    """Skill: the state of the core, one for each lane."""

    pools = False
    scale: Tensor

    def __init__(self, observation_size: int, action_size: int, unit: float, config: RL2Config = RL2Config()) -> None:
        super().__init__()
        self.config, self.unit = config, unit
        inputs = observation_size + action_size + 2
        self.core: Core = (
            LSTMCore(inputs, config.width) if config.core == "lstm" else MemoryCore(inputs, config.width, config.memory)
        )
        head = nn.Linear(config.width, action_size)
        with torch.no_grad():
            head.weight.mul_(0.01)
        self.actor = nn.Sequential(nn.Linear(config.width, config.width), nn.ReLU(), head)
        self.critic = nn.Sequential(nn.Linear(config.width, config.width), nn.ReLU(), nn.Linear(config.width, 1))
        self.log_std = nn.Parameter(torch.full((action_size,), config.std).log())
        self.register_buffer("scale", torch.zeros(()))
        self.optimiser = torch.optim.Adam(self.parameters(), config.rate)

    def outer_step(self, worlds: Worlds, rng: torch.Generator) -> Figures:
        episodes, inputs = self._live(worlds, self.config.episodes - 1, rng)
        trial = self._judge(episodes, inputs)
        figures: Figures = {}
        for _ in range(self.config.epochs):
            for some in torch.randperm(len(trial.mask), generator=rng).chunk(self.config.minibatches):
                figures = self._improve(Trial(*(t[some] for t in trial)))
        return returns_by_round(episodes) | figures

    def trial(self, worlds: Worlds, rounds: int, rng: torch.Generator) -> list[Episodes]:
        return self._live(worlds, rounds, rng)[0]

    def unroll(self, inputs: Tensor) -> tuple[Gaussian, Tensor]:
        """Actions' distributions [lane, step, act] and values [lane, step] along sequences of inputs."""
        state, features = self.core.begin(len(inputs)), []
        for x in inputs.unbind(1):
            feature, state = self.core.advance(state, x)
            features.append(feature)
        return self._heads(torch.stack(features, 1))

    def loss(self, trial: Trial) -> tuple[Tensor, Figures]:
        """PPO's clipped objective, the value's squared error in units of its scale, and the entropy bonus."""
        gaussian, values = self.unroll(trial.inputs)
        count = trial.mask.sum()
        ratio = (gaussian.log_prob(trial.actions) - trial.log_prob).exp()
        bounded = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        gain = torch.minimum(ratio * trial.advantages, bounded * trial.advantages)
        policy = -(gain * trial.mask).sum() / count
        value = ((values - trial.targets / self.scale).square() * trial.mask).sum() / count
        entropy = (gaussian.entropy() * trial.mask).sum() / count
        loss = policy + self.config.value * value - self.config.entropy * entropy
        return loss, {
            "loss": float(policy.detach()),
            "value-loss": float(value.detach()),
            "entropy": float(entropy.detach()),
        }

    def _improve(self, trial: Trial) -> Figures:
        loss, figures = self.loss(trial)
        assert self.optimiser is not None
        return figures | {"gradient-norm": finite_step(self.optimiser, self, loss, self.config.norm)}

    @torch.no_grad()
    def _live(self, worlds: Worlds, rounds: int, rng: torch.Generator) -> tuple[list[Episodes], list[Tensor]]:
        """Episodes of whole trials, one for each lane, and what the core saw in each [task, lane, step, in]."""
        memory = _Remembering(self, len(worlds.tasks) * worlds.lanes)
        made, inputs = [], []
        for _ in range(rounds + 1):
            made.append(collect(worlds, memory, rng, memory.carried))
            inputs.append(torch.stack(memory.inputs, 2))
            memory.end(made[-1])
        return made, inputs

    @torch.no_grad()
    def _judge(self, episodes: Sequence[Episodes], inputs: Sequence[Tensor]) -> Trial:
        """Advantages over whole trials; with the trial all is over, so nothing is worth anything after it."""
        mask = torch.cat([e.mask for e in episodes], 2).flatten(0, 1)
        order = (1 - mask).sort(dim=1, stable=True).indices[:, : int(mask.sum(1).max())]

        def sequence(parts: Sequence[Tensor]) -> Tensor:
            joined = torch.cat(list(parts), 2).flatten(0, 1)
            return joined[torch.arange(len(order))[:, None], order]

        mask, x = sequence([e.mask for e in episodes]), sequence(inputs)
        rewards, actions = sequence([e.rewards for e in episodes]), sequence([e.actions for e in episodes])
        gaussian, values = self.unroll(x)
        if self.scale == 0:
            self.scale.copy_((rewards * mask).sum(1).std().clamp(min=1e-3) / 4)
        values = values * self.scale
        nothing = torch.zeros(len(mask))
        over = torch.ones(len(mask), dtype=torch.bool)
        advantages = gae(rewards, values, nothing, over, mask, self.config.discount, self.config.trace)
        real = mask.bool()
        standard = (advantages - advantages[real].mean()) / advantages[real].std().clamp(min=1e-8) * mask
        return Trial(x, actions, rewards, mask, gaussian.log_prob(actions), standard, advantages + values)

    def _heads(self, features: Tensor) -> tuple[Gaussian, Tensor]:
        mean = self.actor(features)
        log_std = clamped_log_std(self.log_std).expand_as(mean)
        return Gaussian(mean, log_std), self.critic(features).squeeze(-1)

    def see(self, seen: Seen) -> Tensor:
        """The core's inputs [task, lane, in]."""
        extra = torch.stack([seen.reward, seen.done], -1)
        return torch.cat([seen.observation / self.unit, seen.action.clamp(-1, 1), extra], -1)


class _Remembering:
    """An actor that carries the core's state through the episodes of a trial."""

    def __init__(self, learner: RL2, lanes: int) -> None:
        self.learner, self.state = learner, learner.core.begin(lanes)
        self.carried: Seen | None = None
        self.inputs: list[Tensor] = []

    def __call__(self, seen: Seen) -> Gaussian:
        x = self.learner.see(seen)
        self.inputs.append(x)
        features, following = self.learner.core.advance(self.state, x.flatten(0, 1))
        alive = seen.alive.flatten()
        self.state = tree_map(
            lambda new, old: torch.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old), following, self.state
        )
        return self.learner._heads(features.unflatten(0, seen.alive.shape))[0]

    def end(self, episodes: Episodes) -> None:
        """Remembers the last real action and reward for the first step of the next episode."""
        last = (episodes.mask.sum(-1) - 1).clamp(min=0).long()
        action = episodes.actions.gather(2, last[..., None, None].expand(-1, -1, 1, episodes.actions.shape[-1]))
        reward = episodes.rewards.gather(2, last[..., None]).squeeze(2)
        started = torch.ones_like(reward)
        self.carried = Seen(episodes.last, action.squeeze(2), reward, started, started.bool())
        self.inputs = []
