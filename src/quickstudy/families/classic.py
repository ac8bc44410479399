"""The two classic families for checking the mathematics: sinusoid regression and 2D point navigation.

Both are from Finn, Abbeel, Levine 2017 (sections 5.1 and 5.3); here the second is taught by demonstration.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from quickstudy.data import Batch, SupportQuery
from quickstudy.demonstration import Demonstration
from quickstudy.task import Policy, Task, TaskFamily


class Sinusoid(TaskFamily):
    """y = A sin(x - phase), amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5] (Finn et al. 2017, section 5.1).

    A demonstration is one point of the curve, so K shots are K points; an episode is one query point, and its metric
    the squared error there.
    """

    name = "sinusoid"
    sizes: Mapping[str, int] = {"train": 10**9, "validation": 100_000, "test": 100_000}
    protocol = "amplitude and phase are hidden, a demonstration is one point of the curve"
    metric = "mse"
    higher_is_better = False
    observation_size, action_size, hidden_size, horizon = 1, 1, 2, 1

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"amplitude": rng.uniform(0.1, 5.0), "phase": rng.uniform(0.0, np.pi)}

    def hidden(self, task: Task) -> np.ndarray:
        return np.array([task.parameters["amplitude"], task.parameters["phase"]], "f4")

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        points = [self._points(task, count, seed, 0) for task in tasks]
        return [[Demonstration(x[None, None], y[None, None]) for x, y in zip(*pair, strict=True)] for pair in points]

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        points = [self._points(task, episodes, seed, 1) for task in tasks]
        x, y = (np.stack(values) for values in zip(*points, strict=True))
        predicted = policy(x[..., None].astype("f4"))[..., 0]
        return {"mse": (predicted - y) ** 2}

    def caption(self, task: Task) -> str:
        return "amplitude {amplitude:.1f}, phase {phase:.1f}".format(**task.parameters)

    def snapshot(self, task: Task) -> np.ndarray:
        x = np.linspace(-5.0, 5.0, 200)
        return _plot(x, task.parameters["amplitude"] * np.sin(x - task.parameters["phase"]), (-5.2, 5.2), None)

    def fresh(self) -> "FreshSinusoids":
        return FreshSinusoids()

    @staticmethod
    def _points(task: Task, count: int, seed: int, purpose: int) -> tuple[np.ndarray, np.ndarray]:
        x = task.generator(seed, purpose).uniform(-5.0, 5.0, count)
        return x, task.parameters["amplitude"] * np.sin(x - task.parameters["phase"])


class FreshSinusoids:
    """Meta-batches of sinusoids that were never seen before, as the paper trains: a `quickstudy.data.Source`."""

    batch = None

    def __init__(self) -> None:
        self._last = torch.zeros(0, 2)

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        drawn = torch.rand(tasks, 2, generator=rng)
        self._last = torch.stack([0.1 + 4.9 * drawn[:, 0], torch.pi * drawn[:, 1]], 1)
        x = torch.rand(tasks, shots + queries, 1, 1, generator=rng) * 10.0 - 5.0
        amplitude, phase = self._last[:, :, None, None, None].unbind(1)
        y = amplitude * torch.sin(x - phase)
        return SupportQuery(self._batch(x[:, :shots], y[:, :shots]), self._batch(x[:, shots:], y[:, shots:]))

    def names(self) -> list[str]:
        return [f"sinusoid with amplitude {a:.3f}, phase {p:.3f}" for a, p in self._last.tolist()]

    def _batch(self, x: Tensor, y: Tensor) -> Batch:
        return Batch(x, y, torch.ones(x.shape[:-1]), self._last)


class PointEnv(gymnasium.Env):
    """A point that has to reach a goal it does not see, in the square [-0.5, 0.5]^2 (Finn et al. 2017, section 5.3).

    Observation: its position [2]. Action: its displacement [2], clipped to 0.1 a step. Reward: minus the squared
    distance to the goal. The start is drawn anew in every episode (the paper starts at the origin).
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012, Gymnasium declares it so

    def __init__(self, goal: Sequence[float] = (0.3, 0.3), horizon: int = 20) -> None:
        self.goal, self.horizon = np.asarray(goal, "f8"), horizon
        reach = 0.5 + 0.1 * horizon
        self.observation_space = spaces.Box(-reach, reach, (2,), np.float32)
        self.action_space = spaces.Box(-0.1, 0.1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._position, self._steps = self.np_random.uniform(-0.5, 0.5, 2), 0
        return self._position.astype("f4"), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._position, self._steps = move(self._position, action), self._steps + 1
        distance = float(np.linalg.norm(self._position - self.goal))
        info = {"success": distance < PointNavigation.tolerance}
        return self._position.astype("f4"), -(distance**2), False, self._steps >= self.horizon, info


def move(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The dynamics of the point: positions and actions [..., 2]."""
    return position + np.clip(action, -0.1, 0.1)


class PointNavigation(TaskFamily):
    """Reach a hidden goal in the unit square, having seen one demonstration from another start.

    Success: at the last step the point is within 0.05 of the goal.
    """

    name = "point-navigation"
    sizes: Mapping[str, int] = {"train": 100_000, "validation": 10_000, "test": 10_000}
    protocol = "the goal is hidden, the start is drawn anew, success is to end within 0.05 of the goal"
    metric = "success"
    observation_size, action_size, hidden_size, horizon = 2, 2, 2, 20
    tolerance: ClassVar[float] = 0.05

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"goal": rng.uniform(-0.5, 0.5, 2).tolist()}

    def hidden(self, task: Task) -> np.ndarray:
        return np.asarray(task.parameters["goal"], "f4")

    def make(self, task: Task) -> gymnasium.Env:
        return PointEnv(task.parameters["goal"], self.horizon)

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """The expert walks straight to the goal; it is pushed about a little, and what it wanted is recorded."""
        positions, goals = self._starts(tasks, count, seed, 0), self._goals(tasks)
        push = np.stack([t.generator(seed, 2).normal(0.0, 0.02, (self.horizon, count, 2)) for t in tasks], 1)
        seen, done = [], []
        for step in range(self.horizon):
            wanted = np.clip(goals - positions, -0.1, 0.1)
            seen.append(positions)
            done.append(wanted)
            positions = move(positions, wanted + push[step])
        x, y = np.stack(seen, 2), np.stack(done, 2)
        return [[Demonstration(x[i, j], y[i, j]) for j in range(count)] for i in range(len(tasks))]

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        positions, goals = self._starts(tasks, episodes, seed, 1), self._goals(tasks)
        total = np.zeros(positions.shape[:2])
        for _ in range(self.horizon):
            positions = move(positions, policy(positions.astype("f4")))
            total -= np.square(positions - goals).sum(-1)
        distance = np.linalg.norm(positions - goals, axis=-1)
        return {"success": (distance < self.tolerance).astype("f8"), "return": total, "distance": distance}

    def caption(self, task: Task) -> str:
        x, y = task.parameters["goal"]
        return f"goal {x:.2f}, {y:.2f}"

    def snapshot(self, task: Task) -> np.ndarray:
        """The goal and the expert's way to it."""
        way = self.demonstrate([task], 1, seed=0)[0][0].observations
        return _plot(way[:, 0], way[:, 1], (-0.6, 0.6), task.parameters["goal"])

    @staticmethod
    def _starts(tasks: Sequence[Task], count: int, seed: int, purpose: int) -> np.ndarray:
        return np.stack([task.generator(seed, purpose).uniform(-0.5, 0.5, (count, 2)) for task in tasks])

    @staticmethod
    def _goals(tasks: Sequence[Task]) -> np.ndarray:
        return np.array([task.parameters["goal"] for task in tasks])[:, None]


def _plot(x: np.ndarray, y: np.ndarray, limits: tuple[float, float], goal: Sequence[float] | None) -> np.ndarray:
    """A small plot of a curve, and of a goal, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.0, 1.5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlim=limits, ylim=limits)
    axes.plot(x, y, marker="." if goal is not None else "")
    if goal is not None:
        axes.plot(*goal, "*", markersize=12)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
