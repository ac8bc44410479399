"""What is drawn of a world between its steps."""

import time
from dataclasses import dataclass

import numpy as np

from quickstudy.studio.arena import Arena


@dataclass(frozen=True)
class Frame:
    """What is to be drawn: of which arena, places [2, body, 3], quaternions [2, body, 4], and whether the second robot
    is there."""

    arena: Arena
    places: np.ndarray
    turns: np.ndarray
    beside: bool


@dataclass
class Motion:
    """The last states of the world, between which pictures are drawn; each takes `lasts` seconds to the next."""

    states: list[tuple[np.ndarray, np.ndarray]]
    at: float = 0.0
    lasts: float = 1.0

    def between(self, now: float) -> tuple[np.ndarray, np.ndarray]:
        passed = float(np.clip((now - self.at) / self.lasts, 0.0, len(self.states) - 1))
        first = min(int(passed), max(0, len(self.states) - 2))
        before, after = self.states[first], self.states[min(first + 1, len(self.states) - 1)]
        part = passed - first
        places = (1 - part) * before[0] + part * after[0]
        sign = np.sign((before[1] * after[1]).sum(-1, keepdims=True))
        turns = (1 - part) * before[1] + part * np.where(sign == 0, 1.0, sign) * after[1]
        return places, turns / np.maximum(np.linalg.norm(turns, axis=-1, keepdims=True), 1e-9)


def still(arena: Arena) -> Motion:
    """A world that rests."""
    return Motion([arena.poses()], time.perf_counter())
