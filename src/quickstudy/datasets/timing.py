"""The time stamps of recordings: their unit, the rate they tell, whether they are even, and resampling to a rate."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np

from quickstudy.datasets import angles
from quickstudy.datasets.episodes import FASTEST, About, Episode
from quickstudy.errors import QuickstudyError

_JITTER = 0.1
"""How far a time stamp may be off even ones, in steps, beside the rounding that it was written with."""

_GAP = 3
"""Steps, of the recording or of the rate that is asked for, whichever are longer, that nothing may be missing for."""

_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_LATEST = 1e11
"""Seconds since 1970 that no clock shows before the year 5000."""


@dataclass(frozen=True)
class Rate:
    """What time stamps tell.

    Attributes:
        value: steps a second.
        jitter: seconds that 95 of 100 steps are at most longer or shorter than that says.
    """

    value: float
    jitter: float


def seconds(stamps: np.ndarray, unit: str, where: str) -> np.ndarray:
    """Time stamps [step] of any numeric kind or of dates, as float64 seconds.

    Args:
        unit: 's', 'ms', 'us' or 'ns'; '' where nobody said, which is then read as seconds if these can be some.
        where: the file, for the error's sentence.

    Raises:
        QuickstudyError: stamps that are no numbers, or that cannot be seconds, or may well not be, and nobody said.
    """
    stamps = np.asarray(stamps)
    if stamps.dtype.kind == "M":
        return np.where(np.isnat(stamps), np.nan, stamps.astype("M8[ns]").astype(np.int64) / 1e9)
    if stamps.dtype.kind not in "iuf":
        raise QuickstudyError(f"{where}: time stamps must be numbers; got {stamps.dtype}.")
    if unit:
        return stamps.astype(float) / _UNITS[unit]
    times = stamps.astype(float)
    known = times[np.isfinite(times)]
    step = float(np.median(np.abs(np.diff(known)))) if len(known) > 1 else 0.0
    latest = float(np.abs(known).max(initial=0.0))
    if step >= 1 or latest > _LATEST:
        fit = [name for name, parts in _UNITS.items() if latest <= _LATEST * parts and step / parts < 1] or ["ns"]
        rate = f", {_UNITS[fit[0]] / step:.4g} steps a second in {fit[0]}" if step else ""
        raise QuickstudyError(
            f"{where}: time stamps that are {step:.6g} apart, at {latest:.12g} at the latest, may not be in seconds"
            f"{rate}: say their unit by --time-unit s, ms, us or ns."
        )
    return times


def rate_of(times: Iterable[np.ndarray], where: str) -> Rate | None:
    """The rate that most episodes have, however their stamps were rounded, and how far single steps are off it.

    Each stretch of an episode without a gap has a slope, by least squares; those that agree with the median slope, as
    well as their rounding lets them, are taken together. Of the rates that this leaves, the roundest is taken.

    Args:
        times: for each episode [step], seconds.
        where: the file, for the error's sentence.

    Returns:
        None where no episode has two steps.

    Raises:
        QuickstudyError: stamps that are not finite or stand still, or a rate that no robot has.
    """
    kept = [np.asarray(one, float) for one in times]
    kept = [one for one in kept if len(one) > 1]
    if not kept:
        return None
    steps = np.concatenate([np.diff(one) for one in kept])
    steps = steps[np.isfinite(steps)]
    usual = float(np.median(steps)) if len(steps) else 0.0
    if usual <= 0 or usual < 1 / FASTEST:
        raise QuickstudyError(
            f"{where}: half of the time stamps are {usual:g} s or less after the one before; stamps that rise, at most "
            f"{FASTEST:g} steps a second, are needed to tell the rate."
        )
    runs = [run for one in kept for run in _runs(one, usual)]
    lengths = np.array([len(run) - 1 for run in runs], float)
    fits = np.array([_slope(run) for run in runs])
    order = np.argsort(fits[:, 0])
    middle = fits[order[np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)], 0]
    agree = np.abs(fits[:, 0] - middle) <= fits[:, 1] + 1e-9 * middle
    weights = lengths[agree] * (lengths[agree] + 1) * (lengths[agree] + 2)  # the squares of the steps' numbers
    slope = float(fits[agree, 0] @ weights / weights.sum())
    rate = _roundest(1 / slope, float(fits[agree, 1].min()) / slope, _noise(kept, lengths[agree].max() * slope))
    return Rate(rate, float(np.quantile(np.abs(steps - 1 / rate), 0.95)))


def _runs(times: np.ndarray, usual: float) -> list[np.ndarray]:
    """The stretches [step] of an episode that have two steps or more, all finite, and neither gap nor return."""
    step = np.diff(times)
    cut = np.flatnonzero(~((step > 0) & (step < (_GAP - 0.5) * usual))) + 1
    return [run for run in np.split(times, cut) if len(run) > 1] or [np.array([0.0, usual])]


def _slope(times: np.ndarray) -> tuple[float, float]:
    """Seconds a step by least squares, and how far off that may be."""
    number = np.arange(len(times)) - (len(times) - 1) / 2
    slope = float(number @ (times - times.mean()) / (number @ number))
    off = times - times.mean() - slope * number
    return slope, 2 * (float(np.abs(off).max()) + resolution(times) / 2) / (len(times) - 1)


def _noise(times: list[np.ndarray], length: float) -> float:
    """The relative error of a rate that float64 itself leaves."""
    return 4 * float(np.spacing(max(np.abs(one[np.isfinite(one)]).max(initial=0.0) for one in times))) / length + 1e-9


def _roundest(rate: float, tolerance: float, noise: float) -> float:
    """The number with the fewest digits within a relative tolerance of `rate`; itself where it is round already."""
    for digits in range(4):
        if abs(round(rate, digits) - rate) <= noise * rate < 0.02 * 10.0**-digits:
            return round(rate, digits)
    for digits in range(-1, 6):
        if abs((near := round(rate, digits)) - rate) <= tolerance * rate and near > 0:
            return near
    return round(rate, 6)


def resolution(times: np.ndarray) -> float:
    """The last decimal, in seconds, that stamps [step] were written with; 0 where there are more than six."""
    known = np.asarray(times, float)[np.isfinite(times)]
    for digits in range(7):
        scaled = known * 10.0**digits
        if (np.abs(scaled - scaled.round()) <= 1e-6 + 2 * np.spacing(np.abs(scaled))).all():
            return float(10.0**-digits)
    return 0.0


_CHECKED: ContextVar[bool] = ContextVar("_CHECKED", default=True)


@contextmanager
def unchecked() -> Iterator[None]:
    """In here data sets are read with the stamps that they have, steady or not: for those who look at these."""
    before = _CHECKED.set(False)
    try:
        yield
    finally:
        _CHECKED.reset(before)


def check_steady(times: np.ndarray, rate: float, where: str, first: int) -> None:
    """Raises QuickstudyError unless an episode's time stamps [step], seconds, are `rate` even steps a second.

    Each may be off by a tenth of a step, and by half of the last decimal that they were written with.

    Args:
        where: file and kind of place, such as 'row', for the error's sentence; `first` is that of the first step.
    """
    if not _CHECKED.get():
        return
    _check_finite(times, where, first)
    off = times - times[0] - np.arange(len(times)) / rate
    rounded = resolution(times)
    parts = 1 / (rate * rounded) if rounded else 0.0
    if parts <= 1 or abs(parts - round(parts)) < 1e-6:
        rounded = 0.0  # rounding moves no even steps that are whole multiples of the last decimal
    allowed = 2 * _JITTER / rate + rounded + 4 * np.spacing(np.abs(times).max())
    bad = np.flatnonzero(np.maximum.accumulate(off) - np.minimum.accumulate(off) > allowed)
    if len(bad):
        at = int(bad[0])
        stamp, even = _apart(times[at], times[0] + at / rate)
        raise QuickstudyError(
            f"{where} {first + at}: time stamp {stamp} s where {rate:g} steps a second, the frame rate of the data "
            f"set, give {even} s; all episodes need one frame rate, which --rate {rate:g} brings uneven ones to."
        )
    check_rising(times, where, first)


def check_rising(times: np.ndarray, where: str, first: int) -> None:
    """Raises QuickstudyError unless time stamps [step], seconds, are finite and rise; see `check_steady`."""
    _check_finite(times, where, first)
    bad = np.flatnonzero(np.diff(times) <= 0)
    if len(bad):
        at = int(bad[0]) + 1
        if times[at] == times[at - 1]:
            raise QuickstudyError(
                f"{where} {first + at}: time stamps must rise; this one and the one before are both {times[at]:.15g} s."
            )
        stamp, before = _apart(times[at], times[at - 1])
        raise QuickstudyError(
            f"{where} {first + at}: time stamps must rise; this one is {stamp} s and the one before {before} s."
        )


def _check_finite(times: np.ndarray, where: str, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise QuickstudyError(
            f"{where} {first + bad[0]}: the time stamp is missing or not finite; every step needs one."
        )


def _apart(*stamps: float) -> list[str]:
    """Two stamps with as many decimals as tell them apart, and not many more."""
    decimals = int(np.clip(2 - np.floor(np.log10(abs(stamps[1] - stamps[0]))), 3, 9))
    return [f"{stamp:.{decimals}f}".rstrip("0").rstrip(".") for stamp in stamps]


def resampled(episode: Episode, times: np.ndarray, rate: float, about: About | None = None) -> Episode:
    """An episode at `rate` even steps a second, from its first stamp to its last.

    Observations and actions are interpolated in straight lines, in float64; angles that wrap and quaternions the short
    way round, and given as they were written; a channel with two values, such as a gripper's, keeps its last one.
    Rewards keep their sum, success counts where any step since the one before succeeded, and of images the last is
    taken. Nothing is smoothed first: what is faster than half the rate is not told apart.

    Args:
        times: [step], seconds.
        about: names and units of the channels, where known.

    Raises:
        QuickstudyError: stamps that do not fit the steps, do not rise, or leave a gap.
    """
    times, about = np.asarray(times, float), about or About()
    if times.shape != (len(episode),):
        raise QuickstudyError(f"{episode.where}: it has {len(times)} time stamps for {len(episode)} steps.")
    check_rising(times, f"{episode.where}, step", 0)
    if len(times) < 2:
        return replace(episode, times=times)
    longest = _GAP * max(float(np.median(np.diff(times))), 1 / rate)
    gap = np.flatnonzero(np.diff(times) > longest)
    if len(gap):
        begin, end = _apart(times[gap[0]], times[gap[0] + 1])
        raise QuickstudyError(
            f"{episode.where}: nothing was recorded between {begin} and {end} s; a gap of more than {longest:.3g} s is "
            "not filled: cut the episode there."
        )
    count = int((times[-1] - times[0]) * rate * (1 + 1e-9) + 1e-3) + 1
    new = np.minimum(times[0] + np.arange(count) / rate, times[-1])
    last = np.searchsorted(times, new + 1e-6 * (times[-1] - times[0]) / len(times), side="right") - 1
    ends = np.append(last[:-1], len(times) - 1)
    rewards = success = None
    if episode.rewards is not None:
        total = np.interp(new, times, np.cumsum(np.asarray(episode.rewards, float)))
        total[-1] = np.asarray(episode.rewards, float).sum()
        rewards = np.diff(total, prepend=0.0)
    if episode.success is not None:
        met = np.concatenate([[0], np.cumsum(episode.success)])
        before = np.concatenate([[0], ends[:-1] + 1])
        success = (met[ends + 1] > met[before]) | np.asarray(episode.success, bool)[ends]
    return replace(
        episode,
        observations=_between(episode.observations, times, new, last, about.observations, about.observation_units),
        actions=_between(episode.actions, times, new, last, about.actions, about.action_units),
        rewards=rewards,
        success=success,
        images={name: frames[last] for name, frames in episode.images.items()},
        times=new,
    )


def _between(
    values: np.ndarray,
    times: np.ndarray,
    new: np.ndarray,
    last: np.ndarray,
    names: tuple[str, ...],
    units: tuple[str, ...],
) -> np.ndarray:
    values = np.asarray(values, float)
    found = angles.find([values], names, units)
    whole = found.continuous(values)
    made = np.stack([np.interp(new, times, channel) for channel in whole.T], 1)
    for i, channel in enumerate(values.T):
        if len(np.unique(channel)) <= 2:
            made[:, i] = channel[last]
    return found.as_written(made, values[last])
