"""The 50 tasks of Meta-World and its official splits, as plain data.

The numbers are those of `SawyerXYZEnv._random_reset_space` in metaworld 3.1.1; a test compares them.
"""

from dataclasses import dataclass

import numpy as np

from quickstudy.errors import unknown


@dataclass(frozen=True)
class Draw:
    """Where an episode's random vector comes from.

    A vector of six numbers is a position of the object and one of the goal (of the box, the hoop, the shelf that the
    goal is in); one of three is the position of the object alone, which the goal moves with.

    Attributes:
        low, high: corners of the box that vectors are drawn from.
        apart: metres in the plane that object and goal must be apart, or the package's reset never ends on a
            vector that it was given.
        from_point: a point in the plane that `apart` is counted from, where it is not the vector's second half.
        idle: the vector's second half moves nothing: the goal stays or moves with the object.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    apart: float = 0.0
    from_point: tuple[float, float] | None = None
    idle: bool = False

    @property
    def has_goal(self) -> bool:
        """Whether there is a goal that may be held while the object moves."""
        return len(self.low) == 6 and not self.idle

    def accepts(self, vector: np.ndarray) -> bool:
        if not self.apart:
            return True
        goal = vector[3:5] if self.from_point is None else np.array(self.from_point)
        return bool(np.linalg.norm(vector[:2] - goal) >= self.apart)

    def relative(self, goal: np.ndarray) -> np.ndarray:
        """A goal [3] relative to the box that goals are drawn from, -1..1; 0 along an axis that is as good as fixed."""
        low, high = np.array(self.low[3:]), np.array(self.high[3:])
        scaled = 2.0 * (goal - low) / np.maximum(high - low, 1e-9) - 1.0
        return np.where(high - low < 0.01, 0.0, scaled)

    def vector(self, rng: np.random.Generator, goal: np.ndarray | None = None) -> np.ndarray:
        """A vector that the package accepts; with `goal` [3] as its second half, if given."""
        while True:
            drawn = rng.uniform(self.low, self.high)
            if goal is not None:
                drawn[3:] = goal
            if self.accepts(drawn):
                return drawn


TASKS: dict[str, Draw] = {
    "assembly-v3": Draw((0.0, 0.6, 0.02, -0.1, 0.75, 0.1), (0.0, 0.6, 0.02, 0.1, 0.85, 0.1), apart=0.1),
    "basketball-v3": Draw((-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0), (0.1, 0.7, 0.0301, 0.1, 0.9000001, 0.0), apart=0.15),
    "bin-picking-v3": Draw(
        (-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001), (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001), idle=True
    ),
    "box-close-v3": Draw((-0.05, 0.5, 0.02, -0.1, 0.7, 0.133), (0.05, 0.55, 0.02, 0.1, 0.8, 0.133), apart=0.25),
    "button-press-topdown-v3": Draw((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-topdown-wall-v3": Draw((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-v3": Draw((-0.1, 0.85, 0.115), (0.1, 0.9, 0.115)),
    "button-press-wall-v3": Draw((-0.05, 0.85, 0.1149), (0.05, 0.9, 0.1151)),
    "coffee-button-v3": Draw((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "coffee-pull-v3": Draw((-0.05, 0.7, -0.001, -0.1, 0.55, -0.001), (0.05, 0.75, 0.001, 0.1, 0.65, 0.001), apart=0.15),
    "coffee-push-v3": Draw((-0.1, 0.55, -0.001, -0.05, 0.7, -0.001), (0.1, 0.65, 0.001, 0.05, 0.75, 0.001), apart=0.15),
    "dial-turn-v3": Draw((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "disassemble-v3": Draw(
        (0.0, 0.6, 0.025, -0.1, 0.6, 0.1699), (0.1, 0.75, 0.02501, 0.1, 0.75, 0.1701), apart=0.1, idle=True
    ),
    "door-close-v3": Draw((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-lock-v3": Draw((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "door-open-v3": Draw((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-unlock-v3": Draw((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "drawer-close-v3": Draw((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "drawer-open-v3": Draw((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "faucet-close-v3": Draw((-0.1, 0.8, 0.0), (0.1, 0.85, 0.0)),
    "faucet-open-v3": Draw((-0.05, 0.8, 0.0), (0.05, 0.85, 0.0)),
    "hammer-v3": Draw((-0.1, 0.4, 0.0), (0.1, 0.5, 0.0)),
    "hand-insert-v3": Draw((-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201), (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199), apart=0.15),
    "handle-press-side-v3": Draw((-0.35, 0.65, -0.001), (-0.25, 0.75, 0.001)),
    "handle-press-v3": Draw((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "handle-pull-side-v3": Draw((-0.35, 0.65, 0.0), (-0.25, 0.75, 0.0)),
    "handle-pull-v3": Draw((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "lever-pull-v3": Draw((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "peg-insert-side-v3": Draw((0.0, 0.5, 0.02, -0.35, 0.4, -0.001), (0.2, 0.7, 0.02, -0.25, 0.7, 0.001), apart=0.1),
    "peg-unplug-side-v3": Draw((-0.25, 0.6, -0.001), (-0.15, 0.8, 0.001)),
    "pick-out-of-hole-v3": Draw((0.0, 0.75, 0.02, -0.1, 0.5, 0.15), (0.0, 0.75, 0.02, 0.1, 0.6, 0.3), apart=0.15),
    "pick-place-v3": Draw((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), apart=0.15),
    "pick-place-wall-v3": Draw((-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), apart=0.15),
    "plate-slide-back-side-v3": Draw((-0.25, 0.6, 0.0, -0.05, 0.6, 0.015), (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)),
    "plate-slide-back-v3": Draw((0.0, 0.85, 0.0, -0.1, 0.6, 0.015), (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)),
    "plate-slide-side-v3": Draw((0.0, 0.6, 0.0, -0.3, 0.54, 0.0), (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)),
    "plate-slide-v3": Draw((0.0, 0.6, 0.0, -0.1, 0.85, 0.0), (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)),
    "push-back-v3": Draw((-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199), (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201), apart=0.15),
    "push-v3": Draw((-0.1, 0.6, 0.02, -0.1, 0.8, 0.01), (0.1, 0.7, 0.02, 0.1, 0.9, 0.02), apart=0.15),
    "push-wall-v3": Draw((-0.05, 0.6, 0.015, -0.05, 0.85, 0.01), (0.05, 0.65, 0.015, 0.05, 0.9, 0.02), apart=0.15),
    "reach-v3": Draw((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), apart=0.15),
    "reach-wall-v3": Draw((-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), apart=0.15),
    "shelf-place-v3": Draw((-0.1, 0.5, 0.019, -0.1, 0.8, 0.299), (0.1, 0.6, 0.021, 0.1, 0.9, 0.301), apart=0.1),
    "soccer-v3": Draw((-0.1, 0.6, 0.03, -0.1, 0.8, 0.0), (0.1, 0.7, 0.03, 0.1, 0.9, 0.0), apart=0.15),
    "stick-pull-v3": Draw((-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199), (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201), apart=0.1),
    "stick-push-v3": Draw((-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319), (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321), apart=0.1),
    "sweep-into-v3": Draw(
        (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199),
        (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201),
        apart=0.15,
        from_point=(0.0, 0.84),
        idle=True,
    ),
    "sweep-v3": Draw((-0.1, 0.6, 0.02), (0.1, 0.7, 0.02)),
    "window-close-v3": Draw((0.0, 0.75, 0.2), (0.0, 0.9, 0.2)),
    "window-open-v3": Draw((-0.1, 0.7, 0.16), (0.1, 0.9, 0.16)),
}

ML10: dict[str, tuple[str, ...]] = {
    "train": (
        "reach-v3",
        "push-v3",
        "pick-place-v3",
        "door-open-v3",
        "drawer-close-v3",
        "button-press-topdown-v3",
        "peg-insert-side-v3",
        "window-open-v3",
        "sweep-v3",
        "basketball-v3",
    ),
    # In neither split of Meta-World's own, which has no validation: to choose settings by.
    "validation": ("window-close-v3", "push-back-v3", "button-press-v3", "plate-slide-v3", "handle-press-v3"),
    "test": ("drawer-open-v3", "door-close-v3", "shelf-place-v3", "sweep-into-v3", "lever-pull-v3"),
}
_ML45_TEST = ("bin-picking-v3", "box-close-v3", "hand-insert-v3", "door-lock-v3", "door-unlock-v3")
ML45: dict[str, tuple[str, ...]] = {
    "train": tuple(name for name in TASKS if name not in _ML45_TEST),
    "test": _ML45_TEST,
}


def official_name(task: str) -> str:
    """Meta-World's own name of a task, 'push-v3', also for 'push'.

    Raises:
        QuickstudyError: there is no such task.
    """
    if (name := f"{short_name(task)}-v3") not in TASKS:
        raise unknown("Meta-World task", short_name(task), [short_name(other) for other in TASKS])
    return name


def short_name(task: str) -> str:
    return task.removesuffix("-v3")
