"""Compares methods on a family: trains, tunes and evaluates each with several seeds, and makes the table.

Methods that learn from demonstrations and by trial may stand side by side. Each (method, seed) is a folder of its own;
what is finished is never run again, what was interrupted goes on.
"""

import copy
import functools
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.markup import escape

from quickstudy.data import Source
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.evaluation import Evaluation
from quickstudy.experiment import COST, TRAINING_SECONDS, Cost, Experiment, Machines, clock, seconds_so_far
from quickstudy.io import files
from quickstudy.io.budget import Budget, OutOfTime
from quickstudy.io.progress import console
from quickstudy.io.provenance import LOCK, NOTE, at_work
from quickstudy.method import Method
from quickstudy.methods import get as method_called
from quickstudy.methods import records
from quickstudy.results import tables
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import rows, rows_by_task, write_cell
from quickstudy.results.runs import begun, settings_from_plain
from quickstudy.results.tuning import Tuning, tune
from quickstudy.settings import Amounts, Config, NonNegativeInt, PositiveInt, Settings
from quickstudy.task import TaskFamily

_ROLES = ("meta-learner", "baseline", "floor", "oracle")


@dataclass(frozen=True)
class Protocol(Config):
    """What every method is asked to do.

    Attributes:
        seeds: training seeds 0, 1, ...; a seed also draws the demonstrations and episodes of its evaluation.
        splits: test splits; all of them where empty.
        shots: numbers of demonstrations, or of rounds of own trials, to adapt from.
        tasks: held-out tasks of each split.
        episodes: of each task, for methods that learn from demonstrations.
        trial_episodes: of each task in each round, for methods that learn by trial; 0 for the family's own number.
        tuning: of fine-tuning, on validation tasks.
    """

    seeds: PositiveInt = 3
    splits: tuple[str, ...] = ()
    shots: Amounts = (0, 1)
    tasks: PositiveInt = 100
    episodes: PositiveInt = 5
    trial_episodes: NonNegativeInt = 0
    tuning: Tuning = field(default_factory=Tuning)


def suited(family: TaskFamily) -> list[Method]:
    """Every method that can learn the family's tasks; those that build on another's training come after it."""
    found = [record for record in records().values() if not record.why_not(family)]
    return sorted(found, key=lambda record: (_ROLES.index(record.role), bool(record.tuned), bool(record.pretrained_as)))


def usual(family: TaskFamily) -> list[Method]:
    """What a comparison holds where nobody says otherwise: from demonstrations, or by trial where there are none."""
    way = family.learned_from[0]
    return [record for record in suited(family) if record.compared and record.learns_from == way]


def compare(
    family: TaskFamily | str,
    methods: Sequence[str | Method] | None = None,
    protocol: Protocol | None = None,
    folder: Path | str = "runs/comparison",
    *,
    experiment_for: Callable[[str | Method, int], Experiment] | None = None,
    command: str = "",
    budget: Budget | None = None,
    asked: Mapping[str, Any] | None = None,
    by_task: bool = False,
    device: str = "cpu",
    machines: Machines | None = None,
    **changes: Any,
) -> list[Cell]:
    """Trains, evaluates and ranks each method with each seed.

    `folder/results` gets a table for each split, `folder` comparison.csv, .json and .tex with all of them. What is
    finished is never run again; what a budget leaves out is said, and the same call goes on with it.

    Args:
        methods: records, or what `quickstudy.methods.get` knows them by; `usual` where not given.
        experiment_for: the experiment of (method, seed); that with default settings where not given.
        command: the command that repeats this, for the table.
        asked: what was asked for, as plain data, from which `quickstudy resume` repeats it.
        by_task: add a row for each task, where they have names that mean something to people.
        device: what methods that learn from demonstrations train on.
        machines: where trainings and evaluations are done, each when there is room, if not one after the other in this
            process. All must see the folder.
        changes: fields of the protocol that differ, such as `seeds=2`.

    Returns:
        the tables; none where the budget ended before the first method was evaluated.

    Raises:
        QuickstudyError: an unknown method, one that does not suit the family, more tasks than there are, or a folder
            with results under other settings.
    """
    made = Experiment.of(family, None).family if isinstance(family, str) else family
    make = experiment_for or (lambda method, seed: Experiment.of(family, method, seed))
    for name in changes.keys() - {one.name for one in fields(Protocol)}:
        raise unknown("number of a comparison", name, [one.name for one in fields(Protocol)])
    protocol, budget, folder = replace(protocol or Protocol(), **changes), budget or Budget(), Path(folder)
    chosen = [m if isinstance(m, Method) else method_called(m) for m in methods or usual(made)]
    named = {record.name: given for record, given in zip(chosen, methods or chosen, strict=True)}
    first = {record.name: _trained_as(make, named, record, 0) for record in chosen}  # what does not suit is told first
    if begun(folder):
        raise QuickstudyError(f"'{folder}' holds a run; a comparison needs a folder of its own.")
    splits = list(protocol.splits) or made.test_splits
    for split in splits:
        made.tasks(split, protocol.tasks)  # more tasks than exist are told before an hour of training
    settings = _with_those_before(folder, {name: experiment.settings for name, experiment in first.items()})
    about: dict[str, Any] = {"methods": list(first), "splits": splits, "protocol": asdict(protocol)}
    about |= {"asked": dict(asked)} if asked else {}
    source = functools.cache(
        lambda: next(e for e in first.values() if e.method.uses == "all" and not e.by_trial).source(machines)
    )
    done: dict[str, list[_Run]] = {}
    left: list[str] = []
    runs = [_Run(make, named, r, seed, protocol, folder, device) for seed in range(protocol.seeds) for r in chosen]
    with at_work(folder, "comparison", command, about), clock(folder / "seconds.json"):
        files.write_json(folder / "settings.json", settings, indent=1)
        for run in runs if machines is None else _done_by(machines, runs, splits, source, budget):
            run.lend(source, budget)
            try:
                _say(run, {split: run.evaluation(split) for split in splits})
                done.setdefault(run.method.name, []).append(run)
            except OutOfTime:
                left.append(f"{run.method.name} seed {run.seed}")
        done = {record.name: sorted(done[record.name], key=_seed) for record in chosen if record.name in done}
    cells = []
    if done:
        seconds = seconds_so_far(folder / "seconds.json")
        cells = [_cell_of(split, done, made, protocol, seconds, folder, command, by_task) for split in splits]
        tables.write(folder, cells)
    if left:
        console.print(
            f"[bold]Out of time:[/] {len(left)} of {len(chosen) * protocol.seeds} did not fit "
            f"({escape(', '.join(left))}); "
            f"[bold]quickstudy resume {escape(shlex.quote(str(folder)))}[/] goes on where this one stopped.",
            soft_wrap=True,
        )
    return cells


def _trained_as(
    make: Callable[[str | Method, int], Experiment], named: Mapping[str, str | Method], record: Method, seed: int
) -> Experiment:
    """The experiment whose training a method takes its parameters from: its own, or another one's."""
    make(named[record.name], seed)
    name = record.pretrained_as or record.name
    return make(named.get(name, name), seed)


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
    evaluations = {name: [run.evaluation(split) for run in runs] for name, runs in done.items()}
    ranks = {runs[0].method.opponent: name for name, runs in reversed(done.items()) if runs[0].method.opponent}
    reference = ranks[min(ranks)] if ranks else ""
    ranked: list[tuple[float, list[Row]]] = []
    for name, found in evaluations.items():
        opponent = evaluations[reference] if reference and name != reference else None
        made = rows(done[name][0].method, family, found, opponent)
        short = f"{len(found)} of {protocol.seeds} seeds" if len(found) < protocol.seeds else ""
        costs = done[name][0].costs(done[name])
        made = [replace(row, **costs, note="; ".join(filter(None, (short, row.note)))) for row in made]
        ranked.append((made[-1].value or 0.0, made))
    ranked.sort(key=lambda pair: -pair[0] if family.higher_is_better else pair[0])
    made = [row for _, some in ranked for row in some]
    if by_task:
        made += [
            row for name, found in evaluations.items() for row in rows_by_task(done[name][0].method, family, found)
        ]
    return write_cell(family, split, made, seconds, folder, command, reference)


def _with_those_before(folder: Path, settings: dict[str, Settings]) -> dict[str, Any]:
    """The methods' settings with those that the folder has, which is only gone on with under the same ones."""
    path = folder / "settings.json"
    then = files.read_json(path) if path.exists() else {}
    changed = [m for m, now in settings.items() if m in then and settings_from_plain(then[m], str(path)) != now]
    if changed:
        raise QuickstudyError(
            f"'{folder}' holds results of {', '.join(changed)} with other settings; name another folder, or remove it."
        )
    return {**then, **{method: asdict(s) for method, s in settings.items()}}


class _Run:
    """One method with one seed: a folder, its learner, its evaluations."""

    def __init__(
        self,
        make: Callable[[str | Method, int], Experiment],
        named: Mapping[str, str | Method],
        method: Method,
        seed: int,
        protocol: Protocol,
        root: Path,
        device: str,
    ) -> None:
        self.method, self.seed, self.protocol, self.root = method, seed, protocol, root
        self.experiment = make(named[method.name], seed)
        self._training = _trained_as(make, named, method, seed)
        self._device = "cpu" if self._training.by_trial else device
        self.folder = root / f"{method.name}-seed{seed}"
        self.trained_in = root / f"{self._training.method.name}-seed{seed}"
        self._learner: Any = None

    def lend(self, source: Callable[[], Source | None], budget: Budget) -> None:
        """Gives it what it shares with others while it is at work."""
        self._source, self._budget = source, budget

    @property
    def needs_source(self) -> bool:
        """Whether its training takes the demonstrations that all such trainings share."""
        return self._training.method.uses == "all" and not self._training.by_trial

    def finished(self, splits: Sequence[str]) -> bool:
        """Whether all its evaluations are there."""
        return all(self._path(split).exists() for split in splits)

    def _path(self, split: str) -> Path:
        words = "-".join(str(k) for k in self._shots)
        return self.folder / f"{split}-{self.protocol.tasks}x{self._episodes}-shots-{words}.json"

    @property
    def _shots(self) -> list[int]:
        return [k for k in self.protocol.shots if k > 0 or not self.method.always_adapted] or [1]

    @property
    def _episodes(self) -> int:
        if self.experiment.by_trial:
            return self.protocol.trial_episodes or self.experiment.default_episodes
        return self.protocol.episodes

    def evaluation(self, split: str) -> Evaluation:
        path, protocol = self._path(split), self.protocol
        if path.exists():
            return Evaluation.load(path)
        if self._budget.over():
            raise OutOfTime
        console.print(f"[bold]{escape(self.method.name)}[/], seed {self.seed}: {escape(split)}")
        learner = self.learner()
        with self._budget.part(f"evaluation of {self.method.name}"):
            result = self.experiment.evaluate(
                learner, split, shots=self._shots, tasks=protocol.tasks, episodes=self._episodes, seed=self.seed
            )
        result.save(path)
        return result

    def costs(self, runs: Sequence["_Run"]) -> dict[str, Any]:
        """What the method costs, as fields of a row: of this seed, but for the mean time of training over `runs`."""
        path = self.trained_in / COST
        plain = files.read_json(path) if path.exists() else {}
        return {
            **asdict(Cost(**plain)),
            "parameters": self._training.parameters(),
            "training_s": round(float(np.mean([run.training_seconds() for run in runs])), 1) or None,
        }

    def training_seconds(self) -> float:
        """What its meta-training took; zero for a method without, or where an older version did not note it."""
        return seconds_so_far(self.trained_in / TRAINING_SECONDS)

    def learner(self) -> Any:
        """Trained, and tuned on validation tasks where it has something to tune."""
        if self._learner is None:
            shared = self._source() if self.needs_source else None
            goes_on = f"quickstudy resume {shlex.quote(str(self.root))} goes on from there"
            trained = self._training.train(
                self.trained_in, source=shared, budget=self._budget, device=self._device, goes_on=goes_on
            )
            if self.method.pretrained_as:
                own = self.experiment.build()
                own.scaling = copy.deepcopy(trained.scaling)
                own.load_state_dict(trained.state_dict())
                trained = own.eval()
            self._learner = self._tuned(trained)
        return self._learner

    def _tuned(self, learner: Any) -> Any:
        if self.method.tuned:
            limit = self._rival_ms() if self.method.tuned == "equal-time" else None
            record = self.folder / "tuning.json"
            family = self.experiment.family
            chosen = tune(learner, family, self.protocol.tuning, 1, limit, record, self._budget)
            console.print(f"{self.method.name}: {chosen.steps} steps at {chosen.rate}, chosen on validation tasks")
        return learner

    def _rival_ms(self) -> float:
        """The adaptation time of the slowest MAML-like method that was evaluated with this seed."""
        rivals = [record.name for record in records().values() if record.gradient_based]
        times = [
            ms
            for rival in rivals
            for path in sorted((self.root / f"{rival}-seed{self.seed}").glob("*x*.json"))
            for ms in Evaluation.load(path).adaptation_ms
        ]
        if not times:
            raise QuickstudyError(f"{self.method.name} needs one of {', '.join(rivals)} before it in the methods.")
        return max(times)


def _seed(run: _Run) -> int:
    return run.seed


def _done_by(
    machines: Machines,
    runs: Sequence[_Run],
    splits: Sequence[str],
    source: Callable[[], Source | None],
    budget: Budget,
) -> Iterator[_Run]:
    """The runs, in the order in which machines are done with them.

    Those that build on one training are one part of the work. What is compared by time waits for those that it is
    compared with.
    """
    yield from (run for run in runs if run.finished(splits))
    parts: dict[Path, list[_Run]] = {}
    for run in runs:
        if not run.finished(splits):
            parts.setdefault(run.trained_in, []).append(run)
    work = list(parts.values())
    after = {
        i: {j for j, rivals in enumerate(work) if rivals[0].seed == part[0].seed and any(map(_is_rival, rivals))} - {i}
        for i, part in enumerate(work)
        if any(run.method.tuned == "equal-time" for run in part)
    }
    shared = source() if any(run.needs_source for part in work for run in part) else None
    titles = [f"{part[0].method.name} seed {part[0].seed}" for part in work]
    limit = None if budget.seconds is None else budget.left()
    for place, _ in machines.each(_finish, (shared, tuple(splits), limit), work, titles, after):
        yield from work[place]


def _is_rival(run: _Run) -> bool:
    return run.method.gradient_based


def _finish(shared: tuple[Source | None, Sequence[str], float | None], runs: Sequence[_Run]) -> None:
    """Makes all evaluations of runs that build on one training, as far as there is time."""
    source, splits, limit = shared
    budget = Budget(limit)
    if not (runs[0].root / NOTE).exists():
        raise QuickstudyError(
            f"{platform.node()} does not see '{runs[0].root}': all machines must see a comparison's folder."
        )
    runs[0].trained_in.mkdir(exist_ok=True)
    with FileLock(runs[0].trained_in / LOCK), suppress(OutOfTime):  # one that was taken for lost may still be at work
        for run in runs:
            run.lend(lambda: source, budget)
            for split in splits:
                run.evaluation(split)


def _say(run: _Run, evaluations: dict[str, Evaluation]) -> None:
    metric = run.experiment.family.metric
    figures = [
        f"{split} {shots}-shot {e.metrics[metric][i].mean():.3f}"
        for split, e in evaluations.items()
        for i, shots in enumerate(e.shots)
    ]
    console.print(f"{run.method.name}, seed {run.seed}: {', '.join(figures)}")
