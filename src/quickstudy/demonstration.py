"""A demonstration: what was seen and what was done about it, step by step; checked when made, kept as .npz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quickstudy.errors import QuickstudyError, within
from quickstudy.io import files

_KEPT = 1e-3
"""Of how much a channel changes within a demonstration, what may be lost by rounding."""


@dataclass(frozen=True)
class Demonstration:
    """One recorded solution of a task.

    In a regression family a demonstration is a single step: one point and its value.

    Attributes:
        observations: [step, obs], float32; float64 where that would lose what changes, as in positions on Earth.
        actions: [step, act], likewise; what the expert wanted, free of the noise that it may have been disturbed by.

    Raises:
        QuickstudyError: no step, arrays that are not [step, width] or differ in length, or a value that is not finite,
            or too large for float32.
    """

    observations: np.ndarray
    actions: np.ndarray

    def __post_init__(self) -> None:
        for name in ("observations", "actions"):
            array = np.asarray(getattr(self, name))
            if array.ndim != 2 or array.dtype.kind not in "fiu":
                raise QuickstudyError(
                    f"A demonstration's {name} must be numbers in the form [step, width]; got shape {array.shape} of "
                    f"{array.dtype}."
                )
            with np.errstate(over="ignore"):
                single = array.astype(np.float32)
            bad = np.argwhere(~np.isfinite(single))
            if len(bad):
                step, column = bad[0]
                large = ", which is more than float32 holds" if np.isfinite(array[step, column]) else ""
                raise QuickstudyError(
                    f"A demonstration's {name} must be finite; step {step}, column {column} is {array[step, column]}"
                    f"{large}."
                )
            object.__setattr__(self, name, array.astype(np.float64) if _loses(array, single) else single)
        if len(self.observations) != len(self.actions):
            raise QuickstudyError(
                f"A demonstration needs one action for each observation; got {len(self.observations)} observations and "
                f"{len(self.actions)} actions."
            )
        if len(self) == 0:
            raise QuickstudyError("A demonstration needs at least one step; got none.")

    def __len__(self) -> int:
        return len(self.observations)

    def save(self, path: Path) -> None:
        """Writes an .npz with the arrays `observations` and `actions`; the file appears whole or not at all."""
        with files.partial(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, observations=self.observations, actions=self.actions)

    @classmethod
    def load(cls, path: Path) -> "Demonstration":
        """Reads what `save` wrote, or any .npz with the two arrays.

        Raises:
            QuickstudyError: no such file, not an .npz, an array missing, or not a demonstration.
        """
        arrays = files.load_arrays(path, "observations", "actions")
        with within(f"'{path}'"):
            return cls(arrays["observations"], arrays["actions"])


def _loses(array: np.ndarray, single: np.ndarray) -> bool:
    """Whether float32 is off by more than a thousandth of how much some channel changes, at the least of 1e-4."""
    if array.dtype == np.float32 or not array.size:
        return False
    off = np.abs(array - single.astype(np.float64)).max(0)
    return bool((off > _KEPT * np.maximum(array.std(0, dtype=np.float64), 1e-4)).any())
