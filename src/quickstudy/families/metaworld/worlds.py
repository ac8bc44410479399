"""Many worlds of any mixture of Meta-World's tasks, stepped together."""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.families.metaworld import articulated, pushing, tool_use
from quickstudy.families.metaworld.catalogue import TASKS, official_name
from quickstudy.families.metaworld.common import Common, rows_of
from quickstudy.families.metaworld.official import Official
from quickstudy.families.metaworld.port import Port, Tool

PORTS: dict[str, type[Port]] = {
    "reach-v3": pushing.Reach,
    "push-v3": pushing.Push,
    "pick-place-v3": pushing.PickPlace,
    "sweep-v3": pushing.Sweep,
    "sweep-into-v3": pushing.SweepInto,
    "basketball-v3": pushing.Basketball,
    "shelf-place-v3": pushing.ShelfPlace,
    "door-open-v3": articulated.DoorOpen,
    "door-close-v3": articulated.DoorClose,
    "drawer-open-v3": articulated.DrawerOpen,
    "drawer-close-v3": articulated.DrawerClose,
    "window-open-v3": articulated.WindowOpen,
    "button-press-topdown-v3": articulated.ButtonPressTopdown,
    "lever-pull-v3": articulated.LeverPull,
    "hammer-v3": tool_use.Hammer,
    "stick-push-v3": tool_use.StickPush,
    "stick-pull-v3": tool_use.StickPull,
    "peg-insert-side-v3": tool_use.PegInsertSide,
    "assembly-v3": tool_use.Assembly,
}
"""The tasks that are written for many worlds at once."""

OBSERVATION, ACTION = 39, 4


class MetaWorlds:
    """Worlds that live for many episodes, each of one task.

    Nothing here draws a random number, and no world sees another, so results do not depend on company or threads.

    Attributes:
        observations: [world, 39], 64-bit: hand 3, opening of the gripper 1, two objects of position 3 and quaternion 4;
            the same 18 of the step before; the goal 3. The goal is always there: hiding it is the caller's.
        reward, success: [world], of the last step; the reward is v2.
    """

    def __init__(
        self,
        names: Sequence[str],
        threads: int | None = None,
        tools: Sequence[Tool] | None = None,
        ported: bool = True,
    ):
        """
        Args:
            names: the task of each world, such as 'push-v3'.
            threads: that step the worlds; by default one for each core.
            tools: of each world, instead of Meta-World's own; all their tasks must have one.
            ported: use the batched tasks where there are; otherwise the package's own environments alone.

        Raises:
            QuickstudyError: no world, no thread, a task that does not exist, or one without a tool to change.
        """
        threads = (os.cpu_count() or 1) if threads is None else threads
        if not names or threads < 1:
            raise QuickstudyError(f"Meta-World needs worlds and threads; got {len(names)} worlds, {threads} threads.")
        self.names = names = [official_name(name) for name in names]
        n = len(names)
        self._threads = min(threads, n)
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self.observations, self.reward, self.success = np.zeros((n, OBSERVATION)), np.zeros(n), np.zeros(n, dtype=bool)
        self._pull, self._pull_low, self._pull_high = (np.zeros((n, 3)) for _ in range(3))
        batched = PORTS if ported else {}
        # Rows are task by task, batched ones first: the first rows of all are those of `Common`.
        different = sorted(dict.fromkeys(names), key=lambda name: name not in batched)
        worlds = [[i for i, other in enumerate(names) if other == name] for name in different]
        tasks: list[Port | Official] = []
        for name, of in zip(different, worlds, strict=True):
            if name in batched:
                tasks.append(batched[name](len(of), self._threads, None if tools is None else [tools[i] for i in of]))
                self._pull_low[of], self._pull_high[of] = batched[name].hand_low, batched[name].hand_high
            elif tools is None:
                tasks.append(Official(name, len(of)))
            else:
                raise QuickstudyError(f"Task {name} has no tool to change.")
        self._groups = list(zip(tasks, rows_of([len(of) for of in worlds]), strict=True))
        self._where = {
            world: (task, place) for task, of in zip(tasks, worlds, strict=True) for place, world in enumerate(of)
        }
        self._order = np.concatenate(worlds)
        self._row = self._order.argsort()
        ports = [task for task in tasks if isinstance(task, Port)]
        self._common = Common(ports) if ports else None
        self._raw = np.zeros((n, OBSERVATION))
        self._low, self._high = (
            np.concatenate([np.tile(getattr(task, end), (len(of), 1)) for task, of in zip(tasks, worlds, strict=True)])
            for end in ("low", "high")
        )

    def __len__(self) -> int:
        return len(self.names)

    def reset(self, vectors: Sequence[np.ndarray], chosen: np.ndarray | None = None) -> np.ndarray:
        """Starts episodes in the chosen worlds (indices; all by default).

        Args:
            vectors: the random vector of each chosen world, see `catalogue.Draw`.

        Returns:
            observations [world, 39] of all worlds.

        Raises:
            QuickstudyError: a vector of the wrong length, or one that puts object and goal too close.
        """
        chosen = np.arange(len(self)) if chosen is None else np.asarray(chosen)
        vectors = [np.asarray(vector, np.float64) for vector in vectors]
        for world, vector in zip(chosen, vectors, strict=True):
            self._check(self.names[world], vector)

        def begin(k: int, thread: int) -> None:
            world = chosen[k]
            task, place = self._where[world]
            task.begin(place, vectors[k], thread)
            if isinstance(task, Port):
                self._pull[world] = task.data[place].mocap_pos[0]

        self._for_each(len(chosen), begin)
        begun = self._mask(chosen)
        self._observe(begun, first=True)
        self.observations[self._order[begun]] = self._raw[begun]  # the package does not clip the first one
        return self.observations

    def step(self, actions: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """One control step of the chosen worlds (indices; all by default); the others keep what they had.

        What is observed of a world whose simulation became unstable is not finite until its next reset.

        Args:
            actions: [world, 4] for ALL worlds, taken as 32-bit numbers, as the package's action space has them.

        Returns:
            observations [world, 39] of all worlds.

        Raises:
            QuickstudyError: actions of the wrong shape.
        """
        actions = np.asarray(actions, np.float32)
        if actions.shape != (len(self), ACTION):
            raise QuickstudyError(f"Meta-World needs actions {(len(self), ACTION)}; got {actions.shape}.")
        moved = self._mask(chosen)
        order = self._order[moved]
        pull = self._pull[order] + np.clip(actions[order, :3], -1, 1) * 0.01  # a 32-bit product, as in the package
        pull = np.clip(pull, self._pull_low[order], self._pull_high[order])
        self._pull[order] = pull

        def one(k: int, thread: int) -> None:
            task, place = self._where[order[k]]
            task.advance(place, pull[k], actions[order[k]], thread)

        self._for_each(len(order), one)
        self._observe(moved, first=False)
        self._judge(moved, actions)
        return self.observations

    def picture(self, world: int) -> tuple[Any, Any]:
        """A MuJoCo model and data to draw this world from, with all that is only looked at."""
        task, place = self._where[world]
        return task.picture(place)

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _observe(self, here: np.ndarray, first: bool) -> None:
        """Takes the present frame of the worlds `here` [row], which begin an episode if `first`, as it is unclipped."""
        raw = self._raw
        if self._common is not None:
            if first:
                self._common.prepare(here)
            some = np.flatnonzero(here[: self._common.count])
            frame = self._common.observe()[some]
            raw[some, 18:36] = frame if first else raw[some, :18]
            raw[some, :18] = frame
        for task, rows in self._groups:
            if isinstance(task, Official):
                raw[rows] = np.concatenate([task.frame, task.previous, task.target], axis=1)
            elif first:
                raw[rows, 36:] = task.target

    def _judge(self, here: np.ndarray, actions: np.ndarray) -> None:
        """What is seen of the worlds `here` [row], clipped, and their rewards and successes."""
        seen, actions = np.minimum(np.maximum(self._raw, self._low), self._high), actions[self._order]
        reward, success = np.empty(len(self)), np.empty(len(self), dtype=bool)
        if self._common is not None:
            self._common.judge(seen[: self._common.count])
        for task, rows in self._groups:
            if here[rows].any():
                reward[rows], success[rows] = task.judge(seen[rows], actions[rows])
        worlds = self._order[here]
        self.observations[worlds], self.reward[worlds], self.success[worlds] = seen[here], reward[here], success[here]

    def _mask(self, chosen: np.ndarray | None) -> np.ndarray:
        """Which rows are those of the chosen worlds; all by default."""
        if chosen is None:
            return np.ones(len(self), dtype=bool)
        mask = np.zeros(len(self), dtype=bool)
        mask[self._row[np.asarray(chosen)]] = True
        return mask

    def _check(self, name: str, vector: np.ndarray) -> None:
        draw = TASKS[name]
        if vector.shape != (len(draw.low),) or not np.isfinite(vector).all():
            raise QuickstudyError(f"A random vector of {name} holds {len(draw.low)} numbers; got {vector.tolist()}.")
        if not draw.accepts(vector):
            raise QuickstudyError(
                f"The random vector {vector.tolist()} of {name} puts object and goal closer than {draw.apart} m, where "
                "Meta-World's own reset never ends."
            )

    def _for_each(self, count: int, work: Callable[[int, int], None]) -> None:
        """Calls `work(k, thread)` for every k; each thread takes the next one when it is done with its last."""
        numbers = itertools.count()  # `next` is atomic

        def run(thread: int) -> None:
            while (k := next(numbers)) < count:
                work(k, thread)

        others = [] if self._pool is None else [self._pool.submit(run, thread) for thread in range(1, self._threads)]
        run(0)
        for other in others:
            other.result()
