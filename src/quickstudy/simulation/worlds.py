"""Many MuJoCo worlds stepped together: one thread pool over persistent `MjData` (MuJoCo releases the GIL).

A world is a model and its data. Worlds may differ in their models as long as the fields that are read and written
have the same shape in all of them. Nothing here draws a random number, and no world sees another, so results do not
depend on the number of threads.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np

from quickstudy.errors import QuickstudyError

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""Of a MuJoCo world: everything that the next step depends on, warm start included."""
_BLOCK = 4
"""Worlds that a thread takes at a time: contact-rich worlds cost more, small blocks balance the threads."""


class Worlds:
    """Worlds that live for many episodes.

    After `step` and `each`, every derived quantity (positions, sensors, contact forces) belongs to the
    same instant as the state. `mj_step` alone leaves them one substep behind, which is a trap: a world that was
    just reset would be seen as it was before.

    Attributes:
        models, data: one of each for every world; a model may serve several worlds.
        readings: field name -> array [world, ...], refreshed in place for the worlds that moved.
    """

    def __init__(
        self, models: Sequence[mujoco.MjModel], reads: Sequence[str] = ("qpos", "qvel"), threads: int | None = None
    ):
        """
        Args:
            models: one for each world.
            reads: fields of `MjData` to read after every step.
            threads: how many worlds are stepped at the same time; by default as many as OMP_NUM_THREADS
                says, or one for each core.

        Raises:
            QuickstudyError: no model, no thread, or a field that is unknown or differs in shape between the worlds.
        """
        if not models:
            raise QuickstudyError("Worlds need at least one model; got none.")
        threads = _usual_threads() if threads is None else threads
        if threads < 1:
            raise QuickstudyError(f"Worlds need at least one thread; got {threads}.")
        self.models = list(models)
        self.data = [mujoco.MjData(model) for model in self.models]
        self.readings = {name: self._stack(name) for name in reads}
        self._views = [[getattr(data, name) for name in reads] for data in self.data]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 and len(self.models) > 1 else None

    def __len__(self) -> int:
        return len(self.models)

    def step(
        self, writes: Mapping[str, np.ndarray], substeps: int = 1, chosen: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Writes fields, takes `substeps` MuJoCo steps and reads, in the worlds `chosen` (indices; all by default).

        Args:
            writes: field of `MjData` -> values [world, ...] for ALL worlds, for example 'ctrl' and 'mocap_pos'.

        Returns:
            `readings`; worlds that were not chosen keep their old ones.

        Raises:
            QuickstudyError: a value has the wrong shape, or a world's simulation became unstable.
        """
        names = list(writes)
        values = [np.asarray(writes[name]) for name in names]
        for name, value in zip(names, values, strict=True):
            expected = (len(self), *getattr(self.data[0], name).shape)
            if value.shape != expected:
                raise QuickstudyError(f"Worlds need '{name}' in the form {expected}; got {value.shape}.")

        def work(index: int) -> None:
            model, data = self.models[index], self.data[index]
            for name, value in zip(names, values, strict=True):
                getattr(data, name)[:] = value[index]
            mujoco.mj_step(model, data, substeps)
            self._refresh(index)

        self._for_each(work, chosen)
        self._check(chosen)
        return self.readings

    def each(
        self, function: Callable[[int, mujoco.MjModel, mujoco.MjData], None], chosen: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Calls `function(index, model, data)` for each chosen world in the pool, to reset it, say; then reads."""

        def work(index: int) -> None:
            function(index, self.models[index], self.data[index])
            self._refresh(index)

        self._for_each(work, chosen)
        return self.readings

    def close(self) -> None:
        """Ends the threads; the worlds stay readable."""
        if self._pool is not None:
            self._pool.shutdown()

    def _stack(self, name: str) -> np.ndarray:
        views: list[Any] = [getattr(data, name, None) for data in self.data]
        if not isinstance(views[0], np.ndarray):
            raise QuickstudyError(f"MuJoCo's data have no array '{name}' to read.")
        shapes = sorted({view.shape for view in views})
        if len(shapes) > 1:
            raise QuickstudyError(f"'{name}' cannot be read from all worlds together: its shapes are {shapes}.")
        return np.stack(views)

    def _refresh(self, index: int) -> None:
        """Brings the derived quantities to the present and reads, without disturbing the next step."""
        model, data = self.models[index], self.data[index]
        warm_start = data.qacc_warmstart.copy()  # mj_forward replaces it, and the next step would differ
        mujoco.mj_forward(model, data)
        data.qacc_warmstart[:] = warm_start
        for reading, view in zip(self.readings.values(), self._views[index], strict=True):
            reading[index] = view

    def _indices(self, chosen: np.ndarray | None) -> list[int]:
        return list(range(len(self))) if chosen is None else [int(index) for index in chosen]

    def _for_each(self, work: Callable[[int], None], chosen: np.ndarray | None) -> None:
        indices = self._indices(chosen)
        if self._pool is None:
            for index in indices:
                work(index)
            return

        def block(first: int) -> None:
            for index in indices[first : first + _BLOCK]:
                work(index)

        # list() waits for all and raises what a worker raised.
        list(self._pool.map(block, range(0, len(indices), _BLOCK)))

    def _check(self, chosen: np.ndarray | None) -> None:
        where = slice(None) if chosen is None else chosen
        for name, reading in self.readings.items():
            values = reading[where]
            if not np.isfinite(values).all():
                bad = np.argwhere(~np.isfinite(values))[0, 0]
                world = self._indices(chosen)[bad]
                raise QuickstudyError(f"The simulation of world {world} became unstable: its {name} are not finite.")


def _usual_threads() -> int:
    """What OMP_NUM_THREADS says, which Ray sets to a worker's own cores; or all cores."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(said)) if said.isdecimal() else os.cpu_count() or 1
