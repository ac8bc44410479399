"""Compares methods on a family: trains, tunes and evaluates each with several seeds, and makes the table.

Each (method, seed) is a folder of its own; what is finished is never run again, what was interrupted goes on.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from quickstudy import checkpoint, files
from quickstudy.data import DemonstrationSet, DrawsFresh, Source
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.evaluate import Evaluation, evaluate
from quickstudy.learner import MetaLearner, recognition_loss
from quickstudy.learners.baselines import FineTuneConfig, Transfer
from quickstudy.methods import METHODS, UNTRAINED, Settings, build, from_plain
from quickstudy.progress import console, progress
from quickstudy.results import Cell, Row
from quickstudy.task import TaskFamily
from quickstudy.train import TensorBoard, Validation, meta_train

PRETRAINED_AS = {"no-adaptation": "transfer", "transfer-equal-time": "transfer"}
"""Methods that take their parameters from another one's training, so that they differ in adaptation alone."""

ALWAYS_ADAPTED = frozenset({"replay", "nearest", "oracle", "scratch", "transfer-equal-time"})
"""Methods whose figure without a demonstration would say nothing, or nothing new."""


@dataclass(frozen=True)
class Protocol:
    """What every method is asked to do.

    Attributes:
        seeds: training seeds 0, 1, ...; a seed also draws the demonstrations and episodes of its evaluation.
        splits: test splits.
        shots: numbers of demonstrations to adapt from.
        tasks: held-out tasks of each split.
        episodes: episodes of each task.
        tuning_tasks: validation tasks on which fine-tuning is tuned, with `tuning_episodes` episodes each.
        tuning_steps, tuning_rates: the fine-tuning steps and rates that are tried there.
    """

    seeds: int = 3
    splits: tuple[str, ...] = ()
    shots: tuple[int, ...] = (0, 1)
    tasks: int = 100
    episodes: int = 5
    tuning_tasks: int = 40
    tuning_episodes: int = 2
    tuning_steps: tuple[int, ...] = (20, 100, 300)
    tuning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise QuickstudyError(f"A comparison needs at least one seed; got {self.seeds}.")


TRAINING_SECONDS = "training-seconds.json"
"""File of a training's folder: how long it took, validation included."""


def source_for(settings: Settings, family: TaskFamily) -> Source:
    """The training demonstrations that the settings ask for; the same for every method and seed."""
    if isinstance(family, DrawsFresh):
        return family.fresh()
    source = DemonstrationSet.record(
        family, family.tasks("train", settings.data.tasks), settings.data.demonstrations, seed=0
    )
    training = settings.training
    source.check(training.meta_batch, max(training.shots, training.most_shots), training.queries)
    return source


def validation_for(settings: Settings, family: TaskFamily) -> Validation:
    """The mean of the family's metric on validation tasks after as many demonstrations as in training."""
    data, shots = settings.data, settings.training.shots

    def measure(learner: MetaLearner) -> float:
        return on_validation(learner, family, shots, data.validation_tasks, data.validation_episodes)

    return Validation(family.metric, measure, family.higher_is_better)


def on_validation(learner: MetaLearner, family: TaskFamily, shots: int, tasks: int, episodes: int) -> float:
    """The mean of the family's metric on validation tasks after `shots` demonstrations."""
    result = evaluate(learner, family, "validation", shots=[shots], tasks=tasks, episodes=episodes)
    return float(result.metrics[family.metric].mean())


def train(settings: Settings, family: TaskFamily, source: Source, folder: Path, resume: bool = True) -> MetaLearner:
    """Builds and meta-trains a learner; `folder` gets its checkpoints and its TensorBoard log.

    A finished training is loaded, an unfinished one goes on (unless `resume` is False).
    """
    learner = build(settings, family)
    if settings.start:
        start_from(learner, Path(settings.start))
    if (seen := source.batch) is not None:
        learner.standardise(seen)
    about = {"settings": asdict(settings)}
    if settings.method in UNTRAINED:
        checkpoint.save(folder / "checkpoints/best", learner.state_dict(), about)
        return learner
    with clock(folder / TRAINING_SECONDS):
        trained = meta_train(
            learner,
            source,
            settings.training,
            seed=settings.seed,
            validation=validation_for(settings, family),
            folder=folder,
            about=about,
            resume=resume,
            logger=TensorBoard(folder / "tensorboard"),
            title=f"{settings.method}, seed {settings.seed}",
        )
    if trained.interrupted:
        raise KeyboardInterrupt
    return learner


def start_from(learner: MetaLearner, run: Path) -> None:
    """Gives the base network the parameters of that of another run, where name and shape are the same.

    A head for another number of classes gives the mean of its rows to every class: all of them start alike.

    Raises:
        QuickstudyError: not a run, or none of its parameters fits.
    """
    where, own = run / "checkpoints/best", learner.state_dict()
    if not checkpoint.exists(where):
        raise QuickstudyError(f"'{run}' is no run to start from: it has no checkpoints/best.")
    there = {n: t for n, t in checkpoint.load(where).tensors.items() if n.startswith("base.") and n in own}
    if learner.base.criterion is recognition_loss:
        there = {n: for_classes(t, own[n]) if n.startswith("base.network.head.") else t for n, t in there.items()}
    fitting = {n: t for n, t in there.items() if own[n].shape == t.shape}
    if not any(n.startswith("base.network.") for n in fitting):
        raise QuickstudyError(f"No layer of the base network of '{run}' fits the one to be trained.")
    learner.load_state_dict({**own, **fitting})


def for_classes(head: Tensor, like: Tensor) -> Tensor:
    """A head's weight or bias [class, ...] for the number of classes of `like`: where it differs, its mean for each."""
    if head.shape == like.shape or head.shape[1:] != like.shape[1:]:
        return head
    return head.mean(0, keepdim=True).expand_as(like).clone()


def tune(
    learner: Transfer, family: TaskFamily, protocol: Protocol, shots: int, milliseconds: float | None = None
) -> FineTuneConfig:
    """Chooses the fine-tuning steps and rate by the family's metric on validation tasks.

    Args:
        milliseconds: the time that adaptation may take; the number of steps is then what fits into it.
    """
    steps = protocol.tuning_steps if milliseconds is None else (_steps_within(learner, family, milliseconds),)
    grid = [FineTuneConfig(s, r) for s in steps for r in protocol.tuning_rates]
    figures = []
    with progress("tuning the fine-tuning", len(grid)) as advance:
        for config in grid:
            learner.config = config
            figure = on_validation(learner, family, shots, protocol.tuning_tasks, protocol.tuning_episodes)
            figures.append(figure if family.higher_is_better else -figure)
            advance(1, f"best {max(figures):.3f}")
    learner.config = grid[int(np.argmax(figures))]
    return learner.config


def _steps_within(learner: Transfer, family: TaskFamily, milliseconds: float) -> int:
    """How many fine-tuning steps fit into this time, at least one."""
    learner.config = FineTuneConfig(steps=20)
    result = evaluate(learner, family, "validation", shots=[1], tasks=1, episodes=1)
    return max(1, round(20 * milliseconds / result.adaptation_ms[0]))


def compare(
    family: TaskFamily,
    methods: Sequence[str],
    settings_for: Callable[[str, int], Settings],
    protocol: Protocol,
    folder: Path,
    command: str,
    by_task: bool = False,
) -> list[Cell]:
    """Trains and evaluates each method with each seed, and writes one table for each split to `folder/results`.

    Args:
        settings_for: the settings of (method, seed).
        command: the command that repeats this, for the table.
        by_task: add a row for each task, where they have names that mean something to people.
    """
    for method in methods:
        if method not in {*METHODS, *PRETRAINED_AS}:
            raise unknown("method", method, {*METHODS, *PRETRAINED_AS})
    splits = list(protocol.splits) or family.test_splits
    for split in splits:
        family.tasks(split, protocol.tasks)  # more tasks than exist are told before an hour of training
    _remember(folder, {method: settings_for(method, 0) for method in methods})
    source = functools.cache(lambda: source_for(settings_for(methods[0], 0), family))
    runs: dict[str, list[dict[str, Evaluation]]] = {method: [] for method in methods}
    efforts: dict[str, list[float]] = {method: [] for method in methods}
    with clock(folder / "seconds.json"):
        for seed in range(protocol.seeds):
            for method in methods:
                run = _Run(family, method, seed, settings_for, protocol, folder, source)
                runs[method].append({split: run.evaluation(split) for split in splits})
                efforts[method].append(run.training_seconds())
                _say(method, seed, family, runs[method][-1])
    seconds = seconds_so_far(folder / "seconds.json")
    costs: dict[str, dict[str, Any]] = {
        method: {
            "parameters": parameters(settings_for(PRETRAINED_AS.get(method, method), 0), family),
            "training_s": round(float(np.mean(efforts[method])), 1) or None,
        }
        for method in methods
    }
    cells = []
    for split in splits:
        made = [
            replace(row, **costs[method])
            for method in methods
            for row in rows(method, family, protocol, [r[split] for r in runs[method]])
        ]
        if by_task:
            made += [row for m in methods for row in rows_by_task(m, family, [r[split] for r in runs[m]])]
        cells.append(write_cell(family, split, made, seconds, folder, command))
    return cells


def parameters(settings: Settings, family: TaskFamily) -> int | None:
    """How many numbers a method learns in meta-training; None if it learns nothing there."""
    if settings.method in UNTRAINED:
        return None
    return sum(p.numel() for p in build(settings, family).parameters() if p.requires_grad)


def _remember(folder: Path, settings: dict[str, Settings]) -> None:
    """Notes the methods' settings in the folder, so that what lies there is only gone on with under the same ones."""
    path = folder / "settings.json"
    then = json.loads(path.read_text()) if path.exists() else {}
    changed = [m for m, now in settings.items() if m in then and from_plain(Settings, then[m], str(path)) != now]
    if changed:
        raise QuickstudyError(
            f"'{folder}' holds results of {', '.join(changed)} with other settings; name another folder, or remove it."
        )
    files.write(path, json.dumps(then | {method: asdict(s) for method, s in settings.items()}, indent=1))


@contextmanager
def clock(path: Path) -> Iterator[None]:
    """Adds what a part of a comparison took, finished or interrupted, to the seconds of the parts before it."""
    before = seconds_so_far(path)
    started = time.perf_counter()
    try:
        yield
    finally:
        files.write(path, json.dumps(before + time.perf_counter() - started))


def seconds_so_far(path: Path) -> float:
    """What `clock` has counted."""
    return float(json.loads(path.read_text())) if path.exists() else 0.0


def write_cell(family: TaskFamily, split: str, made: list[Row], seconds: float, folder: Path, command: str) -> Cell:
    """The table of one split, also written to `folder/results/<family>-<split>.json`."""
    cell = Cell.measured_here(
        cell=f"{family.name}-{split}",
        metric=family.metric,
        unit="fraction" if family.metric in ("success", "accuracy") else "squared error",
        protocol=describe(family, split),
        command=command,
        seconds=seconds,
        rows=made,
    )
    cell.write(folder / "results" / f"{cell.cell}.json")
    return cell


class _Run:
    """One method with one seed: a folder, its learner, its evaluations."""

    def __init__(
        self,
        family: TaskFamily,
        method: str,
        seed: int,
        settings_for: Callable[[str, int], Settings],
        protocol: Protocol,
        folder: Path,
        source: Callable[[], Source],
    ) -> None:
        self.family, self.method, self.seed, self.protocol = family, method, seed, protocol
        self.settings_for, self.root, self.source = settings_for, folder, source
        self.folder = folder / f"{method}-seed{seed}"
        self._learner: MetaLearner | None = None

    def evaluation(self, split: str) -> Evaluation:
        protocol = self.protocol
        shots = [k for k in protocol.shots if k > 0 or self.method not in ALWAYS_ADAPTED] or [1]
        words = "-".join(str(k) for k in shots)
        path = self.folder / f"{split}-{protocol.tasks}x{protocol.episodes}-shots-{words}.json"
        if path.exists():
            return Evaluation.load(path)
        console.print(f"[bold]{self.method}[/], seed {self.seed}: {split}")
        result = evaluate(
            self.learner(),
            self.family,
            split,
            shots=shots,
            tasks=protocol.tasks,
            episodes=protocol.episodes,
            seed=self.seed,
        )
        result.save(path)
        return result

    def training_seconds(self) -> float:
        """What its meta-training took; zero for a method without, or where an older version did not note it."""
        parent = PRETRAINED_AS.get(self.method, self.method)
        return seconds_so_far(self.root / f"{parent}-seed{self.seed}" / TRAINING_SECONDS)

    def learner(self) -> MetaLearner:
        """Trained, and tuned on validation tasks where it has something to tune."""
        if self._learner is None:
            parent = PRETRAINED_AS.get(self.method, self.method)
            settings = self.settings_for(parent, self.seed)
            trained = train(settings, self.family, self.source(), self.root / f"{parent}-seed{self.seed}")
            self._learner = self._specialise(trained)
        return self._learner

    def _specialise(self, trained: MetaLearner) -> MetaLearner:
        if self.method == "no-adaptation":
            learner = build(self.settings_for("no-adaptation", self.seed), self.family)
            learner.load_state_dict(trained.state_dict())
            return learner
        if isinstance(trained, Transfer):
            limit = self._rival_ms() if self.method == "transfer-equal-time" else None
            chosen = tune(trained, self.family, self.protocol, max(1, min(self.protocol.shots[-1], 1)), limit)
            console.print(f"{self.method}: {chosen.steps} steps at {chosen.rate}, chosen on validation tasks")
        return trained

    def _rival_ms(self) -> float:
        """The adaptation time of the slowest MAML-like method that was evaluated with this seed."""
        times = [
            ms
            for rival in ("maml", "fomaml", "anil", "meta-sgd")
            for path in sorted((self.root / f"{rival}-seed{self.seed}").glob("*x*.json"))
            for ms in Evaluation.load(path).adaptation_ms
        ]
        if not times:
            raise QuickstudyError("transfer-equal-time needs maml, fomaml, anil or meta-sgd before it in the methods.")
        return max(times)


def rows(method: str, family: TaskFamily, protocol: Protocol, evaluations: Sequence[Evaluation]) -> list[Row]:
    """One row for each number of shots that means something for the method."""
    made = []
    for i, shots in enumerate(evaluations[0].shots):
        values = np.stack([e.metrics[family.metric][i].mean(-1) for e in evaluations])
        made.append(
            Row(
                method=method,
                shots=shots,
                value=round(float(values.mean()), 4),
                ci95=[round(bound, 4) for bound in bootstrap(values)],
                seeds=len(evaluations),
                tasks=protocol.tasks,
                episodes=protocol.episodes,
                ms=round(float(np.median([e.adaptation_ms[i] for e in evaluations])), 2) or None,
            )
        )
    return made


def rows_by_task(method: str, family: TaskFamily, evaluations: Sequence[Evaluation]) -> list[Row]:
    """One row for each task, named by its caption, and number of shots: the mean over seeds and episodes."""
    first = evaluations[0]
    captions = [family.caption(task) for task in family.tasks(first.split, len(first.tasks))]
    values = np.stack([e.metrics[family.metric] for e in evaluations])
    return [
        Row(
            method,
            shots,
            round(float(values[:, i, j].mean()), 4),
            seeds=len(evaluations),
            episodes=values.shape[-1],
            workload=caption,
        )
        for j, caption in enumerate(captions)
        for i, shots in enumerate(first.shots)
    ]


def bootstrap(values: np.ndarray, replicates: int = 5000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values` [seed, task], resampling both seeds and tasks.

    Episodes are averaged before: they are no independent samples of the family.
    """
    rng = np.random.default_rng(seed)
    seeds, tasks = values.shape
    means = np.empty(replicates)
    for i in range(replicates):
        means[i] = values[rng.integers(seeds, size=seeds)][:, rng.integers(tasks, size=tasks)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def describe(family: TaskFamily, split: str) -> str:
    """The protocol in one sentence."""
    return (
        f"Held-out tasks of split '{split}'; {family.protocol}; each learner adapts to a task from its demonstrations "
        f"alone, every episode of the quota counts; mean {family.metric} with a 95 % bootstrap interval over tasks and "
        "seeds."
    )


def _say(method: str, seed: int, family: TaskFamily, evaluations: dict[str, Evaluation]) -> None:
    figures = [
        f"{split} {shots}-shot {e.metrics[family.metric][i].mean():.3f}"
        for split, e in evaluations.items()
        for i, shots in enumerate(e.shots)
    ]
    console.print(f"{method}, seed {seed}: {', '.join(figures)}")
