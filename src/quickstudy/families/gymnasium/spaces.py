"""The spaces of a user's environment as learners see them: named numbers in, actions of about -1 to 1 out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from quickstudy.datasets.selection import is_picture
from quickstudy.errors import QuickstudyError

_ENDLESS = 1e8
"""A bound beyond this is none."""


@dataclass(frozen=True)
class Scale:
    """Actions as learners see them: what has two bounds is scaled to -1..1, and what has one is counted from it.

    Attributes:
        middle, half: [act], the environment's action for a learner's 0, and how much a learner's 1 is on top of it.
        reach: [act], what a scaled action is clipped to.
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
        begins, ends = low > -_ENDLESS, high < _ENDLESS
        begin, end = np.where(begins, low, np.where(ends, high, 0.0)), np.where(ends, high, np.where(begins, low, 0.0))
        bounded = begins & ends
        reach = np.where(bounded, 1.0, np.inf).astype("f4")
        return cls((begin + end) / 2, np.where(bounded, (end - begin) / 2, 1.0), reach, low, high, space)

    @property
    def box(self) -> spaces.Box:
        """The space of a learner's actions."""
        bounded = np.isfinite(self.reach)
        return _float_box(
            np.where(bounded, -1.0, self.low - self.middle), np.where(bounded, 1.0, self.high - self.middle)
        )

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
        self._leaves = [(path, _box(path, leaf)) for path, leaf in _leaves(space, ()) if path[:1] != (without or None)]
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
        with np.errstate(over="ignore"):  # what is beyond float32 is not finite, and named as that
            return np.concatenate([_at(observation, path) for path, _ in self._leaves])

    @property
    def box(self) -> spaces.Box:
        """The space of what learners see."""
        return _float_box(self.low, self.high)


def _at(observation: Any, path: tuple[Any, ...]) -> np.ndarray:
    for key in path:
        observation = observation[key]
    return np.asarray(observation).astype("f4").ravel()


def given_goal(env: gymnasium.Env) -> tuple[str, ...]:
    """('desired_goal',) where an environment observes it and it is the same in every episode, and so is the task's."""
    space = env.observation_space
    if not isinstance(space, spaces.Dict) or "desired_goal" not in space.spaces:
        return ()
    one, other = (np.asarray(env.reset(seed=seed)[0]["desired_goal"]) for seed in (0, 1))
    return ("desired_goal",) if np.array_equal(one, other) else ()


def shown_by_wrapper(env: gymnasium.Env) -> bool:
    """Whether FlattenObservation shows the goal that `given_goal` would leave out.

    Raises:
        QuickstudyError: it hides a picture.
    """
    shown = False
    while isinstance(env, gymnasium.Wrapper):
        wrapper, env = env, env.env
        if isinstance(wrapper, gymnasium.wrappers.FlattenObservation):
            for path, space in _leaves(env.observation_space, ()):
                _check_picture(path, space)
            shown = shown or bool(given_goal(env))
    return shown


def _leaves(space: gymnasium.Space[Any], path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], gymnasium.Space[Any]]]:
    """The spaces that a Dict or Tuple holds, however deep, with their keys."""
    inner: Mapping[Any, gymnasium.Space[Any]] | None = None
    if isinstance(space, spaces.Dict):
        inner = space.spaces
    elif isinstance(space, spaces.Tuple):
        inner = dict(enumerate(space.spaces))
    if inner is None:
        return [(path, space)]
    return [leaf for key, one in inner.items() for leaf in _leaves(one, (*path, key))]


def _box(path: tuple[Any, ...], space: gymnasium.Space[Any]) -> spaces.Box:
    """The space, if it is one of numbers that are no picture."""
    if not isinstance(space, spaces.Box):
        advice = "FlattenObservation" if not path else "FilterObservation leaves it out, TransformObservation"
        raise QuickstudyError(
            f"A family needs environments whose observations are numbers; {_what(path)} is {_short(space)}: "
            f"gymnasium.wrappers.{advice} makes numbers of it."
        )
    _check_picture(path, space)
    return space


def _check_picture(path: tuple[Any, ...], space: gymnasium.Space[Any]) -> None:
    if isinstance(space, spaces.Box) and is_picture(_called(path), space.shape, space.dtype):
        advice = "gymnasium.wrappers.FilterObservation leaves it out" if path else "use the state that it is drawn from"
        said = f"{_what(path)}, of shape {space.shape}, looks like one"
        raise QuickstudyError(f"Robots do not learn from images here, and {said}: {advice}.")


def _what(path: tuple[Any, ...]) -> str:
    return f"the observation '{_called(path)}'" if path else "what is observed"


def _bounds(box: spaces.Box, what: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = box.low.ravel().astype("f8"), box.high.ravel().astype("f8")
    if not (low <= high).all():
        bad = int(np.argmin(low <= high))
        raise QuickstudyError(f"The {what} have the bounds {low[bad]:g} to {high[bad]:g} in place {bad}.")
    return low, high


def _float_box(low: np.ndarray, high: np.ndarray) -> spaces.Box:
    with np.errstate(over="ignore"):  # a bound beyond float32 is none
        return spaces.Box(low.astype("f4"), high.astype("f4"), dtype=np.float32)


def _called(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _short(space: gymnasium.Space[Any]) -> str:
    text = str(space)
    return text if len(text) <= 90 else f"{text[:90]}..."
