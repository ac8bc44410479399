"""An experiment: a family, a method and settings with a seed.

It is the only thing that `train`, `evaluate`, `compare`, `resume`, `report` and `push` know, alike for methods that
learn from demonstrations and for those that learn by trial.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.markup import escape

from quickstudy import families, methods, outside
from quickstudy.batching import usable
from quickstudy.data import DemonstrationSet, DrawsFresh, Scaling, Seen, Source, Spread
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import NOT_FINITE, Evaluation, evaluate, is_share
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.remote import interface
from quickstudy.io import checkpoint, files
from quickstudy.io.budget import Budget, OutOfTime
from quickstudy.io.curves import TensorBoard
from quickstudy.io.progress import console
from quickstudy.method import Method
from quickstudy.methods.demonstrations.warm_start import start_from
from quickstudy.settings import Changes, ReadingConfig, Settings, TrainConfig, TrialConfig
from quickstudy.task import Task, TaskFamily
from quickstudy.train import Steps, Trained, Validation, meta_train, run

TRAINING_SECONDS = "training-seconds.json"
"""File of a training's folder: how long it took, validation included."""

COST = "cost.json"
"""File of a training's folder: what it learned from, see `Cost`."""

ROUNDS = (0, 1, 2, 3)
"""Rounds of own trials that a learner by trial is evaluated after where nobody says otherwise."""

_MOST_PARAMETERS = 10**9
_SCALE_TASKS = 50
"""Training tasks that are recorded for a method which takes only the scale of observations from them."""


@dataclass(frozen=True)
class Cost:
    """What meta-training used.

    Attributes:
        train_tasks: training tasks.
        demonstrations: of all of them together.
        env_steps: environment steps in these demonstrations; None where a family has no steps, or by trial. Roll-outs
            on validation tasks, which choose among checkpoints, are not counted.
    """

    train_tasks: int | None = None
    demonstrations: int | None = None
    env_steps: int | None = None


class Machines(Protocol):
    """Where the work of an experiment is done, if not in this process; see `quickstudy.cluster`."""

    def record(self, family: TaskFamily, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """What `quickstudy.data.recorded` gives."""
        ...

    def each(
        self,
        function: Callable[[Any, Any], Any],
        shared: Any,
        parts: Sequence[Any],
        titles: Sequence[str],
        after: Mapping[int, set[int]],
    ) -> Iterator[tuple[int, Any]]:
        """The place of each part and `function(shared, part)`, in the order in which they are done.

        Args:
            titles: what each part is called in a sentence.
            after: the parts that must be done before one begins, by its place.
        """
        ...

    def demonstration_steps(self, learner: Any, source: Source, config: TrainConfig) -> Steps:
        """Outer steps from demonstrations."""
        ...

    def trial_steps(self, learner: Any, family: SimulatedFamily, config: TrialConfig) -> Steps:
        """Outer steps by trial."""
        ...


@dataclass(frozen=True)
class Experiment:
    """What is trained, and how.

    Raises:
        QuickstudyError: when made of a method that cannot learn the family's tasks, or of settings that say otherwise
            than the method's name.
    """

    family: TaskFamily
    method: Method
    settings: Settings

    def __post_init__(self) -> None:
        if reason := self.method.why_not(self.family) or self.method.contradiction(self.settings):
            raise QuickstudyError(reason)

    @classmethod
    def of(
        cls,
        family: str | TaskFamily,
        method: str | Method | None = None,
        seed: int = 0,
        changes: Changes | None = None,
        start: str = "",
    ) -> "Experiment":
        """The experiment with default settings but for `changes`.

        Args:
            family: a family, or what `quickstudy.families.get` knows it by.
            method: a method, or what `quickstudy.methods.get` knows it by; the family's default where not given.
            changes: by part of the settings, such as `{"training": {"steps": 100}, "algorithm": {"inner_steps": 3}}`.
            start: a run whose base network the training starts from.

        Raises:
            QuickstudyError: an unknown family, method or value, or a method that does not suit the family.
        """
        reading = ReadingConfig(**(changes or {}).get("reading", {}))
        made = families.get(family, reading=reading) if isinstance(family, str) else family
        record = methods.get(method or made.default_method) if not isinstance(method, Method) else method
        name = families.located(family) if isinstance(family, str) else made.name
        if reason := record.why_not(made):
            raise QuickstudyError(reason)
        settings = record.defaults(name, made, seed)
        called = method if isinstance(method, str) else record.name
        return cls(made, record, replace(settings.changed(changes or {}), method=called, start=start))

    def named(self, family: str) -> "Experiment":
        """The same, whose settings call the family by another name, such as the path that it comes from."""
        return replace(self, settings=replace(self.settings, family=family))

    @property
    def by_trial(self) -> bool:
        """Whether it is learned by trial; if not, from demonstrations."""
        return self.method.learns_from == "trials"

    @property
    def simulated(self) -> SimulatedFamily:
        """The family, which must be simulated to be learned by trial.

        Raises:
            QuickstudyError: it is not.
        """
        if not isinstance(self.family, SimulatedFamily):
            raise QuickstudyError(f"Learning by trial needs a simulated family; '{self.family.name}' is none.")
        return self.family

    def build(self) -> Any:
        """The learner, with initial parameters drawn from the seed."""
        self._check_size()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            learner = self.method.build(self.settings, self.family)
        if self.family.scales_actions and not self.by_trial:
            learner.scaling = Scaling(self.family.observation_size, self.family.action_size)
        return learner

    def _check_size(self) -> None:
        """Raises QuickstudyError where the settings make a learner of more numbers than any machine trains."""
        count = 0
        with (
            suppress(Exception),
            torch.random.fork_rng(devices=[]),
            torch.device("meta"),
        ):
            count = sum(p.numel() for p in self.method.build(self.settings, self.family).parameters())
        if count > _MOST_PARAMETERS:
            raise QuickstudyError(
                f"A learner of these settings has {count:.3g} parameters; at most {_MOST_PARAMETERS:.0e} are built."
            )

    def start(self, device: str = "cpu") -> tuple[Any, torch.device]:
        """The learner that a training starts with, and what it is trained on.

        Raises:
            QuickstudyError: there is no such device, or no run to start from.
        """
        place = usable(device)
        if self.by_trial and place.type != "cpu":
            raise QuickstudyError(f"Method '{self.method.name}' learns by trial, on the processor; got '{device}'.")
        learner = self.build()
        if self.settings.start:
            start_from(learner, Path(self.settings.start))
        return learner, place

    def source(self, machines: Machines | None = None) -> Source | None:
        """The training demonstrations that the settings ask for; the same for every method and seed.

        None where nothing is learned from demonstrations of training tasks.

        Args:
            machines: where they are recorded, if not in this process.

        Raises:
            QuickstudyError: meta-batches as the settings want them cannot be had.
        """
        if self.by_trial or self.method.uses == "nothing":
            return None
        training, data = self.settings.training, self.settings.data
        wanted = training.meta_batch, max(training.shots, training.most_shots), training.queries
        if isinstance(self.family, DrawsFresh):
            fresh = self.family.fresh()
            fresh.sample(torch.Generator(), *wanted)  # what it cannot give is told before a folder is made
            return fresh
        tasks = data.tasks if self.method.uses == "all" else min(_SCALE_TASKS, data.tasks)
        chosen, recorder = self.family.tasks("train", tasks), None if machines is None else machines.record
        source = DemonstrationSet.record(
            self.family, chosen, data.demonstrations, seed=0, for_training=True, recorder=recorder
        )
        if self.method.uses == "all":
            source.check(*wanted)
        return source

    def validation(self) -> Validation:
        """The family's metric on validation tasks, after as much experience as in training."""
        return Validation(self.family.metric, self._measure, self.family.higher_is_better)

    def _measure(self, learner: Any) -> Any:
        if self.by_trial:
            from quickstudy.methods.trials.outer_loop import validate

            return validate(learner, self.simulated, self.settings.training)
        data, shots = self.settings.data, self.settings.training.shots
        return on_validation(learner, self.family, shots, data.validation_tasks, data.validation_episodes)

    def train(
        self,
        folder: Path | str | None = None,
        *,
        source: Source | None = None,
        resume: bool = True,
        budget: Budget | None = None,
        device: str = "cpu",
        goes_on: str = "the same call goes on from there",
        machines: Machines | None = None,
    ) -> Any:
        """Builds and meta-trains the learner; `folder` gets its checkpoints, TensorBoard log and costs.

        A finished training is loaded, an unfinished one goes on (unless `resume` is False), on whatever device.

        Args:
            source: the training demonstrations, where they were recorded before.
            device: what torch trains on; learning by trial is done by the processor.
            goes_on: what goes on with a training that was stopped, as part of a sentence.
            machines: where the steps are made, if not in this process; `device` is then that of validation.

        Returns:
            the learner, with its best parameters on the validation tasks.

        Raises:
            QuickstudyError: what `start`, `source` and `quickstudy.train.run` raise.
            OutOfTime: the budget ended first; the training goes on from its last checkpoint.
            KeyboardInterrupt: it was stopped.
        """
        budget, folder = budget or Budget(), None if folder is None else Path(folder)
        learner, place = self.start(device)
        source = source or self.source(machines)
        if isinstance(source, DemonstrationSet):
            if (
                source.scaling is not None
                and resume
                and folder is not None
                and _is_unscaled(folder / "checkpoints/last")
            ):
                source = source.unscaled()
            learner.scaling = copy.deepcopy(source.scaling)
        if source is not None and source.batch is not None:
            learner.standardise(source.batch)
        learner.to(place)
        about: dict[str, Any] = {"settings": asdict(self.settings), "interface": interface(self.family)}
        if (seen := self._seen(source)) is not None:
            learner.seen = seen
            about["interface"]["seen"] = outside.plain(seen)
        if self.method.uses != "all":
            if folder is not None:
                checkpoint.save(folder / "checkpoints/best", learner.state_dict(), about)
            return learner
        if folder is not None:
            files.write_json(folder / COST, asdict(self._cost(source)))
        options: dict[str, Any] = {
            "seed": self.settings.seed,
            "validation": self.validation(),
            "folder": folder,
            "about": about,
            "resume": resume,
            "logger": None if folder is None else TensorBoard(folder / "tensorboard"),
            "title": f"{self.method.name}, seed {self.settings.seed}",
            "out_of_time": budget.over,
            "goes_on": goes_on,
        }
        with clock(None if folder is None else folder / TRAINING_SECONDS):
            trained = self._outer_loop(learner, source, options, machines)
        if trained.interrupted:
            raise OutOfTime if budget.over() else KeyboardInterrupt
        return learner

    def _outer_loop(
        self, learner: Any, source: Source | None, options: dict[str, Any], machines: Machines | None
    ) -> Trained:
        training = self.settings.training
        if self.by_trial:
            from quickstudy.methods.trials.outer_loop import TrialSteps

            if machines is not None:
                return run(machines.trial_steps(learner, self.simulated, training), learner, training, **options)
            return run(TrialSteps(learner, self.simulated, training), learner, training, **options)
        assert source is not None
        if machines is not None:
            return run(machines.demonstration_steps(learner, source, training), learner, training, **options)
        return meta_train(learner, source, training, **options)

    def _seen(self, source: Source | None) -> Seen | None:
        """How what is learned from lies."""
        if source is None or source.batch is None:
            return None
        if isinstance(source, DemonstrationSet):
            return source.seen
        (x, y, mask, _), whole = source.batch, self.family.image is not None
        return Seen(Spread.of([x[mask.bool()].numpy()], whole), Spread.of([y[mask.bool()].numpy()]))

    def _cost(self, source: Source | None) -> Cost:
        training = self.settings.training
        seen = None if source is None else source.batch
        if isinstance(source, DemonstrationSet) and seen is not None:
            tasks, shots, _ = seen.mask.shape
            return Cost(tasks, tasks * shots, int(seen.mask.sum()))
        tasks = training.steps * training.meta_batch
        return Cost(tasks, None if self.by_trial else tasks * (training.shots + training.queries))

    def evaluate(
        self,
        learner: Any,
        split: str | None = None,
        *,
        shots: Sequence[int] | None = None,
        tasks: int | None = None,
        episodes: int | None = None,
        seed: int = 0,
    ) -> Evaluation:
        """Adapts to the first `tasks` tasks of a split and lets the learner act, for each number of shots.

        Args:
            split: of the family; the first test split by default.
            shots: demonstrations to adapt from, or rounds of own trials; by default those of the family, or `ROUNDS`.
            tasks: 100 by default, or all where there are fewer.
            episodes: of each task, of which every one counts; by default 5, or all where there are fewer; by trial, in
                each round, as many as the family says.

        Raises:
            QuickstudyError: an unknown or empty split, too many tasks, or a number that makes no sense.
        """
        split = split or self.family.test_splits[0]
        tasks = min(100, self.family.sizes.get(split) or 100) if tasks is None else tasks
        shots = tuple(self.default_shots if shots is None else shots)
        episodes = self.default_episodes if episodes is None else episodes
        if not shots or min(shots) < 0 or tasks < 1 or episodes < 1 or seed < 0:
            raise QuickstudyError(
                "Evaluation needs shots and a seed of 0 or more, and at least one task and episode; got "
                f"shots {' '.join(map(str, shots)) or 'none'}, seed {seed}, {tasks} tasks and {episodes} episodes."
            )
        if self.by_trial:
            from quickstudy.methods.trials.evaluation import evaluate_trials

            return evaluate_trials(
                learner, self.simulated, split, shots=shots, tasks=tasks, episodes=episodes, seed=seed
            )
        return evaluate(learner, self.family, split, shots=shots, tasks=tasks, episodes=episodes, seed=seed)

    @property
    def default_shots(self) -> tuple[int, ...]:
        """What an evaluation adapts from where nobody says otherwise."""
        return ROUNDS if self.by_trial else self.family.shots

    @property
    def default_episodes(self) -> int:
        """Episodes of each task in an evaluation where nobody says otherwise."""
        return self.family.episodes_per_task if self.by_trial else min(5, self.family.most_episodes or 5)

    def parameters(self) -> int | None:
        """How many numbers the method learns in meta-training; None if it learns nothing there."""
        if self.method.uses != "all":
            return None
        return sum(p.numel() for p in self.build().parameters() if p.requires_grad)


def on_validation(learner: Any, family: TaskFamily, shots: int, tasks: int, episodes: int) -> float:
    """The mean of the family's metric on validation tasks after `shots` demonstrations.

    Tasks too far outside of training are left out, which is said; not a number where the learner itself has no finite
    figure for one, because a learner must not seem better by that.
    """
    result = evaluate(learner, family, "validation", shots=[shots], tasks=tasks, episodes=episodes)
    if result.broken:
        console.print(escape(result.note), soft_wrap=True)
    failed = any(reason.endswith(NOT_FINITE) for reason in result.broken.values())
    return math.nan if failed and not is_share(family.metric) else float(result.metrics[family.metric].mean())


def _is_unscaled(where: Path) -> bool:
    """Whether a checkpoint lies there of a learner without scaling, as before there was any."""
    return checkpoint.exists(where) and not any(n.startswith("scaling.") for n in checkpoint.load(where).tensors)


@contextmanager
def clock(path: Path | None) -> Iterator[None]:
    """Adds what a part of a training took, finished or interrupted, to the seconds of the parts before it."""
    before = 0.0 if path is None else seconds_so_far(path)
    started = time.perf_counter()
    try:
        yield
    finally:
        if path is not None:
            files.write_json(path, before + time.perf_counter() - started)


def seconds_so_far(path: Path) -> float:
    """What `clock` has counted."""
    return float(files.read_json(path)) if path.exists() else 0.0
