"""Sinusoid regression (Finn, Abbeel, Levine 2017, section 5.1)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.families.classic.drawing import plot
from quickstudy.settings import Changes
from quickstudy.task import Policy, Task, TaskFamily

if TYPE_CHECKING:
    from quickstudy.families.classic.fresh import FreshSinusoids


class Sinusoid(TaskFamily):
    """y = A sin(x - phase), amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5].

    A demonstration is one point of the curve, so K shots are K points; an episode is one query point, and its metric
    the squared error there.
    """

    name = "sinusoid"
    sizes: Mapping[str, int] = {"train": 10**9, "validation": 100_000, "test": 100_000}
    protocol = "amplitude and phase are hidden, a demonstration is one point of the curve"
    metric = "mse"
    higher_is_better = False
    observation_size, action_size, hidden_size, horizon = 1, 1, 2, 1
    shots = (5,)
    # The paper's settings but for a second inner step that counts as much as the first: with one alone, a few
    # five-point tasks diverge when they are given more steps at test.
    method_settings: Mapping[str, Changes] = {
        "demonstrations": {
            "network": {"hidden": (40, 40), "context": 0},
            "training": {"steps": 70_000, "meta_batch": 25, "shots": 5, "queries": 10, "validate_every": 5000},
            "data": {"validation_tasks": 600, "validation_episodes": 100},
        },
        **{
            method: {"algorithm": {"inner_steps": 2, "inner_rate": 0.01, "every_step": True}}
            for method in ("maml", "fomaml", "anil", "meta-sgd")
        },
        "reptile": {"algorithm": {"inner_rate": 0.01}, "training": {"steps": 30_000}},
        "meta-lstm": {"algorithm": {"initial_rate": 0.05}, "training": {"steps": 15_000}},
        **{
            method: {"network": {"embedding": 40}, "training": {"steps": 15_000}}
            for method in ("mann", "siamese", "matching", "matching-convex", "hypernet")
        },
    }

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
        return plot(x, task.parameters["amplitude"] * np.sin(x - task.parameters["phase"]), (-5.2, 5.2))

    def fresh(self) -> "FreshSinusoids":
        from quickstudy.families.classic.fresh import FreshSinusoids

        return FreshSinusoids()

    @staticmethod
    def _points(task: Task, count: int, seed: int, purpose: int) -> tuple[np.ndarray, np.ndarray]:
        x = task.generator(seed, purpose).uniform(-5.0, 5.0, count)
        return x, task.parameters["amplitude"] * np.sin(x - task.parameters["phase"])
