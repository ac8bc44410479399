"""Processes that are given independent parts of some work, each the next one when it is done with the last.

A part that was given to a process that is lost, or slower than the patience, is given to another one; as it is drawn by
random numbers of its own, it comes out the same, and it counts once.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from quickstudy.cluster.group import NAMED_AFTER, START_S, last_line
from quickstudy.errors import TrainingError
from quickstudy.io.progress import console

_LOOK_S = 5.0
"""How long it is waited at most before it is looked at all of them again."""

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
        todo, idle, given, done = deque(range(len(parts))), deque[Any](), dict[Any, _Given](), set[int]()
        starting = {hand.about.remote(): hand for hand in [*self._hands, *self._more(len(parts))]}
        lost, since = 0, time.monotonic()
        while todo or given:
            for part in [p for p in todo if after.get(p, done) <= done][: len(idle)]:
                todo.remove(part)
                hand = idle.popleft()
                given[getattr(hand, method).remote(*parts[part])] = _Given(part, hand)
            if not given and time.monotonic() - since > START_S:
                raise TrainingError(f"No process came up on the cluster within {START_S:g} s.")
            gone: list[tuple[Any, str]] = []
            ready, _ = ray.wait([*given, *starting], num_returns=1, timeout=self._until_next(given.values()))
            for reference in ready:
                if hand := starting.pop(reference, None):
                    try:
                        self._names[hand] = ray.get(reference)
                        idle.append(hand)
                    except RayError as error:
                        gone.append((hand, f"a process did not come up ({last_line(error)})"))
                    continue
                one = given.pop(reference)
                try:
                    result = ray.get(reference)
                except RayActorError:
                    todo.appendleft(one.part)
                    gone.append((one.hand, f"{self._names[one.hand]} is gone during {titles[one.part]}"))
                except RayTaskError as error:
                    raise error.cause from None
                else:
                    lost, since = 0, time.monotonic()
                    done.add(one.part)
                    idle.append(one.hand)
                    yield one.part, result
            for reference, one in list(given.items()):
                waited, slow = time.monotonic() - one.since, f"{self._names[one.hand]}"
                if waited >= self._patience:
                    del given[reference]
                    todo.appendleft(one.part)
                    ray.kill(one.hand)
                    gone.append((one.hand, f"{slow} did not finish {titles[one.part]} within {self._patience:g} s"))
                elif waited >= NAMED_AFTER * self._patience and not one.named:
                    one.named = True
                    _tell(f"waiting for {slow}: {titles[one.part]} has taken {waited:.0f} s")
            for hand, sentence in gone:
                lost, since = lost + 1, time.monotonic()
                if lost > _LOSSES:
                    raise TrainingError(f"{sentence}, the last of {lost} that were lost without one part done.")
                _tell(f"{sentence}; another one takes over")
                self._hands.remove(hand)
                starting |= {more.about.remote(): more for more in self._more(len(todo) + len(given))}

    def _more(self, parts: int) -> list[Any]:
        """Starts processes, until there are as many as are wanted, have something to do and find room; at least one."""
        missing = min(self._wanted, parts, max(1, self._room())) - len(self._hands)
        made = [self._make() for _ in range(missing)]
        self._hands += made
        return made

    def _until_next(self, given: Iterable[_Given]) -> float:
        """Seconds until the next one is to be named or given up."""
        limits = [one.since + self._patience * (1.0 if one.named else NAMED_AFTER) for one in given]
        return min(_LOOK_S, max(0.0, min(limits, default=math.inf) - time.monotonic()))


def _tell(sentence: str) -> None:
    console.print(f"{sentence[0].upper()}{sentence[1:]}.", markup=False, soft_wrap=True)
