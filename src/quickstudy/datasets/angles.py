"""Two numbers for one thing: angles that wrap, and the two signs of a quaternion.

What interpolates, averages or compares recorded numbers makes them continuous first, or takes the short way round.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TURNS = {"rad": 2 * np.pi, "deg": 360.0}
_JUMP = 0.8
"""The least share of a turn that two neighbouring steps are apart where an angle wrapped."""
_NEAR = 0.02
"""Share of a turn from either end of its range that is near the end."""
_ANGLE = re.compile("yaw|roll|heading|bearing|azimuth|theta|angle|euler", re.IGNORECASE)
_UNIT = 2e-3
"""How far the norm of four numbers may be off 1 for them to be a quaternion; written with three decimals it may."""


@dataclass(frozen=True)
class Wraps:
    """The channels of which two numbers may say the same.

    Attributes:
        turns: by channel, what a full turn is.
        quaternions: the first of the four channels of each.
    """

    turns: dict[int, float]
    quaternions: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.turns or self.quaternions)

    def continuous(self, values: np.ndarray) -> np.ndarray:
        """Values [step, channel] without jumps along time, float64: angles unwrapped, quaternions of one sign."""
        values = np.array(values, float)
        for channel, turn in self.turns.items():
            values[:, channel] = np.unwrap(values[:, channel], period=turn)
        for first in self.quaternions:
            block = values[:, first : first + 4]
            flips = np.sign((block[1:] * block[:-1]).sum(1))
            block[1:] *= np.cumprod(np.where(flips < 0, -1.0, 1.0))[:, None]
        return values

    def near(self, values: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Continuous values [step, channel], whole turns and signs taken so that their mean is near a reference's.

        Args:
            reference: [channel], such as the mean of another demonstration, that this one is averaged or compared with.
        """
        values = self.continuous(values)
        for channel, turn in self.turns.items():
            values[:, channel] -= turn * np.round((values[:, channel].mean() - reference[channel]) / turn)
        for first in self.quaternions:
            part = slice(first, first + 4)
            if values[:, part].mean(0) @ reference[part] < 0:
                values[:, part] *= -1
        return values

    def difference(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """`one` - `other`, [..., channel], the short way round."""
        if not self:
            return np.asarray(one - other)
        made = np.array(one, float) - other
        for channel, turn in self.turns.items():
            made[..., channel] -= turn * np.round(made[..., channel] / turn)
        for first in self.quaternions:
            part = slice(first, first + 4)
            opposite = (np.asarray(one)[..., part] * np.asarray(other)[..., part]).sum(-1, keepdims=True) < 0
            made[..., part] = np.where(opposite, one[..., part] + other[..., part], made[..., part])
        return made

    def as_written(self, values: np.ndarray, written: np.ndarray) -> np.ndarray:
        """Interpolated values [step, channel] as the recording has them: within its turn, of its sign, of norm 1.

        Args:
            written: [step, channel], the recorded step before each.
        """
        values = np.array(values, float)
        for channel, turn in self.turns.items():
            # Where an angle is given from 0 to a turn, none is below 0; otherwise from minus half a turn to half.
            low = 0.0 if written[:, channel].min() >= -1e-6 * turn else -turn / 2
            inside = (values[:, channel] - low) % turn + low
            # What is on the recorded side within rounding stays there: half a turn is both its ends.
            ends = np.abs(inside + turn - written[:, channel]) < 1e-6 * turn
            values[:, channel] = np.where(ends, inside + turn, inside)
        for first in self.quaternions:
            part = slice(first, first + 4)
            block = values[:, part] / np.maximum(np.linalg.norm(values[:, part], axis=1, keepdims=True), 1e-9)
            values[:, part] = np.where((block * written[:, part]).sum(1, keepdims=True) < 0, -block, block)
        return values


def find(values: Sequence[np.ndarray], names: Sequence[str] = (), units: Sequence[str] = ()) -> Wraps:
    """The channels of episodes that wrap, by what is recorded.

    An angle jumps by nearly a full turn between two neighbouring steps and stays within one; where unit or name say
    that it is an angle, values near both ends of a turn tell it too. A quaternion is four neighbouring channels of
    norm 1, named so, or otherwise not all whole numbers (or the choice of one in four would be one).

    Args:
        values: for each episode [step, channel].
        names, units: of the channels, or none.
    """
    width = values[0].shape[1] if values else 0
    kept = [one for one in values if len(one)]
    if not kept:
        return Wraps({}, ())
    quaternions = _quaternions(kept, width, names)
    taken = {first + i for first in quaternions for i in range(4)}
    ends = np.cumsum([len(one) for one in kept])[:-1] - 1
    turns = {}
    for channel in range(width):
        if channel not in taken:
            unit = units[channel] if channel < len(units) else ""
            name = names[channel] if channel < len(names) else ""
            # One channel at a time: a copy of all would double the memory that a large data set takes.
            if turn := _turn(np.concatenate([one[:, channel] for one in kept]), ends, name, unit):
                turns[channel] = turn
    return Wraps(turns, quaternions)


def _turn(values: np.ndarray, ends: np.ndarray, name: str, unit: str) -> float:
    """What a full turn of a channel is; 0 where it does not wrap. After the steps `ends` another episode begins."""
    low, high = float(values.min()), float(values.max())
    steps = np.abs(np.diff(values))
    steps[ends] = 0.0
    for kind, turn in _TURNS.items():
        start = 0.0 if low >= -1e-3 * turn else -turn / 2
        inside = start - 1e-3 * turn <= low and high <= start + 1.001 * turn
        if not inside or (unit and unit_of(unit) != kind):
            continue
        if unit or _ANGLE.search(name):
            both_ends = low < start + _NEAR * turn and high > start + (1 - _NEAR) * turn
            if both_ends or steps.max(initial=0.0) >= _JUMP * turn:
                return turn
        elif _wraps(steps, turn) and (kind == "deg" or (values != values.round()).any()):
            return turn
    return 0.0


def _wraps(steps: np.ndarray, turn: float) -> bool:
    """Whether some steps are nearly a turn and all others, which are not all zero, far less, as an angle's are."""
    others = steps[steps < _JUMP * turn]
    return len(others) < len(steps) and 0.0 < others.max(initial=0.0) < (1 - _JUMP) * turn


def unit_of(hint: str) -> str:
    """'rad' or 'deg' from how people write them; '' for another unit."""
    plain = hint.strip().lower()
    return "rad" if plain.startswith("rad") else "deg" if plain.startswith("deg") or plain == "°" else ""


def _quaternions(episodes: list[np.ndarray], width: int, names: Sequence[str]) -> tuple[int, ...]:
    found: list[int] = []
    for first in range(width - 3):
        if found and first < found[-1] + 4:
            continue
        named = _named_quaternion(names[first : first + 4])
        blocks = [one[:, first : first + 4] for one in episodes]
        if abs(np.linalg.norm(blocks[0][0]) - 1) > 0.05:
            continue
        off = max((float(np.abs(np.linalg.norm(block, axis=1) - 1).max()) for block in blocks), default=np.inf)
        if off <= (0.05 if named else _UNIT) and (named or _not_chosen(blocks)):
            found.append(first)
    return tuple(found)


def _not_chosen(blocks: list[np.ndarray]) -> bool:
    """Whether four numbers of norm 1 are neither constant nor all whole."""
    whole = all((block == block.round()).all() for block in blocks)
    return not whole and any((block != blocks[0][0]).any() for block in blocks)


def _named_quaternion(names: Sequence[str]) -> bool:
    """Whether four names differ in the last letter alone, as in qx, qy, qz, qw or quat.0 to quat.3."""
    plain = [re.sub(r"[^a-z0-9]+$", "", name.lower()) for name in names]
    if len(plain) != 4 or len({name[:-1] for name in plain}) != 1:
        return False
    last = "".join(name[-1:] for name in plain)
    return last in ("xyzw", "wxyz") or (last in ("0123", "1234") and ("quat" in plain[0] or "rot" in plain[0]))
