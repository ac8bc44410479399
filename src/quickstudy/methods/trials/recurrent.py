"""A policy with a memory that lasts for a trial: what it learned of the task is the state of its core.

Duan et al. (2016, RL^2), Wang et al. (2016, Learning to Reinforcement Learn): several episodes of one task make a
*trial*. The policy sees its observation, its last action, the last reward and whether a new episode has begun; its
state is reset between trials only. `quickstudy.methods.trials.rl2` and `dagger` say how it is trained.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.mann import MANN, MANNConfig, Memory
from quickstudy.methods.scanning import is_exporting
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.policy import Gaussian, Unit
from quickstudy.methods.trials.rollout import Episodes, PolicyInput, collect
from quickstudy.settings import Config, PositiveInt
from quickstudy.simulation.vector_env import VectorEnv


@dataclass(frozen=True)
class CoreConfig(Config):
    """Settings of the memory of a recurrent policy.

    Attributes:
        core: 'lstm' or 'mann'.
        width: of the LSTM, or of what the memory's controller gives out.
        memory: of 'mann'.
    """

    core: Literal["lstm", "mann"] = "lstm"
    width: PositiveInt = 64
    memory: MANNConfig = field(default_factory=lambda: MANNConfig(slots=16, width=16, heads=2, controller=64))


class Core(nn.Module, ABC):
    """A recurrent network, for any number of trials at once."""

    @abstractmethod
    def begin(self, trials: int) -> Any:
        """The state before a trial, a tree of [trial, ...]."""

    @abstractmethod
    def advance(self, state: Any, x: Tensor) -> tuple[Tensor, Any]:
        """Features [trial, width] for inputs [trial, in], and the next state."""

    def unroll(self, x: Tensor) -> Tensor:
        """Features [trial, step, width] along whole trials [trial, step, in]."""
        state, features = self.begin(len(x)), []
        for inputs in x.unbind(1):
            feature, state = self.advance(state, inputs)
            features.append(feature)
        return torch.stack(features, 1)


class LSTMCore(Core):
    """One LSTM layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(inputs, width, batch_first=True)

    def begin(self, trials: int) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(trials, self.cell.hidden_size)
        return zeros, zeros

    def advance(self, state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Any]:
        if is_exporting():  # the same in plain products, which any graph has
            (h, c), (w, v, a, b) = state, self.cell.all_weights[0]
            gates = x @ w.mT + a + h @ v.mT + b
            i, f, g, o = gates.chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            return h, (h.clone(), c)
        features, following = self.cell(x[:, None], tuple(s[None] for s in state))
        return features[:, 0], tuple(s[0] for s in following)

    def unroll(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class MemoryCore(Core):
    """The memory-augmented network of `quickstudy.methods.demonstrations.mann`: reads, then writes, at every step.

    What MANN is shown one step late, the label, is here the last action and reward, which are among the inputs; the
    place for labels stays empty.
    """

    def __init__(self, inputs: int, width: int, config: MANNConfig) -> None:
        super().__init__()
        self.mann = MANN(BaseLearner(nn.Identity(), inputs), inputs, width, config)

    def begin(self, trials: int) -> Memory:
        return tree_map(lambda t: t.expand(trials, *t.shape), self.mann.begin())

    def advance(self, state: Memory, x: Tensor) -> tuple[Tensor, Memory]:
        return self.mann.write(state, x)


class Recurrent(TrialLearner):
    """Skill: the state of the core, one for each trial; each environment of a task has a trial of its own."""

    shares_experience = False

    def __init__(self, observation_size: int, action_size: int, unit: Unit, config: CoreConfig) -> None:
        super().__init__()
        self.unit = torch.as_tensor(unit)
        inputs = observation_size + action_size + 2
        self.core: Core = (
            LSTMCore(inputs, config.width) if config.core == "lstm" else MemoryCore(inputs, config.width, config.memory)
        )

    @abstractmethod
    def act(self, features: Tensor) -> Gaussian:
        """Actions' distributions for the core's features [..., width]."""

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Episodes]:
        return self.collect_trial(env, rounds, rng)[0]

    @torch.no_grad()
    def collect_trial(
        self, env: VectorEnv, rounds: int, rng: torch.Generator, before_step: Callable[[], None] | None = None
    ) -> tuple[list[Episodes], list[Tensor]]:
        """A whole trial in each environment: its episodes, and the core's inputs in each [task, trial, step, in].

        Args:
            before_step: is called before each step.
        """
        memory = _RecurrentActor(self, env.size, before_step)
        episodes, inputs = [], []
        for _ in range(rounds + 1):
            episodes.append(collect(env, memory, rng, memory.last_step))
            inputs.append(torch.stack(memory.inputs, 2))
            memory.end(episodes[-1])
        return episodes, inputs

    def inputs(self, seen: PolicyInput) -> Tensor:
        """What the core sees [task, trial, in]: observation, last action, last reward, and whether an episode ended."""
        extra = torch.stack([seen.reward, seen.done], -1)
        # Section 2.2 of RL^2: (s, a, r, d).
        return torch.cat([seen.observation / self.unit, seen.action.clamp(-1, 1), extra], -1)


class JoinedEpisodes:
    """Puts the episodes of each trial one after the other, so that the real steps of each trial come first.

    Args:
        masks: of the episodes, [task, trial, step] each.
    """

    def __init__(self, masks: Sequence[Tensor]) -> None:
        mask = torch.cat(list(masks), 2).flatten(0, 1)
        self._order = (1 - mask).sort(dim=1, stable=True).indices[:, : int(mask.sum(1).max())]
        self.mask = self(masks)

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts [task, trial, step, ...] of all episodes as one [task x trial, step, ...]."""
        joined = torch.cat(list(parts), 2).flatten(0, 1)
        return joined[torch.arange(len(self._order))[:, None], self._order]


class _RecurrentActor:
    """An actor that keeps the core's state through the episodes of a trial."""

    def __init__(self, learner: Recurrent, trials: int, before_step: Callable[[], None] | None) -> None:
        self.learner, self.state, self.before_step = learner, learner.core.begin(trials), before_step
        self.last_step: PolicyInput | None = None
        self.inputs: list[Tensor] = []

    def __call__(self, seen: PolicyInput) -> Gaussian:
        if self.before_step is not None:
            self.before_step()
        x = self.learner.inputs(seen)
        self.inputs.append(x)
        features, following = self.learner.core.advance(self.state, x.flatten(0, 1))
        active = seen.active.flatten()
        self.state = tree_map(
            lambda new, old: torch.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old), following, self.state
        )
        return self.learner.act(features.unflatten(0, seen.active.shape))

    def end(self, episodes: Episodes) -> None:
        """Keeps the last real action and reward for the first step of the next episode."""
        last = (episodes.mask.sum(-1) - 1).clamp(min=0).long()
        action = episodes.actions.gather(2, last[..., None, None].expand(-1, -1, 1, episodes.actions.shape[-1]))
        reward = episodes.rewards.gather(2, last[..., None]).squeeze(2)
        ones = torch.ones_like(reward)
        self.last_step = PolicyInput(episodes.last, action.squeeze(2), reward, ones, ones.bool())
        self.inputs = []
