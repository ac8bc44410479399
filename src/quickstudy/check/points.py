"""What every contract is made of: points, each of which is looked at on its own."""

import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import progress


class BrokenError(Exception):
    """A point of a contract is broken; its text says what was found and what to do."""


class SkippedError(Exception):
    """A point does not apply to this family or method; its text says why."""


@dataclass(frozen=True)
class Point:
    """What came of one point.

    Attributes:
        name: what the contract asks for.
        passed: None where it does not apply.
        said: what was found, or what to do.
    """

    name: str
    passed: bool | None
    said: str


def go_through(title: str, points: Mapping[str, Callable[[Any], str]], subject: Any) -> list[Point]:
    """Looks at every point; one that fails, however it does, does not keep the others from being looked at.

    Args:
        points: each returns what it found, or raises `BrokenError` or `SkippedError`.
        subject: what all of them look at.
    """
    found = []
    with progress(title, len(points)) as advance:
        for name, look in points.items():
            try:
                found.append(Point(name, True, look(subject)))
            except SkippedError as reason:
                found.append(Point(name, None, str(reason)))
            except (BrokenError, QuickstudyError) as reason:
                found.append(Point(name, False, str(reason)))
            except Exception as error:  # a user's code may fail in any way, and the report has to go on
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"in {place.name}, {os.path.basename(place.filename)}, line {place.lineno}"
                found.append(Point(name, False, f"{type(error).__name__}: {error} ({where})"))
            advance()
    return found
