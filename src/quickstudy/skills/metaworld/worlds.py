"""Many worlds of any mixture of Meta-World's tasks, stepped together."""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.skills.metaworld import furniture, pushing, tools
from quickstudy.skills.metaworld.catalogue import TASKS
from quickstudy.skills.metaworld.port import Port, Tool
from quickstudy.skills.metaworld.stock import Stock

PORTS: dict[str, type[Port]] = {
    "reach-v3": pushing.Reach,
    "push-v3": pushing.Push,
    "pick-place-v3": pushing.PickPlace,
    "sweep-v3": pushing.Sweep,
    "sweep-into-v3": pushing.SweepInto,
    "basketball-v3": pushing.Basketball,
    "shelf-place-v3": pushing.ShelfPlace,
    "door-open-v3": furniture.DoorOpen,
    "door-close-v3": furniture.DoorClose,
    "drawer-open-v3": furniture.DrawerOpen,
    "drawer-close-v3": furniture.DrawerClose,
    "window-open-v3": furniture.WindowOpen,
    "button-press-topdown-v3": furniture.ButtonPressTopdown,
    "lever-pull-v3": furniture.LeverPull,
    "hammer-v3": tools.Hammer,
    "stick-push-v3": tools.StickPush,
    "stick-pull-v3": tools.StickPull,
    "peg-insert-side-v3": tools.PegInsertSide,
    "assembly-v3": tools.Assembly,
}
"""The tasks that are written for many worlds at once."""

OBSERVATION, ACTION = 39, 4


class _Group:
    """The worlds of one task: what was seen of them before it is put in its place among all.

    Attributes:
        worlds: which they are.
        raw: [world of the group, 39], as the package has it before it clips.
    """

    def __init__(self, task: Port | Stock, worlds: np.ndarray):
        self.task, self.worlds = task, worlds
        self.raw, self.seen = np.zeros((len(worlds), OBSERVATION)), np.zeros((len(worlds), OBSERVATION))

    def show(self, here: np.ndarray | slice, first: bool) -> None:
        """Takes the present frame of the group's worlds `here`, which begins an episode if `first`."""
        task, raw = self.task, self.raw
        if isinstance(task, Stock):
            raw[here] = np.concatenate([task.frame, task.previous, task.target], axis=1)[here]
            return
        frame = task.observe()[here]
        raw[here, 18:36] = frame if first else raw[here, :18]
        raw[here, :18] = frame
        if first:
            raw[here, 36:] = task.target[here]

    def judge(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is seen of the group's worlds, clipped, and their rewards and successes."""
        task = self.task
        np.maximum(self.raw, task.low, out=self.seen)
        np.minimum(self.seen, task.high, out=self.seen)
        if isinstance(task, Stock):
            return self.seen, task.reward, task.success
        return self.seen, *task.judge(self.seen, actions)


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
        for name in names:
            if name not in TASKS:
                raise unknown("Meta-World task", name, TASKS)
        self.names, n = list(names), len(names)
        self._threads = min(threads, n)
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self.observations, self.reward, self.success = np.zeros((n, OBSERVATION)), np.zeros(n), np.zeros(n, dtype=bool)
        self._pull, self._pull_low, self._pull_high = (np.zeros((n, 3)) for _ in range(3))
        self._groups: list[_Group] = []
        self._where: list[tuple[_Group, int]] = [None] * n  # type: ignore[list-item]
        self._lock = threading.Lock()
        for name in dict.fromkeys(names):
            worlds = np.array([i for i, other in enumerate(names) if other == name])
            kind = PORTS.get(name) if ported else None
            task: Port | Stock
            if kind is not None:
                task = kind(len(worlds), self._threads, None if tools is None else [tools[i] for i in worlds])
                self._pull_low[worlds], self._pull_high[worlds] = task.hand_low, task.hand_high
            elif tools is None:
                task = Stock(name, len(worlds))
            else:
                raise QuickstudyError(f"Task {name} has no tool to change.")
            group = _Group(task, worlds)
            self._groups.append(group)
            for place, world in enumerate(worlds):
                self._where[world] = (group, place)
        # Group by group, so that one is judged while others still move.
        self._everyone = np.concatenate([group.worlds for group in self._groups])

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
            group, place = self._where[chosen[k]]
            group.task.begin(place, vectors[k], thread)
            if isinstance(group.task, Port):
                self._pull[chosen[k]] = group.task.data[place].mocap_pos[0]

        self._for_each(len(chosen), begin)
        now = self._mask(chosen)
        for group in self._groups:
            if now[group.worlds].any():
                here = now[group.worlds]
                group.show(here, first=True)
                self.observations[group.worlds[here]] = group.raw[here]  # the package does not clip the first one
        return self.observations

    def step(self, actions: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """One control step of the chosen worlds (indices; all by default); the others keep what they had.

        Args:
            actions: [world, 4] for ALL worlds, taken as 32-bit numbers, as the package's action space has them.

        Returns:
            observations [world, 39] of all worlds.

        Raises:
            QuickstudyError: actions of the wrong shape, or a simulation that became unstable.
        """
        self.advance(actions, chosen)
        order = np.arange(len(self)) if chosen is None else np.asarray(chosen)
        fine = np.isfinite(self.observations[order]).all(1)
        if not fine.all():
            bad = order[fine.argmin()]
            raise QuickstudyError(f"The simulation of world {bad} ({self.names[bad]}) became unstable.")
        return self.observations

    def advance(self, actions: np.ndarray, chosen: np.ndarray | None = None) -> None:
        """As `step`, but a world that became unstable stops nobody: what is observed of it is not finite.

        It is sound again after its next reset.

        Raises:
            QuickstudyError: actions of the wrong shape.
        """
        actions = np.asarray(actions, np.float32)
        if actions.shape != (len(self), ACTION):
            raise QuickstudyError(f"Meta-World needs actions {(len(self), ACTION)}; got {actions.shape}.")
        now = None if chosen is None else self._mask(np.asarray(chosen))
        order = self._everyone if now is None else self._everyone[now[self._everyone]]
        pull = self._pull + np.clip(actions[:, :3], -1, 1) * 0.01  # a 32-bit product, as in the package
        pull = np.clip(pull, self._pull_low, self._pull_high)
        self._pull = pull if now is None else np.where(now[:, None], pull, self._pull)
        left = {id(g): len(g.worlds) if now is None else int(now[g.worlds].sum()) for g in self._groups}

        def one(k: int, thread: int) -> None:
            world = order[k]
            group, place = self._where[world]
            group.task.advance(place, pull[world], actions[world], thread)
            with self._lock:
                left[id(group)] -= 1
                last = not left[id(group)]
            if last:
                self._finish(group, actions, now)

        self._for_each(len(order), one)

    def picture(self, world: int) -> tuple[Any, Any]:
        """A MuJoCo model and data to draw this world from, with all that is only looked at."""
        group, place = self._where[world]
        return group.task.picture(place)

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _finish(self, group: _Group, actions: np.ndarray, now: np.ndarray | None) -> None:
        """Observes and judges those worlds of a group that have moved."""
        worlds = group.worlds
        here = slice(None) if now is None else now[worlds]
        group.show(here, first=False)
        seen, reward, success = group.judge(actions[worlds])
        moved = worlds[here]
        self.observations[moved], self.reward[moved], self.success[moved] = seen[here], reward[here], success[here]

    def _mask(self, chosen: np.ndarray) -> np.ndarray:
        mask = np.zeros(len(self), dtype=bool)
        mask[chosen] = True
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
