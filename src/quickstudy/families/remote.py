"""A family whose tasks are on another machine: enough of it to adapt a learner that came from there."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.task import Policy, Task, TaskFamily

_INTERFACE = (
    "observation_size", "action_size", "hidden_size", "horizon", "image", "labelled", "metric", "higher_is_better",
    "rate", "protocol",
)  # fmt: skip


def interface(family: TaskFamily) -> dict[str, Any]:
    """What a learner must know of its family, as plain data."""
    return {name: getattr(family, name) for name in _INTERFACE}


class RemoteFamily(TaskFamily):
    """See the module's text.

    Args:
        name: of the family.
        known: what `interface` made of it there.
    """

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        missing = [key for key in _INTERFACE if key not in known]
        if missing:
            raise QuickstudyError(f"What is known of the family '{name}' lacks {missing[0]}.")
        self.name, self.sizes = name, {}
        for key in _INTERFACE:
            setattr(self, key, tuple(known[key]) if key == "image" and known[key] else known[key])

    def _refuse(self) -> NoReturn:
        raise QuickstudyError(
            f"The tasks of '{self.name}' are not on this machine: its learner can adapt to demonstrations, but not be "
            "evaluated here."
        )

    @property
    def test_splits(self) -> list[str]:
        self._refuse()

    def tasks(self, split: str, count: int, first: int = 0) -> list[Task]:
        self._refuse()

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        self._refuse()

    def hidden(self, task: Task) -> np.ndarray:
        self._refuse()

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        self._refuse()

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        self._refuse()
