"""A bound on wall time that is kept by not beginning what would not fit."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from quickstudy.errors import QuickstudyError

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|min|m|h|d)\s*")


class OutOfTime(Exception):  # noqa: N818 (a turn of events, no error)
    """What was asked for does not fit into what is left of the budget."""


class Budget:
    """Wall time from now on; without `seconds` there is no bound."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds, self._start = seconds, time.monotonic()
        self._longest: dict[str, float] = {}

    def left(self) -> float:
        return float("inf") if self.seconds is None else self.seconds - (time.monotonic() - self._start)

    def over(self) -> bool:
        return self.left() <= 0

    @contextmanager
    def part(self, kind: str) -> Iterator[None]:
        """Something that cannot be stopped half-way; it is only begun if the longest of its kind so far would fit.

        Raises:
            OutOfTime: it would not.
        """
        if self.left() <= self._longest.get(kind, 0.0):
            raise OutOfTime
        started = time.monotonic()
        yield
        self._longest[kind] = max(self._longest.get(kind, 0.0), time.monotonic() - started)


def seconds_of(text: str) -> float:
    """A duration such as '90s', '30min', '1h 30min' or '2d', in seconds.

    Raises:
        QuickstudyError: it is no such duration.
    """
    text = text.strip().lower()
    parts = _PART.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or _PART.sub("", text) or seconds <= 0:
        raise QuickstudyError(f"A budget is a duration such as 90s, 30min, 1h30min or 2d; got '{text}'.")
    return seconds
