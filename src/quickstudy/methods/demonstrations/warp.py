"""Floor for manipulation: one demonstration, shifted to where object and goal are now."""

from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.data import Batch, SupportQuery
from quickstudy.learner import BaseLearner, MetaLearner, Metrics
from quickstudy.method import Method, needs_layout
from quickstudy.methods.demonstrations.baselines import Recorded, Replay, recorded_base, row
from quickstudy.settings import Settings
from quickstudy.task import ObservationLayout, TaskFamily


class Warped(NamedTuple):
    """The demonstrations, and the first observation [obs] of the episode that one of them is shifted to."""

    recorded: Recorded
    first: Tensor


class Warp(Replay):
    """Follows the demonstrated path of the hand, shifted by how far object and goal lie from where they were.

    The shift is the object's as long as the demonstrated object has not moved, the goal's at the end, and between them
    in proportion to the object's way. Where no object moves it grows from nothing to the goal's with the hand's way. A
    goal that is not observed is taken to be the same. The clock waits for a hand that lags behind. Nothing is learned,
    and a task that needs more than a shift is not solved. The floor is told what the numbers of an observation mean,
    as otherwise only 'matching-frames' is.
    """

    gain = 25.0
    """Action for each metre between the hand and its path; Meta-World's own experts have 10 to 25."""
    patience = 0.03
    """Metres that the hand may lag behind while the clock goes on."""
    still = 0.02
    """An object that ends less than this many metres from where it began has not moved."""

    def __init__(self, base: BaseLearner, action_size: int, layout: ObservationLayout) -> None:
        super().__init__(base, action_size)
        self.observation_layout = layout

    def begin(self) -> Warped:  # type: ignore[override]
        return Warped(super().begin(), self.base.mean)

    def adapt(self, support: Batch) -> Warped:  # type: ignore[override]
        return Warped(super().adapt(support), support.x[0, 0])

    def predict(self, skill: Warped, x: Tensor) -> Tensor:  # type: ignore[override]
        """The action at the step of the clock for the hand in x: [..., obs] to [..., act]."""
        action = super().predict(skill.recorded, x)
        towards = self.gain * (self._path(skill) - x[..., self.observation_layout.hand])
        return torch.cat([towards.clamp(-1.0, 1.0), action[..., 3:]], -1)

    def act(self, skill: Warped, x: Tensor) -> tuple[Tensor, Warped]:  # type: ignore[override]
        recorded = skill.recorded
        starts = recorded.clock == 0
        nearest = self._distance(recorded.x[:, 0], x).argmin()
        shot, first = torch.where(starts, nearest, recorded.shot), torch.where(starts, x, skill.first)
        skill = Warped(recorded._replace(shot=shot), first)
        near = (self._path(skill) - x[self.observation_layout.hand]).norm() < self.patience
        moved = skill.recorded._replace(clock=recorded.clock + (near | starts).long())
        return self.predict(skill, x), Warped(moved, first)

    def loss(self, task: SupportQuery) -> tuple[Tensor, Metrics]:
        return MetaLearner.loss(self, task)

    def _path(self, skill: Warped) -> Tensor:
        """Where the hand should be at the step of the clock, [3]."""
        (x, _, mask, clock, shot), first = skill
        hand, thing, goal, _ = self.observation_layout
        shown, last = row(x, shot), row(mask, shot).sum().long() - 1
        step = torch.minimum(clock, last)
        way = (shown[:, thing] - shown[0, thing]).norm(dim=-1)
        reached = (shown[:, hand] - shown[0, hand]).norm(dim=-1)
        moves = row(way, last) > self.still
        way = torch.where(moves, way, reached)
        # the share of its way that the object (or the hand) has gone blends the shifts of object and goal
        share = (row(way, step) / row(way, last).clamp(min=1e-6)).clamp(0.0, 1.0)
        shift = first - shown[0]
        return row(shown, step)[hand] + (1.0 - share) * moves * shift[thing] + share * shift[goal]


def _build(s: Settings, family: TaskFamily) -> Warp:
    assert family.observation_layout is not None  # else it is unsuited
    return Warp(recorded_base(family.observation_size), family.action_size, family.observation_layout)


METHODS = (
    Method(
        "warp",
        "plays a demonstration again, shifted to where object and goal are",
        _build,
        role="floor",
        unsuited=needs_layout("warp"),
        uses="scale",
    ),
)
