"""Compares methods on a family: trains, tunes and evaluates each with several seeds, and makes the table.

Each (method, seed) is a folder of its own; what is finished is never run again, what was interrupted goes on.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.batching import usable
from quickstudy.data import DemonstrationSet, DrawsFresh, Source
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.evaluate import Evaluation, evaluate
from quickstudy.io import checkpoint, files
from quickstudy.io.budget import Budget, OutOfTime
from quickstudy.io.progress import console, progress
from quickstudy.io.provenance import note_start
from quickstudy.learner import MetaLearner, recognition_loss
from quickstudy.methods.catalogue import METHODS, UNTRAINED, Settings, build, from_plain, suits
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.results import statistics, tables
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.statistics import bootstrap
from quickstudy.task import TaskFamily
from quickstudy.train import TensorBoard, Validation, meta_train

PRETRAINED_AS = {"no-adaptation": "transfer", "transfer-equal-time": "transfer"}
"""Methods that take their parameters from another one's training, so that they differ in adaptation alone."""

ALWAYS_ADAPTED = frozenset({"replay", "nearest", "oracle", "scratch", "transfer-equal-time"})
"""Methods whose figure without a demonstration would say nothing, or nothing new."""

UNITS = {"success": "fraction", "accuracy": "fraction", "mse": "squared error", "error": "squared error"}
"""What a metric counts in, where its name does not say it all."""

REFERENCES = ("transfer", "scratch", "no-adaptation")
"""The opponent that probabilities of improvement are over: the first of these that was compared."""


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


COST = "cost.json"
"""File of a training's folder: what it learned from, see `Cost`."""


@dataclass(frozen=True)
class Cost:
    """What meta-training used.

    Attributes:
        train_tasks: training tasks.
        demonstrations: of all of them together.
        env_steps: environment steps in these demonstrations; None where a family has no steps. Roll-outs on validation
            tasks, which choose among checkpoints, are not counted.
    """

    train_tasks: int | None = None
    demonstrations: int | None = None
    env_steps: int | None = None


def cost_of(settings: Settings, source: Source) -> Cost:
    """What a training with these settings uses of a source."""
    seen, training = source.batch, settings.training
    if isinstance(source, DemonstrationSet) and seen is not None:
        tasks, shots, _ = seen.mask.shape
        return Cost(tasks, tasks * shots, int(seen.mask.sum()))
    tasks = training.steps * training.meta_batch
    return Cost(tasks, tasks * (training.shots + training.queries))


def all_methods(family: TaskFamily) -> tuple[str, ...]:
    """Every method that can learn the family's tasks, opponents after those whose training or time they share."""
    return tuple(m for m in (*METHODS, "transfer-equal-time") if suits(m, family))


def source_for(settings: Settings, family: TaskFamily) -> Source:
    """The training demonstrations that the settings ask for; the same for every method and seed.

    Raises:
        QuickstudyError: meta-batches as the settings want them cannot be had.
    """
    training = settings.training
    wanted = training.meta_batch, max(training.shots, training.most_shots), training.queries
    if isinstance(family, DrawsFresh):
        fresh = family.fresh()
        fresh.sample(torch.Generator(), *wanted)  # what it cannot give is told before a folder is made
        return fresh
    source = DemonstrationSet.record(
        family, family.tasks("train", settings.data.tasks), settings.data.demonstrations, seed=0
    )
    source.check(*wanted)
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


def train(
    settings: Settings,
    family: TaskFamily,
    source: Source,
    folder: Path,
    resume: bool = True,
    budget: Budget | None = None,
    device: str = "cpu",
) -> MetaLearner:
    """Builds and meta-trains a learner on `device`; `folder` gets its checkpoints and its TensorBoard log.

    A finished training is loaded, an unfinished one goes on (unless `resume` is False), on whatever device.

    Raises:
        QuickstudyError: there is no such device.
        OutOfTime: the budget ended first; the training goes on from its last checkpoint.
        KeyboardInterrupt: it was stopped.
    """
    budget, place = budget or Budget(), usable(device)
    learner = build(settings, family)
    if settings.start:
        start_from(learner, Path(settings.start))
    if (seen := source.batch) is not None:
        learner.standardise(seen)
    learner.to(place)
    about = {"settings": asdict(settings)}
    if settings.method in UNTRAINED:
        checkpoint.save(folder / "checkpoints/best", learner.state_dict(), about)
        return learner
    files.write(folder / COST, json.dumps(asdict(cost_of(settings, source))))
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
            out_of_time=budget.over,
        )
    if trained.interrupted:
        raise OutOfTime if budget.over() else KeyboardInterrupt
    return learner


def start_from(learner: MetaLearner, run: Path) -> None:
    """Gives the base network the parameters of that of another run, where name and shape are the same.

    A network that embeds images and one that recognises them by their embeddings have the embedding in common.
    A head for another number of classes gives the mean of its rows to every class: all of them start alike.

    Raises:
        QuickstudyError: not a run, or none of its parameters fits.
    """
    where, own = run / "checkpoints/best", learner.state_dict()
    if not checkpoint.exists(where):
        raise QuickstudyError(f"'{run}' is no run to start from: it has no checkpoints/best.")
    found = renamed(checkpoint.load(where).tensors, own)
    there = {n: t for n, t in found.items() if n.startswith("base.") and n in own}
    if learner.base.criterion is recognition_loss:
        there = {n: for_classes(t, own[n]) if n.startswith("base.network.head.") else t for n, t in there.items()}
    fitting = {n: t for n, t in there.items() if own[n].shape == t.shape}
    if not any(n.startswith("base.network.") for n in fitting):
        raise QuickstudyError(f"No layer of the base network of '{run}' fits the one to be trained.")
    learner.load_state_dict({**own, **fitting})
    wanted = [n for n in own if n.startswith("base.network.")]
    taken = sum(n in fitting for n in wanted)
    console.print(f"{taken} of the {len(wanted)} tensors of the base network are taken from '{run}'.", soft_wrap=True)


_EMBEDS = "base.network.embedding."


def renamed(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A network that embeds images, by the names that it has in `own`: alone, or within a classifier."""
    within, wanted = (any(n.startswith(_EMBEDS) for n in some) for some in (tensors, own))
    if wanted and not within:
        return {n.replace("base.network.", _EMBEDS, 1): t for n, t in tensors.items()}
    if within and not wanted:
        kept = {n: t for n, t in tensors.items() if n.startswith(_EMBEDS) or not n.startswith("base.network.")}
        return {n.replace(_EMBEDS, "base.network.", 1): t for n, t in kept.items()}
    return tensors


def for_classes(head: Tensor, like: Tensor) -> Tensor:
    """A head's weight or bias [class, ...] for the number of classes of `like`: where it differs, its mean for each."""
    if head.shape == like.shape or head.shape[1:] != like.shape[1:]:
        return head
    return head.mean(0, keepdim=True).expand_as(like).clone()


def tune(
    learner: Transfer,
    family: TaskFamily,
    protocol: Protocol,
    shots: int,
    milliseconds: float | None = None,
    record: Path | None = None,
    budget: Budget | None = None,
) -> FineTuneConfig:
    """Chooses the fine-tuning steps and rate by the family's metric on validation tasks.

    Args:
        milliseconds: the time that adaptation may take; the number of steps is then what fits into it.
        record: a file of the figures so far, so that no setting is ever tried twice.

    Raises:
        OutOfTime: the budget ended first.
    """
    budget = budget or Budget()
    known: list[list[float]] = json.loads(record.read_text()) if record is not None and record.exists() else []
    if milliseconds is not None and known:
        grid = [FineTuneConfig(int(known[0][0]), rate) for rate in protocol.tuning_rates]  # timed once, not each time
        return _tuned(learner, family, protocol, shots, grid, known, record, budget)
    steps = protocol.tuning_steps if milliseconds is None else (_steps_within(learner, family, milliseconds),)
    grid = [FineTuneConfig(s, r) for s in steps for r in protocol.tuning_rates]
    return _tuned(learner, family, protocol, shots, grid, known, record, budget)


def _tuned(
    learner: Transfer,
    family: TaskFamily,
    protocol: Protocol,
    shots: int,
    grid: Sequence[FineTuneConfig],
    known: list[list[float]],
    record: Path | None,
    budget: Budget,
) -> FineTuneConfig:
    figures = []
    with progress("tuning the fine-tuning", len(grid)) as advance:
        for config in grid:
            found = next((f for steps, rate, f in known if (steps, rate) == (config.steps, config.rate)), None)
            if found is None:
                with budget.part("tuning"):
                    learner.config = config
                    found = on_validation(learner, family, shots, protocol.tuning_tasks, protocol.tuning_episodes)
                known.append([config.steps, config.rate, found])
                if record is not None:
                    files.write(record, json.dumps(known))
            figures.append(found if family.higher_is_better else -found)
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
    budget: Budget | None = None,
    asked: Mapping[str, Any] | None = None,
    by_task: bool = False,
) -> list[Cell]:
    """Trains, evaluates and ranks each method with each seed.

    `folder/results` gets a table for each split, `folder` comparison.csv, .json and .tex with all of them. What is
    finished is never run again; what a budget leaves out is said, and the same call goes on with it.

    Args:
        settings_for: the settings of (method, seed).
        command: the command that repeats this, for the table.
        asked: what was asked for, as plain data, from which `quickstudy resume` repeats it.
        by_task: add a row for each task, where they have names that mean something to people.

    Returns:
        the tables; none where the budget ended before the first method was evaluated.
    """
    budget = budget or Budget()
    for method in methods:
        if method not in {*METHODS, *PRETRAINED_AS}:
            raise unknown("method", method, {*METHODS, *PRETRAINED_AS})
        build(settings_for(PRETRAINED_AS.get(method, method), 0), family)  # what does not suit is told first
    splits = list(protocol.splits) or family.test_splits
    for split in splits:
        family.tasks(split, protocol.tasks)  # more tasks than exist are told before an hour of training
    _remember(folder, {method: settings_for(method, 0) for method in methods})
    about = {"methods": list(methods), "splits": splits, "protocol": asdict(protocol)}
    note_start(folder, "comparison", command, {**about, "asked": dict(asked)} if asked else about)
    source = functools.cache(lambda: source_for(settings_for(methods[0], 0), family))
    made: dict[str, list[_Run]] = {method: [] for method in methods}
    left: list[str] = []
    with clock(folder / "seconds.json"):
        for seed in range(protocol.seeds):
            for method in methods:
                run = _Run(family, method, seed, settings_for, protocol, folder, source, budget)
                try:
                    _say(method, seed, family, {split: run.evaluation(split) for split in splits})
                    made[method].append(run)
                except OutOfTime:
                    left.append(f"{method} seed {seed}")
    done = {method: runs for method, runs in made.items() if runs}
    cells = []
    if done:
        seconds = seconds_so_far(folder / "seconds.json")
        cells = [_cell_of(split, done, family, protocol, seconds, folder, command, by_task) for split in splits]
        tables.write(folder, cells)
    if left:
        console.print(
            f"[bold]Out of time:[/] {len(left)} of {len(methods) * protocol.seeds} did not fit ({', '.join(left)}); "
            "the same command goes on where this one stopped.",
            soft_wrap=True,
        )
    return cells


def _cell_of(
    split: str,
    done: dict[str, list["_Run"]],
    family: TaskFamily,
    protocol: Protocol,
    seconds: float,
    folder: Path,
    command: str,
    by_task: bool = False,
) -> Cell:
    """The table of one split, the best method on top."""
    evaluations = {method: [run.evaluation(split) for run in runs] for method, runs in done.items()}
    reference = next((method for method in REFERENCES if method in done), "")
    ranked: list[tuple[float, list[Row]]] = []
    for method, found in evaluations.items():
        beside = evaluations[reference] if reference and method != reference else None
        made = rows(method, family, protocol, found, beside)
        short = f"{len(found)} of {protocol.seeds} seeds" if len(found) < protocol.seeds else ""
        made = [replace(row, **done[method][0].costs(done[method]), note=short) for row in made]
        ranked.append((made[-1].value or 0.0, made))
    ranked.sort(key=lambda pair: -pair[0] if family.higher_is_better else pair[0])
    made = [row for _, some in ranked for row in some]
    if by_task:
        made += [row for method, found in evaluations.items() for row in rows_by_task(method, family, found)]
    return write_cell(family, split, made, seconds, folder, command, reference)


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


def write_cell(
    family: TaskFamily,
    split: str,
    made: list[Row],
    seconds: float,
    folder: Path,
    command: str,
    reference: str = "",
) -> Cell:
    """The table of one split, also written to `folder/results/<family>-<split>.json`."""
    cell = Cell.measured_here(
        cell=f"{family.name}-{split}",
        metric=family.metric,
        unit=UNITS.get(family.metric, ""),
        protocol=describe(family, split),
        command=command,
        seconds=seconds,
        rows=made,
        reference=reference,
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
        budget: Budget,
    ) -> None:
        self.budget = budget
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
        if self.budget.over():
            raise OutOfTime
        console.print(f"[bold]{self.method}[/], seed {self.seed}: {split}")
        learner = self.learner()
        with self.budget.part(f"evaluation of {self.method}"):
            result = evaluate(
                learner,
                self.family,
                split,
                shots=shots,
                tasks=protocol.tasks,
                episodes=protocol.episodes,
                seed=self.seed,
            )
        result.save(path)
        return result

    def costs(self, runs: Sequence["_Run"]) -> dict[str, Any]:
        """What the method costs, as fields of a row: of this seed, but for the mean time of training over `runs`."""
        parent = PRETRAINED_AS.get(self.method, self.method)
        path = self._trained_in / COST
        plain = json.loads(path.read_text()) if path.exists() else {}
        return {
            **asdict(Cost(**plain)),
            "parameters": parameters(self.settings_for(parent, 0), self.family),
            "training_s": round(float(np.mean([run.training_seconds() for run in runs])), 1) or None,
        }

    def training_seconds(self) -> float:
        """What its meta-training took; zero for a method without, or where an older version did not note it."""
        return seconds_so_far(self._trained_in / TRAINING_SECONDS)

    @property
    def _trained_in(self) -> Path:
        return self.root / f"{PRETRAINED_AS.get(self.method, self.method)}-seed{self.seed}"

    def learner(self) -> MetaLearner:
        """Trained, and tuned on validation tasks where it has something to tune."""
        if self._learner is None:
            parent = PRETRAINED_AS.get(self.method, self.method)
            settings = self.settings_for(parent, self.seed)
            trained = train(settings, self.family, self.source(), self._trained_in, budget=self.budget)
            self._learner = self._specialise(trained)
        return self._learner

    def _specialise(self, trained: MetaLearner) -> MetaLearner:
        if self.method == "no-adaptation":
            learner = build(self.settings_for("no-adaptation", self.seed), self.family)
            learner.load_state_dict(trained.state_dict())
            return learner
        if isinstance(trained, Transfer):
            limit = self._rival_ms() if self.method == "transfer-equal-time" else None
            record = self.folder / "tuning.json"
            chosen = tune(trained, self.family, self.protocol, 1, limit, record, self.budget)
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


def rows(
    method: str,
    family: TaskFamily,
    protocol: Protocol,
    evaluations: Sequence[Evaluation],
    reference: Sequence[Evaluation] | None = None,
) -> list[Row]:
    """One row for each number of shots that means something for the method.

    Args:
        evaluations: one for each seed.
        reference: of the opponent that probabilities of improvement are over.
    """
    made = []
    for i, shots in enumerate(evaluations[0].shots):
        values = scores(evaluations, family.metric, i)
        likely: dict[str, Any] = {}
        if reference is not None and shots in reference[0].shots:
            other = scores(reference, family.metric, reference[0].shots.index(shots))
            better, worse = (values, other) if family.higher_is_better else (other, values)
            likely = {
                "improvement": round(statistics.improvement(better, worse), 4),
                "improvement_ci95": _rounded(statistics.improvement_interval(better, worse)),
            }
        beside = {name: round(float(scores(evaluations, name, i).mean()), 4) for name in family.secondary_metrics}
        made.append(
            Row(
                method=method,
                shots=shots,
                value=round(float(values.mean()), 4),
                ci95=_rounded(bootstrap(values)),
                iqm=round(float(statistics.iqm(values)), 4),
                iqm_ci95=_rounded(statistics.interval(values)),
                **likely,
                seeds=len(evaluations),
                tasks=protocol.tasks,
                episodes=protocol.episodes,
                ms=round(float(np.median([e.adaptation_ms[i] for e in evaluations])), 2) or None,
                secondary_metrics=beside or None,
            )
        )
    return made


def scores(evaluations: Sequence[Evaluation], metric: str, place: int) -> np.ndarray:
    """[seed, task], each the mean over the task's episodes, after the number of shots at `place`."""
    return np.stack([e.metrics[metric][place].mean(-1) for e in evaluations])


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


def _rounded(bounds: Sequence[float]) -> list[float]:
    return [round(bound, 4) for bound in bounds]


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
