"""What stands between a learner and a robot: nothing not finite goes in, nothing outside the limits comes out."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quickstudy_runtime.bundle import Channels
from quickstudy_runtime.errors import InputError, shown


@dataclass(frozen=True)
class Guard:
    """How strict a skill is with what it is given, and with what it gives.

    Attributes:
        on_bad: what an observation that cannot be used gives: 'refuse' raises InputError, 'hold' gives the action that
            keeps the robot where it is. By default 'hold' where the bundle knows that action, and 'refuse' elsewhere.
        rest: [action], the action that keeps the robot where it is, in place of the bundle's; NaN for a channel that
            keeps its last value.
        margin: how far outside the range met in training an observation may be, in widths of that range.
        max_age: the oldest time stamp, in seconds, that an observation may have.
        max_rate: actions a second; an observation that comes sooner gets the last action again.
        slew: the largest change of each action channel in a second, one number for all or one for each.
    """

    on_bad: Literal["hold", "refuse"] | None = None
    rest: Sequence[float] | None = None
    margin: float = 1.0
    max_age: float | None = None
    max_rate: float | None = None
    slew: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.on_bad not in (None, "hold", "refuse"):
            raise InputError(f"on_bad must be 'hold' or 'refuse'; got {shown(self.on_bad)}.")
        for name in ("margin", "max_age", "max_rate"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name} must be a number of at least 0; got {shown(value)}.")
        if self.slew is not None and not (np.asarray(self.slew, float) >= 0).all():
            raise InputError(f"slew must be at least 0 for every channel; got {shown(self.slew)}.")


class Gate:
    """Checks the observations and actions of one robot, and counts what it did.

    Args:
        observation, action: the channels.
        guard: how strict it is.
        clock: seconds, for the age of observations and the rate of actions.

    Attributes:
        counts: 'acted', 'held' and 'refused'; 'clipped', 'slewed' and 'repeated' actions; and each reason to hold or
            refuse: 'not finite', 'width', 'missing channel', 'range', 'stale', 'out of order', 'not numbers'.
        status: what the last call did: '' where it acted, else why not.
    """

    def __init__(
        self,
        observation: Channels,
        action: Channels,
        guard: Guard | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.guard, self._clock, self._action = guard or Guard(), clock, action
        self.counts: Counter[str] = Counter()
        self.status = ""
        self._names = Names(observation)
        width = np.where(np.isfinite(observation.high - observation.low), observation.high - observation.low, 0.0)
        spare = self.guard.margin * width
        # A channel that never moved in training says nothing of how far it may move.
        free = width == 0
        self._low = np.where(free, -math.inf, observation.low - spare)
        self._high = np.where(free, math.inf, observation.high + spare)
        rest = action.rest if self.guard.rest is None else np.asarray(self.guard.rest, float)
        if rest is not None and rest.shape != (len(action),):
            raise InputError(f"rest must have {len(action)} numbers, one for each action channel; got {rest.shape}.")
        if rest is not None and ((rest < action.low) | (rest > action.high)).any():
            raise InputError("rest lies outside the limits of the actions.")
        self._rest, self._holds = rest, (self.guard.on_bad or ("refuse" if rest is None else "hold")) == "hold"
        if self._holds and rest is None:
            raise InputError(
                "on_bad='hold' needs to know what keeps this robot where it is; say it by rest=[...], or export it."
            )
        self._slew = None
        if self.guard.slew is not None:
            try:
                self._slew = np.broadcast_to(np.asarray(self.guard.slew, float), len(action))
            except ValueError:
                raise InputError(f"slew must be one number or {len(action)}; got {shown(self.guard.slew)}.") from None
        self.restart()

    def restart(self) -> None:
        """A new episode: time stamps and the last action are forgotten; counts stay."""
        self._stamp, self._sequence, self._when = -math.inf, -1, -math.inf
        self._last: np.ndarray | None = None

    def admit(self, observation: Any, stamp: float | None, sequence: int | None) -> np.ndarray:
        """The observation as [obs] float64.

        Raises:
            InputError: it cannot be used; the reason is counted.
        """
        values = self._names.vector(observation, self._count)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise self._count("not finite", f"channel '{self._names.of(bad[0])}' is {values[bad[0]]}")
        outside = np.flatnonzero((values < self._low) | (values > self._high))
        if len(outside):
            i = outside[0]
            raise self._count(
                "range",
                f"channel '{self._names.of(i)}' is {values[i]:g}; {self._low[i]:g} to {self._high[i]:g} is allowed",
            )
        if stamp is not None:
            if not isinstance(stamp, int | float) or not math.isfinite(stamp):
                raise self._count("stale", f"the time stamp is {shown(stamp)}")
            if stamp <= self._stamp:
                raise self._count("out of order", f"the time stamp {stamp:.6f} s is not after {self._stamp:.6f} s")
            age = self._clock() - stamp
            if self.guard.max_age is not None and age > self.guard.max_age:
                raise self._count("stale", f"the observation is {age:.3f} s old; {self.guard.max_age:g} s is allowed")
        if sequence is not None:
            if type(sequence) is not int or sequence <= self._sequence:
                raise self._count("out of order", f"number {shown(sequence)} came after number {self._sequence}")
            self._sequence = sequence
        if stamp is not None:
            self._stamp = stamp
        return values

    def _count(self, reason: str, sentence: str) -> InputError:
        self.counts[reason] += 1
        error = InputError(f"The observation is not used: {sentence}.")
        error.reason = reason  # type: ignore[attr-defined]
        return error

    def too_soon(self) -> bool:
        """Whether less time passed since the last action than `max_rate` allows."""
        if self.guard.max_rate is None or self._last is None:
            return False
        return (self._clock() - self._when) * self.guard.max_rate < 1 - 1e-9

    def repeat(self) -> np.ndarray:
        """The last action once more."""
        assert self._last is not None
        self.counts["repeated"] += 1
        self.status = "too soon"
        return self._last.copy()

    def release(self, action: np.ndarray) -> np.ndarray:
        """An action [act] of the learner as the robot may have it: finite, within the limits, not too fast.

        Raises:
            InputError: it is not finite.
        """
        action = np.asarray(action, float)
        if not np.isfinite(action).all():
            raise self._count("not finite", "the learner's action is not finite")
        inside = np.clip(action, self._action.low, self._action.high)
        self.counts["clipped"] += bool((inside != action).any())
        now = self._clock()
        if self._slew is not None and self._last is not None:
            most = self._slew * max(now - self._when, 0.0)
            slow = np.clip(inside, self._last - most, self._last + most)
            self.counts["slewed"] += bool((slow != inside).any())
            inside = slow
        self._last, self._when, self.status = inside, now, ""
        self.counts["acted"] += 1
        return inside.copy()

    def instead(self, error: InputError) -> np.ndarray:
        """What the robot gets in place of an action: that of rest, where it is known and configured.

        Raises:
            InputError: the error itself, where the robot's program is to decide.
        """
        self.status = str(error)
        if not self._holds:
            self.counts["refused"] += 1
            raise error
        assert self._rest is not None
        self.counts["held"] += 1
        kept = np.zeros(len(self._action)) if self._last is None else self._last
        held = np.where(np.isnan(self._rest), kept, self._rest)
        held = np.clip(held, self._action.low, self._action.high)
        self._last, self._when = held, self._clock()
        return held.copy()


class Names:
    """Puts named channels into the learner's order.

    A channel is given by its name, or several of one group, `arm.0 arm.1`, together under the group's, `arm`.
    """

    def __init__(self, channels: Channels) -> None:
        self._every = channels.names
        self._place = {name: i for i, name in enumerate(channels.names)}
        groups: dict[str, list[int]] = {}
        for i, name in enumerate(channels.names):
            for cut in (j for j, letter in enumerate(name) if letter == "."):
                groups.setdefault(name[:cut], []).append(i)
        self._groups = {name: places for name, places in groups.items() if name not in self._place}

    def of(self, place: int) -> str:
        return self._every[int(place)]

    def vector(self, given: Any, fault: Callable[[str, str], InputError]) -> np.ndarray:
        """[channel] float64 from numbers in order, or from a dict of named ones."""
        if isinstance(given, Mapping):
            return self._joined(given, (), fault)
        values = _numbers(given, fault)
        if values.shape != (len(self._every),):
            raise fault("width", f"it has the shape {values.shape}; {len(self._every)} numbers are needed")
        return values

    def table(self, given: Any, fault: Callable[[str, str], InputError]) -> np.ndarray:
        """[step, channel] float64, likewise."""
        if isinstance(given, Mapping):
            steps = max((len(np.atleast_1d(_numbers(v, fault))) for k, v in given.items() if self._known(k)), default=0)
            return self._joined(given, (steps,), fault)
        values = _numbers(given, fault)
        if values.ndim != 2 or values.shape[1] != len(self._every):
            raise fault("width", f"it has the shape {values.shape}; [step, {len(self._every)}] is needed")
        return values

    def _known(self, name: Any) -> bool:
        return name in self._place or name in self._groups

    def _joined(
        self, given: Mapping[Any, Any], leading: tuple[int, ...], fault: Callable[..., InputError]
    ) -> np.ndarray:
        values, filled = np.zeros((*leading, len(self._every))), np.zeros(len(self._every), bool)
        for name, one in given.items():
            places = [self._place[name]] if name in self._place else self._groups.get(name)
            if places is None:
                continue  # a robot measures more than a learner uses
            part = _numbers(one, fault)
            if part.size != math.prod(leading) * len(places) or part.shape[: len(leading)] != leading:
                raise fault("width", f"'{shown(name)}' has the shape {part.shape}; it needs {(*leading, len(places))}")
            values[..., places] = part.reshape(*leading, len(places))
            filled[places] = True
        if not filled.all():
            raise fault("missing channel", f"it lacks the channel '{self._every[int(np.argmin(filled))]}'")
        return values


def _numbers(given: Any, fault: Callable[[str, str], InputError]) -> np.ndarray:
    try:
        values = np.asarray(given)
    except (ValueError, TypeError, RecursionError):
        raise fault("not numbers", "it is not an array of numbers") from None
    if values.dtype.kind not in "fiub":
        raise fault("not numbers", f"it is not numbers but {values.dtype}")
    return values.astype(np.float64)
