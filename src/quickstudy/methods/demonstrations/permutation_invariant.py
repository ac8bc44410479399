"""A conditioned policy that finds out from its demonstrations what each number of an observation means.

Where robots, or tasks, report the same things in another order, no layer's weight has a fixed meaning. Tang & Ha (2021,
The Sensory Neuron as a Transformer: Permutation-Invariant Neural Networks for Reinforcement Learning, section 3) give
every number of an observation, a *channel*, a network of its own that is the same for all, and let attention with
learned queries bring them in order. Here what that network sees is what the channel did in the demonstrations, beside
what was done: a hand's coordinate follows the actions, an object's lies still until the hand has it. The learned
queries, seeds of the Set Transformer (Lee et al. 2019, section 3.2), are roles, as many as channels, and attention says
which channel plays each. The policy and its context encoder, those of `Hypernet`, get roles instead of channels.

Attention is matched both ways by the Sinkhorn operator (Mena et al. 2018, Learning Latent Permutations with
Gumbel-Sinkhorn Networks, eq. 1), towards one channel for each role and one role for each channel. With a softmax over
channels alone, nine roles of 24 came to read the hand's height and none the object's place.

Whatever the order of the channels, the same in the demonstrations and in an episode, the actions are the same.

Deviations. Tang & Ha's softmax is over channels alone. Their network remembers the episode, is trained by evolution and
finds its order again and again while it acts; here one pass over the demonstrations fixes it, and imitation trains it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner
from quickstudy.methods.demonstrations.hypernet import HypernetConfig, Modulation, Modulator
from quickstudy.nets import MLP, LayerNorm

_CHANGE = 10.0
"""Factor of a channel's change in one step, which is small beside the channel."""

_STILL = 0.01
"""The unit of a channel that hardly moves: below it, what moves is noise."""

_SHARP = 4.0
"""How sharp attention is before training. Roles that begin as much the same mean of all channels take ten times as long
to become different."""

_READER = "network.body.0"
"""Where the base learner has its `Reader`."""

_GAIN = 3.0
"""Factor of a role before training: all channels are standardised together, most of them vary less than all do."""


@dataclass(frozen=True)
class RolesConfig:
    """Settings of the network that tells what a channel is.

    Attributes:
        hidden: width of all its layers.
        matchings: how often roles and channels are normalised in turn.
    """

    hidden: int = 64
    matchings: int = 5

    def __post_init__(self) -> None:
        for name in ("hidden", "matchings"):
            if getattr(self, name) < 1:
                raise QuickstudyError(f"{name} must be at least 1; got {getattr(self, name)}.")


class Reader(nn.Module):
    """Channels to as many roles; which channel plays which role [role, obs] is lent by a skill."""

    played: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("played", torch.full((channels, channels), 1.0 / channels), persistent=False)
        self.gain = nn.Parameter(torch.full((channels,), _GAIN))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x, self.played)

    def read(self, x: Tensor, played: Tensor) -> Tensor:
        """[..., obs] to [..., role]."""
        return x @ played.mT * self.gain


class HypernetRoles(MetaLearner):
    """Skill: the modulation of the base network, and which channel plays which role, by name in the base learner.

    Args:
        network: from roles, as many as channels, to actions; gets a `Reader` and `FiLM` layers.
        channels: width of an observation.
        actions: width of an action.
    """

    adapts_weights = False

    def __init__(
        self,
        network: MLP,
        channels: int,
        actions: int,
        config: RolesConfig,
        hypernet: HypernetConfig,
    ) -> None:
        network.body.insert(0, Reader(channels))
        super().__init__(BaseLearner(network, channels, whole=True))
        self.done = BaseLearner(nn.Identity(), actions)
        self.modulate = Modulator(self.base, channels + actions, hypernet)
        self.watch = MLP(6 + actions, config.hidden, (config.hidden,))
        self.before, self.after = LayerNorm(config.hidden), LayerNorm(config.hidden)
        self.compare = nn.Linear(config.hidden, 3 * config.hidden)
        self.key = MLP(config.hidden, config.hidden, (config.hidden,))
        self.matchings = config.matchings
        self.queries = nn.Parameter(torch.randn(channels, config.hidden))

    def standardise(self, batch: Batch) -> None:
        super().standardise(batch)
        self.done.standardise(batch._replace(x=batch.y))

    def begin(self) -> Modulation:
        nothing = self.base.mean.new_zeros(1, 1, len(self.base.mean))
        return self._skill(nothing, self.done.mean.new_zeros(1, 1, len(self.done.mean)), nothing[..., 0])

    def adapt(self, support: Batch) -> Modulation:
        x = (support.x - self.base.mean) / self.base.deviation
        return self._skill(x, self.done(support.y), support.mask)

    def predict(self, skill: Modulation, x: Tensor) -> Tensor:
        return self.base.predict(skill, x)

    def _skill(self, x: Tensor, y: Tensor, mask: Tensor) -> Modulation:
        played = self.played(x, y, mask)
        reader = self.base.get_submodule(_READER)
        assert isinstance(reader, Reader)
        steps = torch.cat([reader.read(x, played), y], -1).flatten(0, 1)
        return {**self.modulate(steps, mask.flatten()), f"{_READER}.played": played}

    def played(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """How much each channel plays each role [role, obs], 1 for a role in all and about 1 for a channel.

        Args:
            x: standardised observations [shot, step, obs].
            y: standardised actions [shot, step, act].
            mask: [shot, step].
        """
        seen = self.watch(_histories(x, y, mask)).relu() * mask[..., None, None]
        channels = self.before(seen.sum((0, 1)) / mask.sum().clamp(min=1.0))
        query, key, value = self.compare(channels).chunk(3, -1)
        size = channels.shape[-1] ** 0.5
        channels = channels + (query @ key.mT / size).softmax(-1) @ value
        keys = self.key(self.after(channels))
        keys = keys - keys.mean(0)  # what all channels have in common tells none from another
        keys = keys / (keys.square().mean(-1, keepdim=True) + 1e-3).sqrt()
        return matched(_SHARP * self.queries @ keys.mT / size, self.matchings)


def matched(scores: Tensor, matchings: int) -> Tensor:
    """Scores [row, column] to weights whose sum is 1 in every row, and nearly so in every column (Mena et al., eq. 1).

    The more matchings, the nearer, if there are as many columns as rows.
    """
    for _ in range(matchings):
        scores = scores.log_softmax(0).log_softmax(1)
    return scores.exp()


def _histories(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """What is known of each channel at each step, [shot, step, obs, 6 + act]: its value, how far it has come and how it
    changes, both in units of how much it moves in these demonstrations, this unit's logarithm, brought to about -0.5
    to 1, the time since the beginning and until the end, and the action."""
    real, steps = mask[..., None], mask.sum().clamp(min=1.0)
    mean = (x * real).sum((0, 1)) / steps
    unit = (((x - mean).square() * real).sum((0, 1)) / steps + _STILL**2).sqrt()
    change = _CHANGE * torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], 1)
    time = (mask.cumsum(-1) - mask) / mask.sum(-1, keepdim=True).clamp(min=1.0)
    shared = torch.cat([torch.stack([time, 1 - time], -1), y], -1)
    own = torch.stack([x, (x - x[:, :1]) / unit, change / unit, (1 + unit.log() / 3).expand_as(x)], -1)
    return torch.cat([own, shared[:, :, None].expand(*x.shape, -1)], -1)
