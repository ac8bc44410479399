"""A replay buffer for each task, for methods that learn from more than the last episodes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.methods.trials.rollout import Episodes


class Transitions(NamedTuple):
    """Steps and what they led to, [task, n, ...].

    Attributes:
        observations, actions, rewards: as in `Episodes`, rewards with a last axis of one.
        following: the observation after.
        ended: [task, n, 1], terminated there; being truncated is no end.
        mask: [task, n, 1], 1 for a real step.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    following: Tensor
    ended: Tensor
    mask: Tensor


def transitions(episodes: Episodes) -> Transitions:
    """All steps of each episode, [task, episode, step, ...]."""
    mask = episodes.mask[..., None]
    after = torch.cat([episodes.observations[:, :, 1:], episodes.last[:, :, None]], 2)
    final = episodes.mask * (1 - torch.cat([episodes.mask[..., 1:], 0 * episodes.mask[..., :1]], -1))
    following = torch.where(final[..., None] > 0, episodes.last[:, :, None], after)
    ended = (final * episodes.terminated[..., None])[..., None]
    actions = episodes.actions.clamp(-1, 1)
    return Transitions(episodes.observations, actions, episodes.rewards[..., None], following, ended, mask)


class _TaskBuffer(NamedTuple):
    """Real transitions of one task [n, ...], which trial each is of and which of its episodes, [n]."""

    steps: Transitions
    trial: Tensor
    episode: Tensor


class ReplayBuffer:
    """The latest transitions of each of the latest tasks.

    Args:
        tasks: how many are kept; of more, those that were added longest ago go.
        steps: of each; of more, the oldest go.
    """

    def __init__(self, tasks: int, steps: int) -> None:
        self._tasks, self._steps, self._trials = tasks, steps, 0
        self._of: dict[str, _TaskBuffer] = {}

    def __len__(self) -> int:
        return len(self._of)

    def add(self, names: Sequence[str], episodes: Sequence[Transitions]) -> None:
        """Adds the episodes of some trials, [task, trial, step, ...] each, of the tasks of these names."""
        trials, lengths = episodes[0].mask.shape[1], [part.mask.shape[2] for part in episodes]
        trial = (self._trials + torch.arange(trials))[:, None].expand(-1, sum(lengths))
        episode = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).expand(trials, -1)
        self._trials += trials
        joined = Transitions(*(torch.cat(part, 2) for part in zip(*episodes, strict=True)))
        real = joined.mask[..., 0] > 0
        for i, name in enumerate(names):
            new = [part[i][real[i]] for part in joined] + [trial[real[i]], episode[real[i]]]
            old = self._of.pop(name, None)
            if old is not None:
                new = [torch.cat(parts) for parts in zip([*old.steps, *old[1:]], new, strict=True)]
            *steps, of, number = (part[-self._steps :].clone() for part in new)
            self._of[name] = _TaskBuffer(Transitions(*steps), of, number)
        for name in list(self._of)[: -self._tasks]:
            del self._of[name]

    def draw(self, tasks: Sequence[int], count: int, rng: torch.Generator) -> Transitions:
        """`count` transitions of each of these tasks, of the 0th to the last that are kept, with replacement."""
        buffers = self._at(tasks)
        return _drawn(buffers, [torch.ones_like(buffer.trial) for buffer in buffers], count, rng)

    def draw_context(self, tasks: Sequence[int], count: int, rng: torch.Generator) -> Transitions:
        """As much as a learner knows of each task in the middle of a trial: transitions of its first episodes alone."""
        buffers, known = self._at(tasks), []
        for buffer in buffers:
            now = int(torch.randint(len(buffer.trial), (), generator=rng))
            known.append((buffer.trial == buffer.trial[now]) & (buffer.episode <= buffer.episode[now]))
        return _drawn(buffers, known, count, rng)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"trials": self._trials, "of": {n: [list(b.steps), b.trial, b.episode] for n, b in self._of.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave."""
        self._trials = state["trials"]
        self._of = {name: _TaskBuffer(Transitions(*steps), *which) for name, (steps, *which) in state["of"].items()}

    def _at(self, indices: Sequence[int]) -> list[_TaskBuffer]:
        buffers = list(self._of.values())
        return [buffers[i] for i in indices]


def _drawn(buffers: Sequence[_TaskBuffer], allowed: Sequence[Tensor], count: int, rng: torch.Generator) -> Transitions:
    """`count` transitions of each, of those that are `allowed`."""
    drawn = []
    for buffer, mask in zip(buffers, allowed, strict=True):
        index = torch.multinomial(mask.float(), count, replacement=True, generator=rng)
        drawn.append([part[index] for part in buffer.steps])
    return Transitions(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))
