"""Good data sets, and what people spoil in theirs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from quickstudy import datasets
from quickstudy.datasets import About, Episode

ABOUT = About(20.0, ("joint_1", "joint_2", "x"), ("joint_1", "joint_2"))


def reaching(tasks: int = 12, episodes: int = 6, steps: int = 50, seed: int = 0) -> list[Episode]:
    """A point goes to the goal of its task, from a new start each time."""
    rng = np.random.default_rng(seed)
    made = []
    for task in range(tasks):
        goal = rng.uniform(-1, 1, 2)
        for number in range(episodes):
            state, states, actions = rng.uniform(-1, 1, 2), [], []
            for _ in range(steps):
                action = 0.08 * (goal - state) + 0.004 * rng.normal(size=2)
                states.append([*state, state.sum()])
                actions.append(action)
                state = state + action
            made.append(Episode(f"reach {task}", np.array(states), np.array(actions), where=f"episode {number}"))
    return made


def noise(tasks: int = 8, episodes: int = 5, steps: int = 40) -> list[Episode]:
    """Actions that have nothing to do with anything."""
    rng = np.random.default_rng(1)
    return [
        Episode(f"task {task}", rng.normal(size=(steps, 3)), rng.normal(size=(steps, 2)))
        for task in range(tasks) for _ in range(episodes)
    ]  # fmt: skip


def write(path: Path, episodes: list[Episode], about: About = ABOUT) -> Path:
    datasets.save(path, episodes, about)
    return path


def changed(episodes: list[Episode], number: int, **arrays: np.ndarray) -> list[Episode]:
    """The same but for the arrays of one episode."""
    return [replace(e, **arrays) if i == number else e for i, e in enumerate(episodes)]
