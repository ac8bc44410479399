"""How far demonstrations lie outside of what training showed a learner, by channel.

Two distances together say it. In deviations from training's mean, which is what a network sees, and in widths of
training's range, because a channel that hardly ever moves has a small deviation and still a wide range. A new object
that is half as large again is inside; degrees for a learner in radians, or a sensor that never moved and now did, are
not.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quickstudy.data import Seen, Spread
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.task import TaskFamily

FAR, TOO_FAR = (6.0, 0.5), (30.0, 8.0)
"""Deviations from training's mean and widths of its range beyond it from which on, both together, a channel is far
outside, which is said, and too far to adapt to."""


class Outside(NamedTuple):
    """The channel of a demonstration that lies farthest from training.

    Attributes:
        channel: its name.
        value: the farthest one.
        deviations: of `value` from training's mean, in training's deviations; plain numbers where it was constant.
        widths: of `value` beyond training's range, in widths of this range; 0 within it.
        spread: mean, deviation, low and high of the channel in training.
    """

    channel: str
    value: float
    deviations: float
    widths: float
    spread: tuple[float, float, float, float]

    @property
    def far(self) -> bool:
        """Whether it must be told."""
        (mean, deviation, *_), off = self.spread, abs(self.value - self.spread[0])
        still = deviation == 0 and off > 1e-5 * max(abs(mean), abs(self.value))
        return still or self._beyond(FAR)

    @property
    def too_far(self) -> bool:
        """Whether nothing can come of adapting to it."""
        return self._beyond(TOO_FAR)

    def __str__(self) -> str:
        mean, deviation, low, high = self.spread
        if deviation == 0:
            return f"channel {self.channel} is {self.value:.6g} and was always {mean:.6g} in training"
        return (
            f"channel {self.channel} is {_about(self.deviations)} deviations from training's mean ({self.value:.6g}; "
            f"training had {low:.6g} to {high:.6g})"
        )

    def _beyond(self, limits: tuple[float, float]) -> bool:
        return self.deviations > limits[0] and self.widths > limits[1]


def farthest(seen: Seen, demonstrations: Sequence[Demonstration], family: TaskFamily | None = None) -> Outside:
    """The channel of some demonstrations of one task that lies farthest outside of training.

    Args:
        family: what was trained on, which says what channels are called; numbers do where it is not given.
    """
    names = (family.observation_channels, family.action_channels) if family is not None else ((), ())
    found = [
        one
        for spread, kind, called in zip(seen, ("observation", "action"), names, strict=True)
        for one in _of(spread, [getattr(d, f"{kind}s") for d in demonstrations], called, kind)
    ]
    return max(found, key=lambda one: (one.too_far, one.far, min(one.deviations, 1e3 * one.widths), one.deviations))


def check(seen: Seen, demonstrations: Sequence[Demonstration], family: TaskFamily | None = None) -> Outside:
    """`farthest`, if it is not too far to adapt to.

    Raises:
        QuickstudyError: it is.
    """
    found = farthest(seen, demonstrations, family)
    if found.too_far:
        raise QuickstudyError(
            f"The demonstration lies too far outside of training to adapt to: {found}; are its units, order and "
            "calibration those of training?"
        )
    return found


def roughly(mean: np.ndarray, deviation: np.ndarray, actions: int) -> Seen:
    """What is known of the training of a learner that was saved before its range was: three deviations either way."""
    wide = np.full(actions, np.inf)
    observations = Spread(mean, deviation, mean - 3 * deviation, mean + 3 * deviation)
    return Seen(observations, Spread(np.zeros(actions), np.ones(actions), -wide, wide))


def plain(seen: Seen) -> dict[str, dict[str, list[float]]]:
    """As JSON can hold it."""
    return {kind: {n: v.tolist() for n, v in part._asdict().items()} for kind, part in seen._asdict().items()}


def from_plain(known: dict[str, dict[str, list[float]]]) -> Seen:
    """What `plain` gave."""
    return Seen(**{kind: Spread(**{n: np.array(v, float) for n, v in part.items()}) for kind, part in known.items()})


def _of(spread: Spread, parts: Sequence[np.ndarray], names: Sequence[str], kind: str) -> list[Outside]:
    values = np.concatenate([np.asarray(part, np.float64) for part in parts])
    made = []
    for i, (mean, deviation, low, high) in enumerate(zip(*spread, strict=True)):
        column = values[:, i]
        value = float(column[np.abs(column - mean).argmax()])
        beyond = max(low - column.min(), column.max() - high, 0.0)
        width = max(high - low, deviation) or 1.0
        name = names[i] if names else f"{i} of the {kind}s"
        made.append(
            Outside(
                name,
                value,
                float(abs(value - mean) / (deviation or 1.0)),
                float(beyond / width) if math.isfinite(width) else 0.0,
                (float(mean), float(deviation), float(low), float(high)),
            )
        )
    return made


def _about(number: float) -> str:
    """Two digits of it."""
    return f"{float(f'{number:.2g}'):g}"
