"""The spaces of a user's environment as learners see them: named numbers in, actions of about -1 to 1 out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from quickstudy.errors import QuickstudyError

_ENDLESS = 1e8
"""A bound beyond this is none."""
_PICTURE_SIDE = 8


@dataclass(frozen=True)
class Scale:
    """Actions as learners see them: a side with bounds is scaled to -1..1, one without stays as it is.

    Attributes:
        middle, half, reach: [act]; `reach` is what a scaled action is clipped to.
        low, high: [act], the environment's own bounds.
        space: the environment's own.
    """

    middle: np.ndarray
    half: np.ndarray
    reach: np.ndarray
    low: np.ndarray
    high: np.ndarray
    space: spaces.Box

    @classmethod
    def of(cls, space: gymnasium.Space[Any]) -> "Scale":
        """The scale of an environment's actions.

        Raises:
            QuickstudyError: they are not a box of numbers, or its bounds are not such.
        """
        if not isinstance(space, spaces.Box):
            raise QuickstudyError(
                f"A family needs environments whose actions are a Box of numbers; got {_short(space)}: "
                "gymnasium.wrappers.TransformAction(env, function, Box(...)) makes one of it."
            )
        low, high = _bounds(space, "actions")
        bounded = (low > -_ENDLESS) & (high < _ENDLESS)
        begin, end = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        reach = np.where(bounded, 1.0, np.inf).astype("f4")
        return cls((begin + end) / 2, (end - begin) / 2, reach, low, high, space)

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """The environment's action as learners see it, [act]; a side of no width is 0."""
        apart = np.asarray(action, "f8").ravel() - self.middle
        return np.divide(apart, self.half, out=np.zeros_like(apart), where=self.half > 0)

    def undo(self, action: np.ndarray) -> np.ndarray:
        """A learner's action as the environment wants it: within its bounds, of its type and shape."""
        clipped = np.clip(np.asarray(action, "f8"), -self.reach, self.reach)
        inside = np.clip(self.middle + self.half * clipped, self.low, self.high)
        if self.space.dtype.kind in "iub":
            inside = np.clip(np.round(inside), np.ceil(self.low), np.floor(self.high))
        return inside.astype(self.space.dtype).reshape(self.space.shape)


class Parts:
    """The numbers of an observation, side by side: those of a box, or of all boxes of a dict by key.

    Of a goal environment (Gymnasium-Robotics) the desired goal is left out where it is what a task is about.

    Args:
        space: of the environment's observations.
        without: keys that are left out.

    Attributes:
        names: of the numbers where they come by key; none for a box.
        low, high: [obs].

    Raises:
        QuickstudyError: what is observed is no numbers, or is a picture.
    """

    def __init__(self, space: gymnasium.Space[Any], without: tuple[str, ...] = ()) -> None:
        self._leaves = [leaf for leaf in _leaves(space, ()) if not without or leaf[0][:1] != without]
        if not self._leaves:
            raise QuickstudyError(f"A family needs environments that observe numbers; got {_short(space)}.")
        ends = [
            _bounds(box, f"observation '{_called(path)}'" if path else "observations") for path, box in self._leaves
        ]
        self.low, self.high = (np.concatenate([pair[i] for pair in ends]) for i in (0, 1))
        self.names: tuple[str, ...] = ()
        if self._leaves[0][0]:
            self.names = tuple(
                _called(path) + (f".{i}" if np.prod(box.shape) > 1 else "")
                for path, box in self._leaves for i in range(int(np.prod(box.shape)))
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.low)

    def __call__(self, observation: Any) -> np.ndarray:
        """An observation as learners see it, [obs], float32."""
        parts = []
        for path, _ in self._leaves:
            part = observation
            for key in path:
                part = part[key]
            parts.append(np.asarray(part, "f4").ravel())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def given_goal(env: gymnasium.Env) -> tuple[str, ...]:
    """('desired_goal',) where an environment observes it and it is the same in every episode, and so is the task's."""
    space = env.observation_space
    if not isinstance(space, spaces.Dict) or not {"achieved_goal", "desired_goal"} <= space.spaces.keys():
        return ()
    one, other = (np.asarray(env.reset(seed=seed)[0]["desired_goal"]) for seed in (0, 1))
    return ("desired_goal",) if np.array_equal(one, other) else ()


def _leaves(space: gymnasium.Space[Any], path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], spaces.Box]]:
    inner: Mapping[Any, gymnasium.Space[Any]] | None = None
    if isinstance(space, spaces.Dict):
        inner = space.spaces
    elif isinstance(space, spaces.Tuple):
        inner = dict(enumerate(space.spaces))
    if inner is not None:
        return [leaf for key, one in inner.items() for leaf in _leaves(one, (*path, key))]
    what = f"the observation '{_called(path)}'" if path else "what is observed"
    if not isinstance(space, spaces.Box):
        raise QuickstudyError(
            f"A family needs environments whose observations are numbers; {what} is {_short(space)}: "
            "gymnasium.wrappers.FlattenObservation or TransformObservation make numbers of it."
        )
    sides = sorted(length for length in space.shape if length > 1)
    if len(sides) > 2 or (len(sides) == 2 and (space.dtype == np.uint8 or sides[0] >= _PICTURE_SIDE)):
        advice = "gymnasium.wrappers.FilterObservation leaves it out" if path else "use the state that it is drawn from"
        raise QuickstudyError(
            f"Robots do not learn from images here, and {what}, of shape {space.shape}, looks like one: {advice}."
        )
    return [(path, space)]


def _bounds(box: spaces.Box, what: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = box.low.ravel().astype("f8"), box.high.ravel().astype("f8")
    if not (low <= high).all():
        bad = int(np.argmin(low <= high))
        raise QuickstudyError(f"The {what} have the bounds {low[bad]:g} to {high[bad]:g} in place {bad}.")
    return low, high


def _called(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _short(space: gymnasium.Space[Any]) -> str:
    text = str(space)
    return text if len(text) <= 90 else f"{text[:90]}..."
