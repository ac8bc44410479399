"""The steps of the one outer loop, made by a group of workers.

The loop itself, validation, checkpoints and the run folder stay where they are, in the process that was started. It
keeps where the training was at its last look; where a worker is lost, a new group goes on from there and makes the
steps since then again, by the same random numbers, so that each counts once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.cluster.group import Group, WorkerLostError
from quickstudy.cluster.worker import Done, Look
from quickstudy.data import Source
from quickstudy.errors import TrainingError
from quickstudy.io.progress import console
from quickstudy.learner import MetaLearner
from quickstudy.settings import TrainConfig
from quickstudy.train import DemonstrationSteps

_LOSSES = 5
"""Losses of workers without a step between them, after which training stops."""


@dataclass
class _Snapshot:
    """Where a training was: after which step, the random state, the learner and `Steps.state` (None: as built)."""

    number: int
    rng: np.ndarray
    tensors: dict[str, Tensor]
    steps: dict[str, Any] | None


class ClusterSteps:
    """Outer steps of demonstrations by a group of workers; a `quickstudy.train.Steps`.

    Args:
        learner: gets the workers' parameters whenever the loop looks at it.
        group: not yet started.
    """

    log_every = DemonstrationSteps.log_every

    def __init__(self, learner: MetaLearner, source: Source, config: TrainConfig, group: Group) -> None:
        self.learner, self.group = learner, group
        self._local = DemonstrationSteps(learner, source, config)
        self._restored: dict[str, Any] | None = None
        self._rng = np.empty(0, np.uint8)
        self._snapshot: _Snapshot | None = None
        self._number = 0
        self._note, self._once = "", 0.0

    def step(self, rng: torch.Generator, number: int) -> Mapping[str, float]:
        before = rng.get_state().numpy()
        if self._snapshot is None:
            tensors = {name: t.detach().cpu().clone() for name, t in self.learner.state_dict().items()}
            self._snapshot = _Snapshot(number - 1, before, tensors, self._restored)
            self._number, self._rng = number - 1, before
        done: Done = self._surely(lambda: self.group.call("step", before, number, what=f"step {number}"))[0]
        rng.set_state(torch.from_numpy(done.rng.copy()))
        self._number, self._rng, self._note = number, done.rng, done.note
        self._once += done.once
        self._say(done)
        return done.figures

    def settle(self) -> None:
        if self._snapshot is not None and self._snapshot.number < self._number:
            self._look(False)

    def summary(self) -> dict[str, float]:
        if self._snapshot is not None:
            return self._look(True).summary
        if self._restored is not None:  # a look that was owed from before
            self._restored = {**self._restored, "losses": []}
        return self._local.summary()

    def note(self) -> str:
        return self._note

    def once(self) -> float:
        seconds, self._once = self._once, 0.0
        return seconds

    def state(self) -> dict[str, Any]:
        if self._snapshot is None:  # stopped before the first step
            return self._restored or self._local.state()
        if self._snapshot.number == self._number and self._snapshot.steps:
            return self._snapshot.steps
        return self._look(False).steps

    def restore(self, state: dict[str, Any], finished: bool) -> None:
        self._local.restore(state, finished=True)
        self._restored = None if finished else state

    def close(self) -> None:
        """Ends the workers."""
        self.group.stop()

    def _look(self, summarise: bool) -> Look:
        assert self._snapshot is not None
        what = f"the look after step {self._number}"
        found: Look = self._surely(lambda: self.group.call("look", summarise, what=what))[0]
        self._snapshot = _Snapshot(self._number, self._rng, found.tensors, found.steps)
        self.learner.load_state_dict(found.tensors)
        self._note = found.note
        return found

    def _surely(self, ask: Callable[[], list[Any]]) -> list[Any]:
        """What workers answer, other ones where some are lost.

        Raises:
            TrainingError: they are lost again and again.
        """
        sentence = ""
        for _ in range(_LOSSES):
            try:
                if not self.group.workers:
                    self._begin(again=bool(sentence))
                return ask()
            except WorkerLostError as lost:
                self.group.stop()
                sentence = str(lost)
                console.print(f"{sentence[0].upper()}{sentence[1:]}.", markup=False, soft_wrap=True)
        raise TrainingError(f"Workers were lost {_LOSSES} times without a step between, the last time as {sentence}.")

    def _begin(self, again: bool) -> None:
        """Starts the workers, and brings them to where the training is."""
        assert self._snapshot is not None
        self.group.start()
        snapshot = self._snapshot
        self.group.call("restore", snapshot.tensors, snapshot.steps, what="the start", starting=True)
        rng = snapshot.rng
        for number in range(snapshot.number + 1, self._number + 1):
            rng = self.group.call("step", rng, number, what=f"step {number} again")[0].rng
        if again:
            count = len(self.group.workers)
            who = "1 worker goes" if count == 1 else f"{count} workers go"
            console.print(f"{who} on from step {self._number}.", highlight=False)

    def _say(self, done: Done) -> None:
        if done.said:
            console.print(done.said.rstrip(), markup=False, highlight=False, soft_wrap=True)
