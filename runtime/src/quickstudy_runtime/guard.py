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

_MOST_SLEW, _MOST_SECONDS = 1e100, 1e6
"""So that no product of a slew and a time is infinite."""


@dataclass(frozen=True)
class Guard:
    """How strict a skill is with what it is given, and with what it gives.

    Attributes:
        on_bad: what an observation that cannot be used gives: 'refuse' raises InputError, 'hold' gives the action that
            keeps the robot where it is. By default 'hold' where the bundle knows that action, and 'refuse' elsewhere.
        rest: [action], the action that keeps the robot where it is, in place of the bundle's; NaN for a channel that
            keeps its last value.
        margin: how far outside the range met in training an observation may be, in widths of that range.
        max_age: the oldest time stamp, in seconds, that an observation may have, and how far it may lie in the future.
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
            if value is None and name != "margin":
                continue
            number = _number(value)
            if number is None or not number >= 0 or (name == "max_rate" and number == 0):
                least = "above 0" if name == "max_rate" else "of at least 0"
                raise InputError(f"{name} must be a number {least}; got {shown(value)}.")
        if self.slew is not None and not (_row(self.slew, "slew") >= 0).all():
            raise InputError(f"slew must be at least 0 for every channel; got {shown(self.slew)}.")


class Gate:
    """Checks the observations and actions of one robot, and counts what it did.

    Args:
        observation, action: the channels.
        guard: how strict it is.
        clock: seconds, for the age of observations: the clock that their time stamps are of.
        timer: seconds that never jump, for the rate of actions and their slew.

    Attributes:
        counts: 'acted', 'held' and 'refused'; 'clipped', 'slewed' and 'repeated' actions; and each reason to hold or
            refuse: 'not finite', 'width', 'missing channel', 'range', 'stale', 'out of order', 'not numbers', 'reward',
            'learner' (it gave no finite action).
        status: what the last call did: '' where it acted, else why not.
    """

    def __init__(
        self,
        observation: Channels,
        action: Channels,
        guard: Guard | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.guard, self._clock, self._timer, self._action = guard or Guard(), clock, timer, action
        self.counts: Counter[str] = Counter()
        self.status = ""
        self._names = Names(observation)
        with np.errstate(invalid="ignore", over="ignore"):
            width = observation.high - observation.low
            spare = self.guard.margin * width
            # A channel that never moved in training says nothing of how far it may move.
            known = np.isfinite(width) & (width > 0) & np.isfinite(spare)
            self._low = np.where(known, observation.low - spare, -math.inf)
            self._high = np.where(known, observation.high + spare, math.inf)
        rest = action.rest if self.guard.rest is None else _row(self.guard.rest, "rest")
        if rest is not None and rest.shape != (len(action),):
            raise InputError(f"rest must have {len(action)} numbers, one for each action channel; got {rest.shape}.")
        if rest is not None and np.isinf(rest).any():
            raise InputError("rest must be finite, or nan for a channel that keeps its last value.")
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
                self._slew = np.minimum(np.broadcast_to(_row(self.guard.slew, "slew"), len(action)), _MOST_SLEW)
            except ValueError:
                raise InputError(f"slew must be one number or {len(action)}; got {shown(self.guard.slew)}.") from None
        self.restart()

    def restart(self, last: Any = None) -> None:
        """A new episode: time stamps and the last action are forgotten; counts stay.

        Args:
            last: [act], what the robot was told before, which a channel without a rest keeps until the first action.

        Raises:
            InputError: it is no action.
        """
        kept = None
        if last is not None:
            kept = _row(last, "last")
            if kept.shape != (len(self._action),) or not np.isfinite(kept).all():
                raise InputError(f"last must be {len(self._action)} finite numbers; got {shown(last)}.")
            kept = np.clip(kept, self._action.low, self._action.high)
        self._stamp, self._sequence, self._when = -math.inf, -1, -math.inf
        self._last: np.ndarray | None = kept

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
        moment = None
        if stamp is not None:
            moment = _number(stamp)
            if moment is None or not math.isfinite(moment):
                raise self._count("stale", f"the time stamp is {shown(stamp)}")
            if moment <= self._stamp:
                raise self._count("out of order", f"the time stamp {moment:.16g} s is not after {self._stamp:.16g} s")
            age = self._clock() - moment
            if self.guard.max_age is not None and abs(age) > self.guard.max_age:
                when = "old" if age > 0 else "in the future"
                raise self._count(
                    "stale", f"the observation is {abs(age):.3f} s {when}; {self.guard.max_age:g} s is allowed"
                )
        if sequence is not None:
            if isinstance(sequence, bool) or not isinstance(sequence, int | np.integer) or sequence <= self._sequence:
                raise self._count("out of order", f"number {shown(sequence)} came after number {self._sequence}")
            self._sequence = int(sequence)
        if moment is not None:
            self._stamp = moment
        return values

    def _count(self, reason: str, sentence: str) -> InputError:
        self.counts[reason] += 1
        return InputError(f"The observation is not used: {sentence}.")

    def fault(self, reason: str, sentence: str) -> InputError:
        """What is wrong apart from the observation, counted."""
        self.counts[reason] += 1
        return InputError(sentence)

    def too_soon(self) -> bool:
        """Whether less time passed since the last action than `max_rate` allows."""
        if self.guard.max_rate is None or self._last is None:
            return False
        return (self._timer() - self._when) * self.guard.max_rate < 1 - 1e-9

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
            raise self.fault("learner", "The learner's action is not finite; it is not used.")
        inside = np.clip(action, self._action.low, self._action.high)
        self.counts["clipped"] += bool((inside != action).any())
        now = self._timer()
        if self._slew is not None and self._last is not None:
            most = self._slew * min(max(now - self._when, 0.0), _MOST_SECONDS)
            slow = np.clip(inside, self._last - most, self._last + most)
            self.counts["slewed"] += bool((slow != inside).any())
            inside = slow
        self._last, self._when, self.status = inside, now, ""
        self.counts["acted"] += 1
        return inside.copy()

    def instead(self, error: InputError) -> np.ndarray:
        """What the robot gets in place of an action: that of rest, where it is known and configured.

        Raises:
            InputError: the error itself, where the robot's program is to decide, or where a channel is to keep its last
            value and has none yet.
        """
        self.status = str(error)
        rest, last = self._rest, self._last
        if self._holds and rest is not None and np.isnan(rest).any():
            rest = None if last is None else np.where(np.isnan(rest), last, rest)
        if not self._holds or rest is None:
            self.counts["refused"] += 1
            raise error
        self.counts["held"] += 1
        self._last, self._when = np.clip(rest, self._action.low, self._action.high), self._timer()
        return self._last.copy()


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
    except Exception:  # whatever an object that is no array says when it is asked for one
        raise fault("not numbers", "it is not an array of numbers") from None
    if values.dtype.kind not in "fiub":
        raise fault("not numbers", f"it is not numbers but {shown(values.dtype.name)}")
    with np.errstate(over="ignore"):
        return values.astype(np.float64)


def _number(value: Any) -> float | None:
    """A plain number as float; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _row(given: Any, name: str) -> np.ndarray:
    """Numbers for channels, float64; a channel's None is NaN."""
    try:
        return np.array(given, float)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{name} must be numbers; got {shown(given)}.") from None
