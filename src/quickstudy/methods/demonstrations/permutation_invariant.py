"""A conditioned policy that finds out from its demonstrations what each number of an observation means.

Where robots or tasks report the same things in different orders, a weight of the first layer has no fixed meaning. Tang
& Ha (2021, The Sensory Neuron as a Transformer: Permutation-Invariant Neural Networks for Reinforcement Learning,
section 3) pass every number of an observation, a *channel*, through the same network, and let attention with learned
queries bring the channels in order. Here the input of that network is what the channel did in the demonstrations,
together with the actions: a coordinate of the hand follows the actions, one of an object stays still until the hand
holds the object. The learned queries, seeds of the Set Transformer (Lee et al. 2019, section 3.2), are called roles.
There are as many as channels, and attention says which channel plays each role. The policy and its context encoder,
those of `Hypernet`, then see roles in place of channels.

The Sinkhorn operator (Mena et al. 2018, Learning Latent Permutations with Gumbel-Sinkhorn Networks, Eq. 1) normalises
the attention both ways, towards one channel for each role and one role for each channel. With a softmax over channels
alone, nine of 24 roles came to read the height of the hand and none the position of the object.

Whatever the order of the channels, as long as it is the same in the demonstrations and in the episode, the actions are
the same.

Deviations. Tang & Ha's softmax is over channels alone. Their network has a memory of the episode, is trained by
evolution, and finds the order anew at every step; here one pass over the demonstrations fixes it, and imitation trains
everything.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quickstudy.data import Batch
from quickstudy.learner import BaseLearner, MetaLearner
from quickstudy.method import Method, needs_skills
from quickstudy.methods.demonstrations.hypernet import HypernetConfig, Modulation, Modulator
from quickstudy.nets import MLP, LayerNorm
from quickstudy.settings import Config, PositiveInt, Settings
from quickstudy.task import TaskFamily

_CHANGE = 10.0
"""Factor of the change of a channel in one step, which is small compared with the channel."""

_STILL = 0.01
"""The smallest unit of a channel: movement below it is noise."""

_SHARPNESS = 4.0
"""Factor of the attention scores before training. Roles that all begin as nearly the same mean of all channels take ten
times as long to become different."""

_READER = "network.body.0"
"""Where the base learner has its `Reader`."""

_GAIN = 3.0
"""Factor of a role before training: one deviation standardises all channels, and most vary less than that."""


@dataclass(frozen=True)
class PermutationInvariantConfig(Config):
    """Settings of the network that finds out which channel plays which role.

    Attributes:
        hidden: width of all its layers.
        sinkhorn_iterations: how often the attention is normalised over roles and then over channels.
        hypernet: settings of the context encoder.
    """

    hidden: PositiveInt = 64
    sinkhorn_iterations: PositiveInt = 5
    hypernet: HypernetConfig = field(default_factory=HypernetConfig)


class Reader(nn.Module):
    """Channels to as many roles; a skill replaces `played`, which says how much each channel plays each role."""

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


class PermutationInvariantHypernet(MetaLearner):
    """Skill: the modulation of the base network and how much each channel plays each role, by name in the base learner.

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
        config: PermutationInvariantConfig = PermutationInvariantConfig(),
    ) -> None:
        network.body.insert(0, Reader(channels))
        super().__init__(BaseLearner(network, channels, whole=True))
        self.done = BaseLearner(nn.Identity(), actions)
        self.modulate = Modulator(self.base, channels + actions, config.hypernet)
        self.watch = MLP(6 + actions, config.hidden, (config.hidden,))
        self.before, self.after = LayerNorm(config.hidden), LayerNorm(config.hidden)
        self.compare = nn.Linear(config.hidden, 3 * config.hidden)
        self.key = MLP(config.hidden, config.hidden, (config.hidden,))
        self.config = config
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
        """How much each channel plays each role [role, obs]; sums to 1 for a role and to about 1 for a channel.

        Args:
            x: standardised observations [shot, step, obs].
            y: standardised actions [shot, step, act].
            mask: [shot, step].
        """
        # Tang & Ha, section 3: the same network for every channel, here of what it did in the demonstrations
        seen = self.watch(_histories(x, y, mask)).relu() * mask[..., None, None]
        channels = self.before(seen.sum((0, 1)) / mask.sum().clamp(min=1.0))
        # self-attention: each channel is seen together with all the others
        query, key, value = self.compare(channels).chunk(3, -1)
        size = channels.shape[-1] ** 0.5
        channels = channels + (query @ key.mT / size).softmax(-1) @ value
        keys = self.key(self.after(channels))
        keys = keys - keys.mean(0)  # what all channels have in common distinguishes none
        keys = keys / (keys.square().mean(-1, keepdim=True) + 1e-3).sqrt()
        # attention of the learned queries (Lee et al. 2019, section 3.2), normalised by Sinkhorn instead of a softmax
        return sinkhorn(_SHARPNESS * self.queries @ keys.mT / size, self.config.sinkhorn_iterations)


def sinkhorn(scores: Tensor, iterations: int) -> Tensor:
    """Scores [row, column] to weights that sum to 1 in every row, and nearly to 1 in every column of a square matrix.

    The more iterations, the nearer.
    """
    for _ in range(iterations):
        # Mena et al. 2018, Eq. 1: S^l(X) = rows normalised(columns normalised(S^{l-1}(X))), here of logarithms
        scores = scores.log_softmax(0).log_softmax(1)
    return scores.exp()


def _histories(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """What is known of each channel at each step, [shot, step, obs, 6 + act].

    Its value; the distance from its first value and its change in one step, both in units of how much it moves in these
    demonstrations; the logarithm of this unit, scaled to about -0.5 to 1; the time since the beginning and until the
    end; and the action.
    """
    real, steps = mask[..., None], mask.sum().clamp(min=1.0)
    mean = (x * real).sum((0, 1)) / steps
    unit = (((x - mean).square() * real).sum((0, 1)) / steps + _STILL**2).sqrt()
    change = _CHANGE * torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], 1)
    time = (mask.cumsum(-1) - mask) / mask.sum(-1, keepdim=True).clamp(min=1.0)
    shared = torch.cat([torch.stack([time, 1 - time], -1), y], -1)
    own = torch.stack([x, (x - x[:, :1]) / unit, change / unit, (1 + unit.log() / 3).expand_as(x)], -1)
    return torch.cat([own, shared[:, :, None].expand(*x.shape, -1)], -1)


def _build(s: Settings, family: TaskFamily) -> PermutationInvariantHypernet:
    network = MLP(family.observation_size, family.action_size, s.network.hidden, normalise=s.network.normalise)
    return PermutationInvariantHypernet(network, family.observation_size, family.action_size, s.algorithm)


METHODS = (
    Method(
        "hypernet-roles",
        "a hypernet that finds out what each number of an observation means",
        _build,
        paper="Tang, Ha 2021, The Sensory Neuron as a Transformer: Permutation-Invariant Neural Networks for "
        "Reinforcement Learning, NeurIPS; Mena et al. 2018, Learning Latent Permutations with Gumbel-Sinkhorn "
        "Networks, ICLR",
        settings=PermutationInvariantConfig,
        changes={"training": {"rate": 2e-3, "clip": 1.0}},
        unsuited=needs_skills("hypernet-roles"),
        compared=False,
    ),
)
