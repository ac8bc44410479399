"""Task-parameterised matching: follow a demonstrated motion relative to object and goal, not relative to the world.

Where object and goal lie elsewhere, a demonstrated motion is best described relative to them: the task-parameterised
movements of Calinon (2016, A Tutorial on Task-Parameterized Movement Learning and Retrieval, section 3). Which of the
demonstrated steps to follow is what matching networks learn (Vinyals et al. 2016, Eq. 1: attention over the support),
here from relations between hand, object and goal, and with a clock, because a motion may pass the same place twice.

At each step attended to, the hand should be where it was in the demonstration, moved by a blend of frames: the world,
the object's start, the object now and the goal. The blend is learned, as are the metric, the pull towards that place
and how much of the demonstrated action is kept. Nothing in it depends on the task, so that it serves tasks that
training did not have. But it is told what the numbers of an observation mean (`quickstudy.task.ObservationLayout`); the
only other method that is told is the floor 'warp'.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, SupportQuery
from quickstudy.learner import BaseLearner, MetaLearner, Metrics
from quickstudy.method import Method, needs_layout
from quickstudy.methods.demonstrations.baselines import recorded_base
from quickstudy.nets import MLP, masked_softmax
from quickstudy.settings import Config, PositiveFloat, PositiveInt, Settings, Widths
from quickstudy.task import ObservationLayout, TaskFamily

_STRIDE = 4
"""Training imitates the first of every so many steps of a query; the clock runs through all of them."""

_STILL = 0.02
"""An object that ends less than this many metres from where it began has not moved."""

_LEAST_PART = 0.02
"""The smallest part of a frame in a blend before training."""

_AHEAD = (0, 5, 15)
"""How many steps ahead the demonstrated hand may be followed."""

_PACE = (0.25, 1.5)
"""Fewest and most steps of the demonstration that pass in one step of an episode, so that a motion that has stopped
goes on, and the time that a gripper needs to close is not skipped."""

_DECIMETRE = 10.0
"""Relations are in decimetres, so that they are of the order of one."""


@dataclass(frozen=True)
class TaskParameterisedConfig(Config):
    """Settings of task-parameterised matching.

    Attributes:
        hidden: widths of the networks that embed relations and blend frames.
        embedding: width of the space in which steps are compared.
        pull: the least action for each metre between the hand and its place. Imitation alone would follow the
            demonstrated actions and hardly pull, and then small errors are never corrected.
        ticks: initial spread of the clock, in steps; learned.
    """

    hidden: Widths = (64, 64)
    embedding: PositiveInt = 16
    pull: PositiveFloat = 15.0
    ticks: PositiveFloat = 5.0


class Shown(NamedTuple):
    """The skill: the demonstrations, and where in them an episode is.

    Attributes:
        x: the demonstrations' observations [shot, step, obs].
        mask: their real steps [shot, step].
        keys: their steps, embedded, [shot, step, embedding].
        values: what to do at each of them, see `TaskParameterisedMatching._values`, [shot, step, value].
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


class TaskParameterisedMatching(MetaLearner):
    """Skill: `Shown`.

    Args:
        base: has no network; without a demonstration the skill is one step at its mean observation.
        actions: width of an action; its first numbers move the hand.
        layout: which numbers of an observation are hand, object, goal (three each) and gripper.
    """

    adapts_weights, scans = False, True
    follows_gradient = False

    def __init__(
        self,
        base: BaseLearner,
        actions: int,
        layout: ObservationLayout,
        config: TaskParameterisedConfig = TaskParameterisedConfig(),
    ) -> None:
        super().__init__(base)
        self.config, self.observation_layout, self.actions = config, layout, actions
        features = 8 + layout.gripper.stop - layout.gripper.start
        self.embed = MLP(features, config.embedding, config.hidden)
        self.log_metric = nn.Parameter(torch.zeros(4))
        self.follow = MLP(features + 1, 6 + len(_AHEAD), config.hidden)
        nn.init.zeros_(self.follow.head.weight)
        nn.init.zeros_(self.follow.head.bias)
        self.follow.head.bias.data[5] = -2.0  # keep little of the demonstrated action, which is wrong elsewhere
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
        return Shown(x, mask, keys, values, x.new_zeros(x.shape[0]), x.new_zeros(()), x[0, 0])

    def predict(self, skill: Shown, x: Tensor) -> Tensor:
        """The action for x at the clock of the skill: [..., obs] to [..., act]."""
        return self._action(skill, x, self._due(skill, self._likeness(skill, x), skill.clock))

    def act(self, skill: Shown, x: Tensor) -> tuple[Tensor, Shown]:
        skill = skill._replace(first=self._first(skill, x), began=torch.ones_like(skill.began))
        due = self._due(skill, self._likeness(skill, x), skill.clock)
        return self._action(skill, x, due), skill._replace(clock=due + 1.0)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        """The imitation loss on the query's demonstrations, with the clock that would have run along them."""
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
        """Vectors between hand, object and goal, and how the object has moved: [..., 4, axes] in decimetres."""
        hand, thing, goal, _ = (x[..., place] for place in self.observation_layout)
        moved = thing - first[..., self.observation_layout.object]
        return _DECIMETRE * torch.stack([thing - hand, goal - hand, goal - thing, moved], -2)

    def _features(self, x: Tensor, relations: Tensor) -> Tensor:
        """What does not change when the whole scene turns about the vertical: [..., feature]."""
        plane = (relations[..., :2].square().sum(-1) + 1e-4).sqrt()
        return torch.cat([plane, relations[..., 2], x[..., self.observation_layout.gripper]], -1)

    def _embed(self, x: Tensor, first: Tensor) -> Tensor:
        """Observations [..., obs] as points [..., embedding]; the larger their squared distance, the less alike."""
        relations = self._relations(x, first)
        scaled = self.log_metric.exp()[:, None] * relations
        return torch.cat([self.embed(self._features(x, relations)), scaled.flatten(-2)], -1)

    def _values(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """What each step [shot, step, ...] asks for, in numbers that can be averaged over steps.

        The hand's place [axes] some steps later, less the blended origins of its frames; the blend [3] of the object's
        start, the object now and the goal (the rest is the world's); how much to pull; what is kept of the action's
        first numbers [axes]; the other numbers of the action.
        """
        hand, thing, goal, _ = (x[..., place] for place in self.observation_layout)
        share = self._share(hand, thing, mask)
        raw = self.follow(torch.cat([self._features(x, self._relations(x, x[:, :1])), share[..., None]], -1))
        ahead = (raw[..., 6:].softmax(-1)[..., None] * _later(hand, mask)).sum(-2)
        # before training the blend passes from the object to the goal with the share of the object's way
        before, now = (1.0 - share + _LEAST_PART).log(), (share + _LEAST_PART).log()
        guess = torch.stack([torch.full_like(share, math.log(_LEAST_PART)), before, before - 2.0, now], -1)
        blend = (guess + raw[..., :4]).softmax(-1)[..., 1:]
        pull, keep = self.config.pull * (1.0 + raw[..., 4:5].exp()), raw[..., 5:6].sigmoid()
        # Calinon 2016, section 3: the place of the hand in the frames of object and goal
        origins = torch.stack([thing[:, :1].expand_as(thing), thing, goal], -2)
        place = ahead - (blend[..., None] * origins).sum(-2)
        axes = hand.shape[-1]
        return torch.cat([place, blend, pull, keep * y[..., :axes], y[..., axes:]], -1)

    @staticmethod
    def _share(hand: Tensor, thing: Tensor, mask: Tensor) -> Tensor:
        """The share of its way that the object has gone at each step, 0..1 [shot, step]; of the hand, if it stays."""
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
        # Vinyals et al. 2016, Eq. 1: the mean of the values, weighted by attention to steps and demonstrations
        weights = masked_softmax(-0.5 * (steps - due[..., None]).square(), skill.mask)
        read = (self._nearness(skill, x)[..., None] * weights).flatten(-2) @ skill.values.flatten(0, 1)
        place, blend, pull, kept, rest = read.split([axes := hand.shape[-1], 3, 1, axes, self.actions - axes], -1)
        # the same place, back from the frames as they lie in this episode
        origins = torch.stack([start.expand_as(thing), thing, goal], -2)
        target = place + (blend[..., None] * origins).sum(-2)
        moves = kept + pull * (target - hand)
        return torch.cat([moves.clamp(-1.0, 1.0), rest], -1)

    def _nearness(self, skill: Shown, x: Tensor) -> Tensor:
        """The weight of each demonstration [..., shot]: the nearer object and goal were at its start, the larger."""
        first = self._first(skill, x)
        apart = _DECIMETRE * (skill.x[:, 0] - first[..., None, :])
        squares = torch.stack([apart[..., place].square().sum(-1) for place in self.observation_layout[1:3]], -1)
        return (-0.5 * squares @ self.log_near.exp()).softmax(-1)

    def _likeness(self, skill: Shown, x: Tensor) -> Tensor:
        """Logits of attention [..., shot, step] for observations [..., obs], without the clock.

        Minus half the squared distance, without the term that all steps share, which a softmax ignores.
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
        """The first observation of the episode [..., obs], which is x where the episode has not begun."""
        return torch.where(skill.began == 0, x, skill.first)


def _later(hand: Tensor, mask: Tensor) -> Tensor:
    """Where the hand [shot, step, axes] is `_AHEAD` steps later, or at the end: [shot, step, ahead, axes]."""
    steps = torch.arange(hand.shape[1], device=hand.device)
    last = mask.sum(-1, keepdim=True).long().clamp(min=1) - 1
    places = [torch.minimum(steps + ahead, last)[..., None].expand_as(hand) for ahead in _AHEAD]
    return torch.stack([hand.gather(1, place) for place in places], -2)


def _build(s: Settings, family: TaskFamily) -> TaskParameterisedMatching:
    assert family.observation_layout is not None  # else it is unsuited
    base = recorded_base(family.observation_size)
    return TaskParameterisedMatching(base, family.action_size, family.observation_layout, s.algorithm)


METHODS = (
    Method(
        "matching-frames",
        "follows demonstrated steps in the frames of object and goal",
        _build,
        paper="Calinon 2016, A Tutorial on Task-Parameterized Movement Learning and Retrieval, Intelligent Service "
        "Robotics; Vinyals et al. 2016, Matching Networks for One Shot Learning, NIPS",
        settings=TaskParameterisedConfig,
        unsuited=needs_layout("matching-frames"),
    ),
)
