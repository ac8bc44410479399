"""Joins a cluster of Ray, or starts one of this machine's cores, and says what an experiment does there."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from quickstudy.data import Source, recorded
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, one_line
from quickstudy.families.base import SimulatedFamily
from quickstudy.io.progress import console
from quickstudy.learner import MetaLearner
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.settings import Config, PositiveFloat, PositiveInt, TrainConfig, TrialConfig
from quickstudy.task import Task, TaskFamily
from quickstudy.train import Steps

try:
    import ray
except ImportError as error:
    raise QuickstudyError("--cluster needs Ray: pip install 'quickstudy[cluster]' on every machine.") from error

from quickstudy.cluster.group import Group
from quickstudy.cluster.pool import Hand, Pool
from quickstudy.cluster.recording import recorded_by
from quickstudy.cluster.steps import ClusterSteps
from quickstudy.cluster.trials import ClusterTrialSteps, Collector
from quickstudy.cluster.worker import Worker


@dataclass(frozen=True)
class ClusterConfig(Config):
    """Where work is done, and how long it is waited for.

    Attributes:
        address: of the head of a cluster, as HOST:PORT; 'auto' for the one that runs on this machine or, where none
            does, as with 'local', one of this machine's cores, for as long as the command takes.
        workers: at most so many; by default as many as there are cores, or accelerators with `device` 'cuda'.
        patience: seconds that a worker's answer is waited for before others take over; it is named after a fifth.
        device: what workers train on, 'cpu' or 'cuda', each on an accelerator of its own.
    """

    address: str = "auto"
    workers: PositiveInt | None = None
    patience: PositiveFloat = 300.0
    device: str = "cpu"


class _Closes(Protocol):
    def close(self) -> None: ...


class Cluster:
    """What an experiment is given to do its work elsewhere; see `connected`."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self._open: list[_Closes] = []

    @property
    def room(self) -> int:
        """Workers that there is room for on the machines that are alive now."""
        what = "CPU" if self.config.device == "cpu" else "GPU"
        return sum(int(node["Resources"].get(what, 0)) for node in ray.nodes() if node["Alive"])

    @property
    def size(self) -> int:
        """Workers that are wanted.

        Raises:
            QuickstudyError: the cluster has nothing of what they train on.
        """
        if self.room == 0:
            raise QuickstudyError(f"The cluster at '{self.config.address}' has no {self.config.device} to work on.")
        return min(self.config.workers or self.room, self.room)

    @property
    def needs(self) -> dict[str, Any]:
        """Options of Ray for one worker: what it takes, and that workers spread over machines."""
        takes = {"num_cpus": 1} if self.config.device == "cpu" else {"num_cpus": 1, "num_gpus": 1}
        return {**takes, "scheduling_strategy": "SPREAD"}

    def record(self, family: TaskFamily, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """Demonstrations, recorded by all workers."""
        if not isinstance(family, SimulatedFamily):
            return recorded(family, tasks, count, seed)  # to read a file is quicker than to send it
        pool = self.pool(Hand)
        try:
            return recorded_by(pool, self.size, family, tasks, count, seed)
        finally:
            pool.close()

    def each(
        self,
        function: Callable[[Any, Any], Any],
        shared: Any,
        parts: Sequence[Any],
        titles: Sequence[str],
        after: Mapping[int, set[int]],
    ) -> Iterator[tuple[int, Any]]:
        """Independent parts of some work, each where there is room; however long one takes, it is waited for."""
        pool = self.pool(Hand, patient=False)
        common = ray.put(function), ray.put(shared)
        try:
            for place, (result, said) in pool.map("do", [(*common, ray.put(part)) for part in parts], titles, after):
                if said:
                    console.print(said.rstrip(), markup=False, highlight=False, soft_wrap=True)
                yield place, result
        finally:
            pool.close()

    def pool(self, kind: type, *args: Any, wanted: int | None = None, patient: bool = True) -> Pool:
        """Processes for parts of some work, not yet started; `args` are those of `kind`."""
        actor: Any = ray.remote(kind).options(**self.needs)
        held = [ray.put(one) for one in args]
        patience = self.config.patience if patient else math.inf
        return Pool(lambda: actor.remote(*held), wanted or self.size, lambda: self.room, patience)

    def trial_steps(self, learner: TrialLearner, family: SimulatedFamily, config: TrialConfig) -> Steps:
        """Outer steps whose trials are collected by all workers.

        Raises:
            QuickstudyError: a method that does not collect apart from learning.
        """
        if type(learner).experience is TrialLearner.experience:
            raise QuickstudyError(
                f"{type(learner).__name__} learns in one process: it has outer_step, not experience and improve."
            )
        if self.config.device != "cpu":
            raise QuickstudyError(f"What learns by trial does so on processors; got '{self.config.device}'.")
        size = min(self.size, config.meta_batch)
        pool = self.pool(Collector, learner, family, config.episodes_per_task, wanted=size)
        steps = ClusterTrialSteps(learner, family, config, pool, size)
        self._open.append(steps)
        return steps

    def demonstration_steps(self, learner: MetaLearner, source: Source, config: TrainConfig) -> Steps:
        """Outer steps whose meta-batches are split over workers."""
        held = ray.put(learner.to("cpu")), ray.put(source), config, self.config.device
        actor = _with_watch(Worker).options(**self.needs)
        wanted = min(self.size, config.meta_batch)
        group = Group(lambda: actor.remote(*held), wanted, lambda: self.room, self.config.patience)
        steps = ClusterSteps(learner, source, config, group)
        self._open.append(steps)
        return steps

    def close(self) -> None:
        """Ends what was started on the cluster."""
        for one in self._open:
            one.close()
        self._open = []


def _with_watch(kind: type) -> Any:
    """An actor that answers methods of the group 'watch' while it is at work."""
    options: dict[str, Any] = {"concurrency_groups": {"watch": 1}}
    return ray.remote(**options)(kind)


@contextmanager
def connected(config: ClusterConfig) -> Iterator[Cluster]:
    """A cluster, joined or started for as long as this lasts.

    Raises:
        QuickstudyError: there is none at that address.
    """
    ours = not ray.is_initialized()
    if ours:
        _join(config.address)
    cluster = Cluster(config)
    try:
        alive = sum(node["Alive"] for node in ray.nodes())
        what = "core" if config.device == "cpu" else "accelerator"
        console.print(f"Cluster: {_count(alive, 'machine')}, {_count(cluster.room, what)}.", highlight=False)
        yield cluster
    finally:
        with suppress(Exception):  # a cluster that is gone has nothing to be ended
            cluster.close()
        if ours:
            ray.shutdown()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _join(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # what the others of a lost worker's group say
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    try:
        if address == "auto":
            with suppress(ConnectionError):
                ray.init(address="auto", **options)
                return
        if address in ("auto", "local"):
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except Exception as error:  # of many kinds, by what is wrong with an address
        if "AuthToken" in str(error):
            raise QuickstudyError(
                f"The cluster at '{address}' wants a token: export RAY_AUTH_MODE=token, and see docs/scale.md."
            ) from error
        raise QuickstudyError(f"There is no cluster to join at '{address}' ({one_line(error)[:160]}).") from error
