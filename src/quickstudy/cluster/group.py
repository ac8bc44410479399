"""A group of workers as the process sees it that drives them: started, asked, watched, given up."""

import math
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from quickstudy.cluster.meeting import PeerLostError
from quickstudy.errors import TrainingError
from quickstudy.io.progress import console

NAMED_AFTER = 0.2
"""Share of the patience after which a slow worker is named."""

START_S = 300.0
"""How long the start of a process may take, at least: on a busy machine, imports take a minute."""

_LOOK_S = 2.0
"""How often it is looked whether the machines that processes start on are still there."""

_LOSSES = 5
"""For each worker, how often its process may end while it starts."""

_ANSWER_S = 5.0
"""How long it may take a worker to say what it does, or its death to become known after others noticed it."""


class WorkerLostError(Exception):
    """A worker is gone, or was waited for too long; its text is a part of a sentence that names it."""


class Group:
    """Workers that make outer steps together.

    Args:
        make: starts one.
        wanted: how many, where there is room.
        room: how many there is room for.
        patience: seconds that an answer is waited for before a worker counts as lost.
    """

    def __init__(self, make: Callable[[], Any], wanted: int, room: Callable[[], int], patience: float) -> None:
        self._make, self.wanted, self._room, self.patience = make, wanted, room, patience
        self._start_s = max(START_S, patience)
        self.workers: list[Any] = []
        self.names: list[str] = []
        self._why = ""

    def start(self) -> None:
        """Starts as many as are wanted and there is room for; those that do not come up in time are done without.

        Raises:
            WorkerLostError: one was lost while they met.
            TrainingError: none came up.
        """
        self.workers, self.names = self._come_up()
        if not self.workers:
            raise TrainingError(f"No worker came up on the cluster ({self._why or f'{self._start_s:g} s'}).")
        size, apart = len(self.workers), 2 * self._start_s  # who is slow is for this process to say, and not for them
        host, port = self._answers({self.workers[0].meet.remote(size, apart): 0}, "the start", self._start_s)[0]
        joined = {w.join.remote(i, size, host, port, apart): i for i, w in enumerate(self.workers)}
        self._answers(joined, "the start", self._start_s)

    def _come_up(self) -> tuple[list[Any], list[str]]:
        """Workers and their names. What a machine that dies meanwhile would have given is asked of the others."""
        asked, named, failed, until = dict[Any, Any](), dict[Any, str](), 0, time.monotonic() + self._start_s
        while time.monotonic() < until and failed <= _LOSSES * self.wanted:
            fitting = max(1, min(self.wanted, self._room()))
            for _ in range(fitting - len(named) - len(asked)):
                worker = self._make()
                asked[worker.about.remote()] = worker
            if len(named) >= fitting:
                break
            for reference in ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_S)[0]:
                worker = asked.pop(reference)
                try:
                    named[worker] = ray.get(reference)
                except RayError as error:
                    failed, self._why = failed + 1, last_line(error)
        for worker in asked.values():
            ray.kill(worker)
        return list(named), list(named.values())

    def stop(self) -> None:
        """Ends all workers; what they held is lost."""
        for worker in self.workers:
            ray.kill(worker)
        self.workers, self.names = [], []

    def call(self, method: str, *args: Any, what: str, starting: bool = False) -> list[Any]:
        """What every worker answers, in order.

        Args:
            what: they do, for a sentence.
            starting: it is a part of the start, which takes its time.

        Raises:
            WorkerLostError: one is gone, or was waited for longer than the patience.
            QuickstudyError: what a worker raised.
        """
        asked = {getattr(worker, method).remote(*args): rank for rank, worker in enumerate(self.workers)}
        return self._answers(asked, what, self._start_s if starting else self.patience)

    def _answers(self, asked: dict[Any, int], what: str, patience: float) -> list[Any]:
        found: dict[int, Any] = {}
        started, named, broken = time.monotonic(), False, math.inf
        while asked:
            now = time.monotonic()
            until = min(started + patience * (1.0 if named else NAMED_AFTER), broken)
            ready, _ = ray.wait(list(asked), timeout=max(0.0, until - now))
            for reference in ready:
                rank = asked.pop(reference)
                try:
                    found[rank] = ray.get(reference)
                except RayActorError as error:
                    raise WorkerLostError(f"worker {rank + 1} ({self.names[rank]}) is gone during {what}") from error
                except RayTaskError as error:
                    if not isinstance(error.cause, PeerLostError):
                        raise error.cause from None
                    broken = min(broken, time.monotonic() + _ANSWER_S)
            if ready:
                continue
            if time.monotonic() >= broken:
                raise WorkerLostError(f"the workers lost each other during {what}")
            slow = " and ".join(f"worker {rank + 1} ({self.names[rank]})" for rank in self._slow(asked))
            waited = time.monotonic() - started
            if named:
                raise WorkerLostError(f"{slow} did not finish {what} within {patience:g} s")
            console.print(
                f"Waiting for {slow}: {what} has taken {waited:.0f} s; after {patience:g} s others take over.",
                markup=False,
                soft_wrap=True,
            )
            named = True
        if broken < math.inf:
            raise WorkerLostError(f"the workers lost each other during {what}")
        return [found[rank] for rank in sorted(found)]

    def _slow(self, asked: dict[Any, int]) -> list[int]:
        """Those that others wait for: they still compute, or do not even say what they do."""
        busy = {self.workers[rank].computing.remote(): rank for rank in asked.values()}
        ray.wait(list(busy), num_returns=len(busy), timeout=_ANSWER_S)
        found = []
        for reference, rank in busy.items():
            try:
                if ray.get(reference, timeout=0):
                    found.append(rank)
            except (GetTimeoutError, RayError):
                found.append(rank)
        return found or sorted(asked.values())


def last_line(error: Exception) -> str:
    """Of what Ray says of a process that did not start, the line that has the reason; shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
