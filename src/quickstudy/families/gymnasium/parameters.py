"""What the tasks of a user's environment are drawn from: ranges, bands, values or a function; splits share none."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from quickstudy.errors import QuickstudyError, unknown

Values = tuple[Any, ...] | Sequence[Any]
"""A range (low, high), half-open; a tuple of such ranges; or a list to choose from, of numbers, texts or points."""
Sampler = Callable[[np.random.Generator], Mapping[str, Any]]
Draw = Mapping[str, Values] | Sampler

_LOOKS = 200
"""Tasks of each split that are compared where a function draws them."""


class Space:
    """What each split draws the arguments of an environment from.

    Attributes:
        splits: their names.
        names: of the arguments.
        width: of `encode`.
    """

    def __init__(self, parameters: Draw, splits: Mapping[str, Draw] | None) -> None:
        """
        Args:
            parameters: what varies, for all splits.
            splits: for each split what differs from `parameters`; None where all splits draw from the same ranges.

        Raises:
            QuickstudyError: nothing varies, an unknown argument, or two splits that share tasks.
        """
        names = ["train", "validation", "test"] if splits is None else list(splits)
        missing = [split for split in ("train", "validation") if split not in names]
        if missing or len(names) < 3:
            raise QuickstudyError(
                f"A family needs the splits 'train', 'validation' and at least one for tests; got {', '.join(names)}."
            )
        self.splits = names
        self._draws = {split: _for_split(parameters, (splits or {}).get(split, {}), split) for split in names}
        looks = {split: [self.sample(split, np.random.default_rng([7, i])) for i in range(_LOOKS)] for split in names}
        self.names = list(looks["train"][0])
        if not self.names:
            raise QuickstudyError("At least one argument of the environment must vary; got none.")
        for split, drawn in looks.items():
            for one in drawn:
                if set(one) != set(self.names):
                    raise QuickstudyError(
                        f"Every task needs the arguments {self.names}; one of split '{split}' has {list(one)}."
                    )
        for pair in itertools.combinations(names, 2):
            self._check_apart(*pair, looks)
        self._code = {
            name: _Code([one[name] for drawn in looks.values() for one in drawn], name) for name in self.names
        }
        for name in self.names:
            for draws in self._draws.values():
                if isinstance(draws, Mapping):
                    self._code[name].include(draws[name])
        self.width = sum(code.width for code in self._code.values())

    def sample(self, split: str, rng: np.random.Generator) -> dict[str, Any]:
        draws = self._draws[split]
        if isinstance(draws, Mapping):
            return {name: draw(values, rng) for name, values in draws.items()}
        return {name: plain(value) for name, value in draws(rng).items()}

    def encode(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """Numbers within about -1..1, texts as one-hot, [width], float32."""
        return np.concatenate([self._code[name](parameters[name]) for name in self.names]).astype("f4")

    def _check_apart(self, one: str, other: str, looks: Mapping[str, list[dict[str, Any]]]) -> None:
        a, b = self._draws[one], self._draws[other]
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            shared = all(overlap(a[name], b[name]) for name in a)
            # Equal ranges give no task twice, but only where one of them is continuous.
            if not shared or (a == b and any(is_continuous(values) for values in a.values())):
                return
            raise QuickstudyError(
                f"The splits '{one}' and '{other}' share tasks: no argument keeps them apart. Give one of "
                f"{', '.join(a)} ranges or values in each that do not overlap."
            )
        seen = {json.dumps(task, sort_keys=True) for task in looks[one]}
        both = [task for task in looks[other] if json.dumps(task, sort_keys=True) in seen]
        if both:
            raise QuickstudyError(f"The splits '{one}' and '{other}' share tasks, {both[0]} for one.")


class _Code:
    """One argument as numbers for an oracle."""

    def __init__(self, drawn: Sequence[Any], name: str) -> None:
        self.texts = sorted({value for value in drawn if isinstance(value, str)})
        numbers = [np.ravel(value) for value in drawn if not isinstance(value, str)]
        if self.texts and numbers:
            raise QuickstudyError(f"The argument '{name}' must be all texts or all numbers.")
        if self.texts:
            self.width = len(self.texts)
            return
        try:
            table = np.array(numbers, dtype="f8")
        except (TypeError, ValueError) as error:
            raise QuickstudyError(f"The argument '{name}' must be texts or numbers; got {drawn[0]!r}.") from error
        self.low, self.high, self.width = table.min(0), table.max(0), table.shape[1]

    def include(self, values: Values) -> None:
        """Widens the scale to all of a range, however few tasks were looked at."""
        if self.texts:
            self.texts = sorted({*self.texts, *values})
            self.width = len(self.texts)
        else:
            reach = np.ravel(np.asarray(values, "f8")) if is_continuous(values) else np.asarray(values, "f8")
            self.low, self.high = np.minimum(self.low, reach.min(0)), np.maximum(self.high, reach.max(0))

    def __call__(self, value: Any) -> np.ndarray:
        if self.texts:
            return np.array([value == text for text in self.texts], "f8")
        half = np.maximum((self.high - self.low) / 2, 1e-9)
        return (np.ravel(value) - (self.low + self.high) / 2) / half


def draw(values: Values, rng: np.random.Generator) -> Any:
    if not is_continuous(values):
        return plain(values[int(rng.integers(len(values)))])
    parts = bands(values)
    lengths = np.array([high - low for low, high in parts])
    low, high = parts[int(rng.choice(len(parts), p=lengths / lengths.sum()))]
    return float(rng.uniform(low, high))


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def is_continuous(values: Values) -> bool:
    """Whether values are a range or several (a tuple), not values to choose from (a list)."""
    return isinstance(values, tuple)


def bands(values: Values) -> list[tuple[float, float]]:
    """The ranges of a continuous argument."""
    several = all(isinstance(part, tuple) for part in values)
    return [tuple(part) for part in (values if several else [values])]


def overlap(one: Values, other: Values) -> bool:
    """Whether an argument can have a value of both."""
    if is_continuous(one) and is_continuous(other):
        return any(a[0] < b[1] and b[0] < a[1] for a in bands(one) for b in bands(other))
    if is_continuous(one) != is_continuous(other):
        parts, values = (bands(one), other) if is_continuous(one) else (bands(other), one)
        return any(
            low <= value < high for low, high in parts for value in values if isinstance(value, int | float | np.number)
        )
    return any(plain(value) in [plain(v) for v in other] for value in one)


def _for_split(parameters: Draw, own: Draw, split: str) -> Draw:
    """`parameters` with what a split has of its own, checked."""
    if callable(own):
        return own
    if callable(parameters):
        if own:
            raise QuickstudyError(f"Where a function draws the tasks, split '{split}' must be a function too.")
        return parameters
    for name in own:
        if name not in parameters:
            raise unknown(f"argument in split '{split}'", name, parameters)
    merged = {**parameters, **own}
    for name, values in merged.items():
        _check(values, f"'{name}' in split '{split}'")
    return merged


def _check(values: Values, what: str) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) == 0:
        raise QuickstudyError(
            f"{what} must be a range (low, high), a tuple of ranges or a list of values; got {values!r}."
        )
    if not is_continuous(values):
        if any(isinstance(value, tuple) and len(value) == 2 for value in values):
            raise QuickstudyError(
                f"{what} has the list {list(values)!r:.80}, which may be points or ranges: write points as lists, "
                "[[x, y], ...], and ranges as a tuple of ranges, ((low, high), ...)."
            )
        if any(not isinstance(value, str) and not _finite(value) for value in values):
            raise QuickstudyError(f"{what} must have finite numbers, points of such, or texts; got {values!r:.80}.")
        return
    for band in bands(values):
        if len(band) != 2 or not all(isinstance(end, Real) and np.isfinite(end) for end in band) or band[0] >= band[1]:
            raise QuickstudyError(f"A range is (low, high) with low below high; {what} has {band!r}.")
    if any(one[1] > other[0] for one, other in pairwise(sorted(bands(values)))):
        raise QuickstudyError(
            f"{what} has the ranges {values!r:.80}, which overlap; points to choose from are lists: [[x, y], ...]."
        )


def _finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(np.asarray(value, "f8")).all())
    except (TypeError, ValueError):  # no numbers: what is said of those knows all values
        return True
