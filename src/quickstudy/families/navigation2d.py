"""2D point navigation by trial (Finn, Abbeel, Levine 2017, section 5.3): reach a goal that only the reward tells of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quickstudy.families.base import FamilyRecord, SimulatedFamily
from quickstudy.settings import Changes
from quickstudy.simulation.vector_env import SimulatedVectorEnv, StepResult, VectorEnv
from quickstudy.task import Task

STEP = 0.1
"""The longest displacement of a step along each axis."""
REACHED = 0.01
"""An episode ends where both coordinates are this close to the goal."""
RADIUS = 0.2
"""How near the goal the sparse reward begins."""


class PointVectorEnv(SimulatedVectorEnv):
    """Points that start at the origin; all of them are one array."""

    action_size = 2

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int, horizon: int, sparse: bool) -> None:
        super().__init__(tasks, episodes_per_task, horizon)
        self._sparse = sparse
        self._goals = np.array([task.parameters["goal"] for task in tasks])[:, None]
        self._positions = np.zeros((*self.shape, 2))
        self._pushes: dict[int, tuple[np.random.Generator, float]] = {}

    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        self._positions.reshape(-1, 2)[chosen] = 0.0
        self._pushes = {i: (rng, disturbance) for i, rng in zip(chosen, generators, strict=True)} if disturbance else {}

    def _observe(self) -> np.ndarray:
        return self._positions.copy()

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        pushed = np.zeros((self.size, 2))
        for i, (rng, strength) in self._pushes.items():
            pushed[i] = strength * rng.normal(size=2)
        moved = STEP * np.clip(actions + pushed.reshape(self._positions.shape), -1.0, 1.0)
        self._positions = self._positions + active[..., None] * moved
        away = self._positions - self._goals
        distance, reached = np.linalg.norm(away, axis=-1), (np.abs(away) < REACHED).all(-1)
        if self._sparse:
            return self._after_step(active, np.maximum(0.0, 1.0 - distance / RADIUS), distance < RADIUS / 4)
        return self._after_step(active, -distance, reached, terminated=reached)

    def expert_action(self) -> np.ndarray:
        """Straight to the goal."""
        return np.clip((self._goals - self._positions) / STEP, -1.0, 1.0)


# The reward is dense, so what a step is worth shows in the next few; returns over whole trials are noise beside it.
_BY_MEMORY: Changes = {
    "training": {"steps": 400, "episodes_per_task": 4},
    "algorithm": {"minibatches": 4, "discount": 0.95, "gae_lambda": 0.9},
}


class Navigation2D(SimulatedFamily):
    """The goal is uniform in [-0.5, 0.5]^2, the start the origin, an action a displacement of at most 0.1 an axis.

    The reward is minus the distance to the goal: the paper's text says its square, but its figures (-40.4 before
    adaptation) are those of its code, which takes the distance; a point that stays at the origin gets -38.3 on average
    by the distance and -16.7 by the square. An episode ends within 0.01 of the goal or is truncated after 100 steps.
    """

    name = "navigation2d"
    sizes: Mapping[str, int] = {"train": 10**9, "validation": 100_000, "test": 100_000}
    protocol = "the goal is hidden, the reward is minus the distance to it, an episode has at most 100 steps"
    metric = "return"
    observation_size, action_size, hidden_size, horizon = 2, 2, 2, 100
    observation_unit = 0.25
    default_method = "maml-trpo"
    fixed_start = True
    method_settings: Mapping[str, Changes] = {
        "rl2": _BY_MEMORY,
        "rl2-mann": _BY_MEMORY,
        "pearl": {
            "training": {"steps": 1000, "validate_every": 100},
            "algorithm": {"discount": 0.9, "divergence": 1e-3},
        },
    }
    sparse = False

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"goal": rng.uniform(-0.5, 0.5, 2).tolist()}

    def hidden(self, task: Task) -> np.ndarray:
        return np.asarray(task.parameters["goal"], "f4")

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        return PointVectorEnv(tasks, episodes_per_task, self.horizon, self.sparse)

    def caption(self, task: Task) -> str:
        x, y = task.parameters["goal"]
        return f"goal {x:.2f}, {y:.2f}"


class SparseNavigation2D(Navigation2D):
    """The same square with a reward only near the goal: 1 at the goal, falling to 0 at 0.2 from it.

    An episode always has 100 steps: one that ended at the goal would be punished for reaching it.
    """

    name = "navigation2d-sparse"
    protocol = "the goal is hidden, the reward is 0 but within 0.2 of it, every episode has 100 steps"
    method_settings: Mapping[str, Changes] = {}
    sparse = True


FAMILIES = (
    FamilyRecord("navigation2d", "reach a hidden goal in a square, by reward (Finn et al. 2017)", Navigation2D),
    FamilyRecord("navigation2d-sparse", "the same with a reward only near the goal", SparseNavigation2D),
)
