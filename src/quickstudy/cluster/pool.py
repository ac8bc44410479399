"""Processes that are given independent parts of some work, each the next one when it is done with the last.

A part that was given to a process that is lost, or slower than the patience, is given to another one; as it is drawn by
random numbers of its own, it comes out the same, and it counts once.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from quickstudy.cluster.group import NAMED_AFTER
from quickstudy.errors import TrainingError
from quickstudy.io.progress import console

_LOSSES = 5
"""Processes in a row that may be lost without a part done."""


class Hand:
    """A process that does what it is given; an actor of Ray."""

    def about(self) -> str:
        """Who this is, for a sentence."""
        return f"process {os.getpid()} on {ray.util.get_node_ip_address()}"

    def do(self, function: Callable[..., Any], *args: Any) -> tuple[Any, str]:
        """What a function returns, and what was said meanwhile."""
        with console.capture() as said:
            found = function(*args)
        return found, said.get()


@dataclass
class _Given:
    """A part that a process has."""

    part: int
    hand: Any
    since: float = field(default_factory=time.monotonic)
    named: bool = False


class Pool:
    """Actors that do parts of some work.

    Args:
        make: starts one; it has the methods of `Hand`.
        wanted: how many, where there is room.
        room: how many there is room for.
        patience: seconds that a part may take before it is given to another process.
    """

    def __init__(
        self, make: Callable[[], Any], wanted: int, room: Callable[[], int], patience: float = math.inf
    ) -> None:
        self._make, self._wanted, self._room, self._patience = make, wanted, room, patience
        self._hands: list[Any] = []
        self._names: dict[Any, str] = {}

    def close(self) -> None:
        """Ends the processes."""
        for hand in self._hands:
            ray.kill(hand)
        self._hands = []

    def map(
        self,
        method: str,
        parts: Sequence[tuple],
        titles: Sequence[str],
        after: Mapping[int, set[int]] = MappingProxyType({}),
    ) -> Iterator[tuple[int, Any]]:
        """The place and the result of each part, in the order in which they are done.

        Args:
            parts: arguments of the method; those that are large as references of Ray.
            titles: what each part is called in a sentence.
            after: the parts that must be done before one begins, by its place.

        Raises:
            QuickstudyError: what a part raised.
            TrainingError: processes are lost again and again.
        """
        self._fill(len(parts))
        todo, idle, given = deque(range(len(parts))), deque(self._hands), dict[Any, _Given]()
        lost, done = 0, set[int]()
        while todo or given:
            for part in [p for p in todo if after.get(p, done) <= done][: len(idle)]:
                todo.remove(part)
                hand = idle.popleft()
                given[getattr(hand, method).remote(*parts[part])] = _Given(part, hand)
            ready, _ = ray.wait(list(given), num_returns=1, timeout=self._until_next(given.values()))
            for reference in ready:
                one = given.pop(reference)
                try:
                    result = ray.get(reference)
                except RayActorError:
                    lost += 1
                    self._give_up(one, f"{self._name(one.hand)} is gone during {titles[one.part]}", todo, idle, lost)
                except RayTaskError as error:
                    raise error.cause from None
                else:
                    lost = 0
                    done.add(one.part)
                    idle.append(one.hand)
                    yield one.part, result
            for reference, one in list(given.items()):
                waited = time.monotonic() - one.since
                if waited >= self._patience:
                    del given[reference]
                    ray.kill(one.hand)
                    lost += 1
                    sentence = f"{self._name(one.hand)} did not finish {titles[one.part]} within {self._patience:g} s"
                    self._give_up(one, sentence, todo, idle, lost)
                elif waited >= NAMED_AFTER * self._patience and not one.named:
                    one.named = True
                    self._tell(f"Waiting for {self._name(one.hand)}: {titles[one.part]} has taken {waited:.0f} s")

    def _give_up(self, one: _Given, sentence: str, todo: deque[int], idle: deque[Any], lost: int) -> None:
        """Takes a part back from a process that is lost."""
        if lost > _LOSSES:
            raise TrainingError(f"{sentence}, the last of {lost} that were lost without one part done.")
        self._tell(f"{sentence}; another one does it")
        todo.appendleft(one.part)
        self._hands.remove(one.hand)
        before = len(self._hands)
        self._fill(before + 1)
        idle.extend(self._hands[before:])

    def _fill(self, parts: int) -> None:
        """Starts processes, as many as are wanted, have something to do and find room; at least one."""
        most = min(self._wanted, parts, max(1, self._room()))
        while len(self._hands) < most:
            hand = self._make()
            self._hands.append(hand)
            self._names[hand] = f"process {len(self._names) + 1}"

    def _name(self, hand: Any) -> str:
        return self._names[hand]

    def _until_next(self, given: Any) -> float | None:
        """Seconds until the next one is to be named or given up."""
        limits = [one.since + self._patience * (1.0 if one.named else NAMED_AFTER) for one in given]
        soonest = min(limits)
        return None if math.isinf(soonest) else max(0.0, soonest - time.monotonic())

    def _tell(self, sentence: str) -> None:
        console.print(f"{sentence[0].upper()}{sentence[1:]}.", markup=False, soft_wrap=True)
