"""Matching in frames of reference: follow a demonstrated motion as object and goal see it, not as the world does.

Where object and goal lie elsewhere, what a demonstration did is best told relative to them: the task-parameterised
movements of Calinon (2016, A Tutorial on Task-Parameterized Movement Learning and Retrieval, section 3). Which of the
demonstrated steps to follow is what matching networks learn (Vinyals et al. 2016, eq. 1: attention over the support),
here on relations between hand, object and goal, and with a clock, because a motion passes the same place twice.

At each step attended to, the hand should be where it was in the demonstration, moved by a blend of frames: the world,
the object's start, the object now and the goal. The blend is learned, as are the metric, the pull towards that place
and what is left of the demonstrated action. Nothing in it knows one task from another, so that it serves tasks that
training did not have. But it is told what the numbers of an observation mean (`quickstudy.task.ObservationLayout`), which no other
method is, the floor 'warp' apart.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner, Metrics
from quickstudy.nets import MLP, masked_softmax
from quickstudy.task import ObservationLayout

_STRIDE = 4
"""Training imitates the first of every so many steps of a query; the clock runs through all of them."""

_STILL = 0.02
"""An object that ends less than this many metres from where it began has not moved."""

_HARDLY = 0.02
"""The part that a frame has in a blend at least, before anything is learned."""

_AHEAD = (0, 5, 15)
"""How many steps ahead the demonstrated hand may be followed."""

_PACE = (0.25, 1.5)
"""Steps of the demonstration that pass with each step of an episode, at least and at most: a motion that has come to a
halt is not waited for for ever, and the time that a gripper needs to close is not skipped."""

_DECIMETRE = 10.0
"""Relations are in decimetres, so that they are of the order of one."""


@dataclass(frozen=True)
class FramesConfig:
    """Settings of matching in frames.

    Attributes:
        hidden: widths of the networks that embed relations and blend frames.
        embedding: width of the space in which steps are compared.
        pull: the least action for each metre that the hand is off its place. Imitation alone would have it follow the
            demonstrated actions and hardly pull, and then small errors are never put right.
        ticks: initial spread of the clock, in steps; learned.
    """

    hidden: tuple[int, ...] = (64, 64)
    embedding: int = 16
    pull: float = 15.0
    ticks: float = 5.0

    def __post_init__(self) -> None:
        for name in ("embedding", "pull", "ticks"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")


class Shown(NamedTuple):
    """The skill: the demonstrations, and where in them an episode is.

    Attributes:
        x: the demonstrations' observations [shot, step, obs].
        mask: their real steps [shot, step].
        keys: their steps, embedded, [shot, step, embedding].
        values: what to do at each of them, see `MatchingFrames._values`, [shot, step, value].
        clock: the step of each demonstration that is due, [shot].
        began: 1 once the episode has begun, and 0 before that.
        first: its first observation [obs]; means nothing before that.
    """

    x: Tensor
    mask: Tensor
    keys: Tensor
    values: Tensor
    clock: Tensor
    began: Tensor
    first: Tensor


class MatchingFrames(MetaLearner):
    """Skill: `Shown`.

    Args:
        base: has no network; an episode that no demonstration explains is met with its mean observation.
        actions: width of an action; its first numbers move the hand.
        places: which numbers of an observation are hand, object, goal (three each) and gripper.
    """

    adapts_weights, scans = False, True

    def __init__(
        self, base: BaseLearner, actions: int, places: ObservationLayout, config: FramesConfig = FramesConfig()
    ) -> None:
        super().__init__(base)
        self.config, self.observation_layout, self.actions = config, places, actions
        features = 8 + places.gripper.stop - places.gripper.start
        self.embed = MLP(features, config.embedding, config.hidden)
        self.log_metric = nn.Parameter(torch.zeros(4))
        self.follow = MLP(features + 1, 6 + len(_AHEAD), config.hidden)
        nn.init.zeros_(self.follow.head.weight)
        nn.init.zeros_(self.follow.head.bias)
        self.follow.head.bias.data[5] = -2.0  # little of the demonstrated action, which leads astray from elsewhere
        self.log_tick = nn.Parameter(torch.tensor(-math.log(config.ticks)))
        self.log_near = nn.Parameter(torch.zeros(2))

    def begin(self) -> Shown:
        """One step at the mean observation, which does nothing."""
        x = self.base.mean.expand(1, 1, -1)
        y = x.new_zeros(1, 1, self.actions)
        return self.adapt(Batch(x, y, x.new_ones(1, 1), x.new_zeros(0)))

    def adapt(self, support: Batch) -> Shown:
        x, y, mask, _ = support
        keys, values = self._embed(x, x[:, :1]), self._values(x, y, mask)
        return Shown(x, mask, keys, values, x.new_zeros(len(x)), x.new_zeros(()), x[0, 0])

    def predict(self, skill: Shown, x: Tensor) -> Tensor:
        """The action at the skill's clock for x: [..., obs] to [..., act]."""
        return self._action(skill, x, self._due(skill, self._likeness(skill, x), skill.clock))

    def act(self, skill: Shown, x: Tensor) -> tuple[Tensor, Shown]:
        skill = skill._replace(first=self._first(skill, x), began=torch.ones_like(skill.began))
        due = self._due(skill, self._likeness(skill, x), skill.clock)
        return self._action(skill, x, due), skill._replace(clock=due + 1.0)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """How badly the query's demonstrations are imitated, with the clock that would have run along them."""
        skill, (x, y, mask, hidden) = self.adapt(task.support), task.query
        some = Batch(x[:, ::_STRIDE], y[:, ::_STRIDE], mask[:, ::_STRIDE], hidden)
        actions = []
        for whole, here in zip(x, some.x, strict=True):
            own = skill._replace(first=whole[0], began=torch.ones_like(skill.began))
            clocks = self._clocks(own, whole)[::_STRIDE]
            actions.append(self._action(own, here, self._due(own, self._likeness(own, here), clocks)))
        return self.base.criterion(torch.stack(actions), some), {}

    def _clocks(self, skill: Shown, x: Tensor) -> Tensor:
        """The clocks [step, shot] along an episode [step, obs]. No gradient flows through them."""
        skill = tree_map(torch.Tensor.detach, skill)
        clock, clocks = skill.clock, []
        for row in self._likeness(skill, x).detach():
            clocks.append(clock)
            clock = self._due(skill, row, clock).detach() + 1.0
        return torch.stack(clocks)

    def _relations(self, x: Tensor, first: Tensor) -> Tensor:
        """How hand, object and goal lie to each other and how the object has moved: [..., 4, axes] in decimetres."""
        hand, thing, goal, _ = (x[..., place] for place in self.observation_layout)
        moved = thing - first[..., self.observation_layout.object]
        return _DECIMETRE * torch.stack([thing - hand, goal - hand, goal - thing, moved], -2)

    def _features(self, x: Tensor, relations: Tensor) -> Tensor:
        """What stays the same when the whole scene is turned about the vertical: [..., feature]."""
        plane = (relations[..., :2].square().sum(-1) + 1e-4).sqrt()
        return torch.cat([plane, relations[..., 2], x[..., self.observation_layout.gripper]], -1)

    def _embed(self, x: Tensor, first: Tensor) -> Tensor:
        """Observations [..., obs] as points [..., embedding] whose squared distance says how unlike they are."""
        relations = self._relations(x, first)
        scaled = self.log_metric.exp()[:, None] * relations
        return torch.cat([self.embed(self._features(x, relations)), scaled.flatten(-2)], -1)

    def _values(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """What each step [shot, step, ...] asks for, so that means over steps mean something.

        The hand's place [axes] some steps later, less the blended origins of its frames; the blend [3] of the object's
        start, the object now and the goal (the rest is the world's); how much to pull; what is kept of the action's
        first numbers [axes]; the other numbers of the action.
        """
        hand, thing, goal, _ = (x[..., place] for place in self.observation_layout)
        share = self._share(hand, thing, mask)
        raw = self.follow(torch.cat([self._features(x, self._relations(x, x[:, :1])), share[..., None]], -1))
        ahead = (raw[..., 6:].softmax(-1)[..., None] * _later(hand, mask)).sum(-2)
        before, now = (1.0 - share + _HARDLY).log(), (share + _HARDLY).log()
        guess = torch.stack([torch.full_like(share, math.log(_HARDLY)), before, before - 2.0, now], -1)
        blend = (guess + raw[..., :4]).softmax(-1)[..., 1:]
        pull, keep = self.config.pull * (1.0 + raw[..., 4:5].exp()), raw[..., 5:6].sigmoid()
        origins = torch.stack([thing[:, :1].expand_as(thing), thing, goal], -2)
        place = ahead - (blend[..., None] * origins).sum(-2)
        axes = hand.shape[-1]
        return torch.cat([place, blend, pull, keep * y[..., :axes], y[..., axes:]], -1)

    @staticmethod
    def _share(hand: Tensor, thing: Tensor, mask: Tensor) -> Tensor:
        """How much of its way the object has gone at each step, 0..1 [shot, step]; the hand, where no object moves."""
        ways = [(place - place[:, :1]).square().sum(-1).sqrt() * mask for place in (thing, hand)]
        last = mask.sum(-1, keepdim=True).long().clamp(min=1) - 1
        ends = [way.gather(-1, last) for way in ways]
        way, end = (torch.where(ends[0] > _STILL, moved, reached) for moved, reached in (ways, ends))
        return (way / end.clamp(min=1e-6)).clamp(0.0, 1.0)

    def _action(self, skill: Shown, x: Tensor, due: Tensor) -> Tensor:
        """Actions [..., act] for observations [..., obs] and the steps to follow [..., shot]."""
        hand, thing, goal, _ = (x[..., place] for place in self.observation_layout)
        start = self._first(skill, x)[..., self.observation_layout.object]
        steps = torch.arange(skill.mask.shape[-1], device=x.device)
        weights = masked_softmax(-0.5 * (steps - due[..., None]).square(), skill.mask)
        read = (self._nearness(skill, x)[..., None] * weights).flatten(-2) @ skill.values.flatten(0, 1)
        place, blend, pull, kept, rest = read.split([axes := hand.shape[-1], 3, 1, axes, self.actions - axes], -1)
        origins = torch.stack([start.expand_as(thing), thing, goal], -2)
        target = place + (blend[..., None] * origins).sum(-2)
        moves = kept + pull * (target - hand)
        return torch.cat([moves.clamp(-1.0, 1.0), rest], -1)

    def _nearness(self, skill: Shown, x: Tensor) -> Tensor:
        """How much each demonstration counts [..., shot]: by where object and goal were at its start, and are here."""
        first = self._first(skill, x)
        apart = _DECIMETRE * (skill.x[:, 0] - first[..., None, :])
        squares = torch.stack([apart[..., place].square().sum(-1) for place in self.observation_layout[1:3]], -1)
        return (-0.5 * squares @ self.log_near.exp()).softmax(-1)

    def _likeness(self, skill: Shown, x: Tensor) -> Tensor:
        """Logits of attention [..., shot, step] for observations [..., obs], the clock aside.

        Half the squared distance with the sign turned, less what all steps share, which no softmax sees.
        """
        f = self._embed(x, self._first(skill, x))
        keys = skill.keys.flatten(0, 1)
        logits = f @ keys.mT - 0.5 * keys.square().sum(-1)
        return logits.unflatten(-1, skill.mask.shape)

    def _due(self, skill: Shown, likeness: Tensor, clock: Tensor) -> Tensor:
        """The step of each demonstration to follow now: the mean attended to, near the clock; both [..., shot]."""
        steps = torch.arange(likeness.shape[-1], device=likeness.device, dtype=likeness.dtype)
        late = (steps - clock[..., None]) * self.log_tick.exp()
        mean = masked_softmax(likeness - 0.5 * late.square(), skill.mask) @ steps
        return torch.minimum(torch.maximum(mean, clock + _PACE[0] - 1.0), clock + _PACE[1] - 1.0)

    def _first(self, skill: Shown, x: Tensor) -> Tensor:
        """The first observation of the episode [..., obs]; where it has not begun, x is it."""
        return torch.where(skill.began == 0, x, skill.first)


def _later(hand: Tensor, mask: Tensor) -> Tensor:
    """Where the hand [shot, step, axes] is `_AHEAD` steps later, or at the end: [shot, step, ahead, axes]."""
    steps = torch.arange(hand.shape[1], device=hand.device)
    last = mask.sum(-1, keepdim=True).long().clamp(min=1) - 1
    places = [torch.minimum(steps + ahead, last)[..., None].expand_as(hand) for ahead in _AHEAD]
    return torch.stack([hand.gather(1, place) for place in places], -2)
