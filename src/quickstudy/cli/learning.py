"""Commands that learn: train, profile, evaluate, adapt, match, compare, resume."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from quickstudy.cli.words import (
    FamilyName,
    MaybeFloat,
    MaybeInt,
    MaybePath,
    MaybeText,
    Names,
    RunFolder,
    TimeUnit,
    Unit,
    command_line,
    optional,
    reading_of,
    say_next,
)
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console

if TYPE_CHECKING:
    from quickstudy.experiment import Machines


_NOT_ASKED = ("output_dir", "budget", "device", "cluster", "workers")
"""Options of a comparison that say where and how long it is made, and not what."""


_PATIENCE_S = 300.0
"""How long a worker of a cluster is waited for where nobody says otherwise."""


@contextmanager
def machines(
    cluster: str | None, workers: int | None, patience: float, device: str
) -> Iterator[tuple["Machines | None", str]]:
    """The cluster, if one was asked for, and what this process itself trains or validates on."""
    if cluster is None:
        yield None, device
        return
    from quickstudy.cluster.connection import ClusterConfig, connected

    with connected(ClusterConfig(cluster, workers, patience, device)) as elsewhere:
        yield elsewhere, "cpu"


@dataclass(frozen=True)
class Train:
    """Meta-train a method on a family, from demonstrations or by trial: quickstudy train grasping --method maml.

    'quickstudy train FAMILY --method METHOD --help' shows every setting with its default for these two."""

    experiment: Any
    output_dir: Path | None
    resume: bool
    device: str
    cluster: str | None = None
    workers: int | None = None
    patience: float = _PATIENCE_S

    def run(self) -> None:
        from quickstudy.results import runs

        experiment = self.experiment
        console.print(f"{experiment.family.name}: {escape(experiment.family.protocol)}.", soft_wrap=True)
        folder = self.output_dir or runs.new_folder(Path("runs"), experiment.family.name, experiment.method.name)
        with machines(self.cluster, self.workers, self.patience, self.device) as (elsewhere, device):
            runs.train_run(experiment, folder, self.resume, command_line(), device, elsewhere)
        where = shlex.quote(str(folder))
        console.print(
            f"The run is in [bold]{escape(where)}[/]; its curves: tensorboard --logdir {escape(where)}/tensorboard",
            soft_wrap=True,
        )
        say_next("evaluate", folder)


@dataclass(frozen=True)
class Profile:
    """Tell where the time of meta-training goes: quickstudy profile navigation2d --method maml-trpo.

    It takes the settings of train and keeps nothing."""

    experiment: Any
    outer_steps: int

    def run(self) -> None:
        from quickstudy.profile import profile, table

        console.print(table(self.experiment, profile(self.experiment, self.outer_steps)))


@dataclass(frozen=True)
class Evaluate:
    """Let a trained learner adapt to held-out tasks and act in a fixed quota of episodes of each."""

    run_folder: RunFolder
    split: MaybeText = None
    """A split of the family; every test split by default."""
    shots: Annotated[tuple[int, ...] | None, optional("[INT [INT ...]]")] = None
    """Numbers of demonstrations to adapt from, or of rounds of own trials; by default those that the family names."""
    tasks: MaybeInt = None
    """Held-out tasks of each split; 100, or all where there are fewer."""
    episodes: MaybeInt = None
    """Episodes of each task, of which every one counts; 5, or all where there are fewer; by trial, of each round, as
    many as the family says."""
    seed: int = 0
    """Draws the demonstrations, the starts and the noise."""
    checkpoint: Literal["best", "last"] = "best"
    """The best on validation tasks, or the last."""
    objects: MaybePath = None
    """A folder of .obj and .stl files of your own; those that can be grasped become the split to evaluate."""
    unit: Unit = "m"
    """Of length in these files."""

    def run(self) -> None:
        from quickstudy.results import runs, tables

        cells = runs.evaluate_run(
            self.run_folder,
            self.split,
            self.shots,
            self.tasks,
            self.episodes,
            self.seed,
            self.checkpoint,
            command_line(),
            self.objects,
            self.unit,
        )
        for cell in cells:
            tables.print_table(cell)
        say_next("report", self.run_folder)


@dataclass(frozen=True)
class Adapt:
    """Learn a new task from your own demonstrations, and save the skill."""

    run_folder: RunFolder
    demo: tuple[Path, ...]
    """One or more .npz files with 'observations' [step, obs] and 'actions' [step, act], or data sets, of one task."""
    output: MaybePath = None
    """Where the skill goes; skill.safetensors in the run folder by default."""
    observation: MaybeText = None
    """Features, keys or topics that are the observation, as a,b; by default those of the training."""
    action: MaybeText = None
    """Likewise of the action."""
    rate: MaybeFloat = None
    """Steps a second that the demonstration is brought to."""
    time_unit: TimeUnit = ""
    """Of its time stamps."""

    def run(self) -> None:
        from quickstudy.results.adaptation import adapt_run

        reading = reading_of(self.observation, self.action, self.rate, self.time_unit)
        found = adapt_run(self.run_folder, self.demo, self.output, reading)
        console.print(
            f"Adapted in {found.milliseconds:.0f} ms: imitation error {found.before:.4g} before, {found.after:.4g} "
            "after."
        )
        if found.outside is not None:
            far = "[yellow]Far outside of training:[/]" if found.outside.far else "Within training; the farthest"
            console.print(f"{far} {escape(str(found.outside))}.", soft_wrap=True, highlight=False)
        console.print(found.verdict, soft_wrap=True, highlight=False)
        console.print(f"The skill is in [bold]{escape(str(found.skill))}[/].", soft_wrap=True)
        say_next("evaluate", self.run_folder, after="tells how such skills do on unseen tasks")


@dataclass(frozen=True)
class Match:
    """Find the known tasks that your demonstration is most like, and learn from the best one's skill on."""

    run_folder: RunFolder
    demo: Positional[tuple[Path, ...]]
    """One or more .npz files with 'observations' [step, obs] and 'actions' [step, act], or data sets, of one task."""
    skills_run: MaybePath = None
    """The run of 'transfer' that skills are fine-tuned from; RUN itself where it is one."""
    output: MaybePath = None
    """Where the skill goes; matched-skill.safetensors in the run folder by default."""
    shown: int = 5
    """How many known tasks the table shows."""
    observation: MaybeText = None
    """Features, keys or topics that are the observation, as a,b; by default those of the training."""
    action: MaybeText = None
    """Likewise of the action."""
    rate: MaybeFloat = None
    """Steps a second that the demonstration is brought to."""
    time_unit: TimeUnit = ""
    """Of its time stamps."""

    def run(self) -> None:
        from quickstudy.results.task_similarity import match_run

        reading = reading_of(self.observation, self.action, self.rate, self.time_unit)
        found = match_run(self.run_folder, self.demo, self.skills_run, self.output, reading)
        table = Table("known task", "what it is", "alike, %")
        for task, probability, caption in found.ranking[: self.shown]:
            table.add_row(task.name, caption, f"{100 * probability:.1f}")
        console.print(table)
        console.print(escape(found.verdict), soft_wrap=True, highlight=False)
        if found.skill is None:
            after = "where RUN is a run of transfer: learns from that task's skill on"
            say_next("match", self.run_folder, *self.demo, "--skills-run", "RUN", after=after)
            return
        console.print(
            f"Learned from {found.start}'s skill on: imitation error {found.before:.4f} before the demonstration, "
            f"{found.after:.4f} after; without matching {found.without:.4f}.",
            soft_wrap=True,
        )
        console.print(f"The skill is in [bold]{escape(str(found.skill))}[/].")
        say_next("evaluate", self.run_folder)


@dataclass(frozen=True)
class Compare:
    """Train, tune and compare methods on a family with several seeds; the same command goes on after a break."""

    family: FamilyName
    methods: Names = ()
    """Method names as for train; or 'all'. By default the usual ones of those that suit the family."""
    seeds: int = 3
    """Training seeds 0, 1, ... of each method."""
    splits: Names = ()
    """Test splits; all of them by default."""
    shots: Annotated[tuple[int, ...] | None, optional("[INT [INT ...]]")] = None
    """Numbers of demonstrations, or of rounds of own trials, to adapt from; 0 1 3 5, as far as there are so many."""
    tasks: MaybeInt = None
    """Held-out tasks of each split; 100, or all where there are fewer."""
    episodes: int = 2
    """Episodes of each task, for methods that learn from demonstrations; every one counts."""
    trial_episodes: MaybeInt = None
    """Episodes of each task in each round, for methods that learn by trial; as many as the family says by default."""
    steps: MaybeInt = None
    """Outer steps of every training; the family's default where not given."""
    budget: MaybeText = None
    """Wall time, such as 30min or 2h: what does not fit is left for the next call of the same command."""
    output_dir: MaybePath = None
    """runs/compare-<family> by default."""
    objects: MaybePath = None
    """A folder of .obj and .stl files of your own; those that can be grasped become the split to compare on."""
    unit: Unit = "m"
    """Of length in these files."""
    observation: MaybeText = None
    """Of your own data: features, keys or topics that are the observation, as a,b."""
    action: MaybeText = None
    """Likewise of the action."""
    rate: MaybeFloat = None
    """Steps a second that your own recordings are brought to."""
    time_unit: TimeUnit = ""
    """Of their time stamps."""
    mask: MaybeText = None
    """The group of their episodes that is read, such as 'train'."""
    device: str = "cpu"
    """What methods that learn from demonstrations train on."""
    cluster: MaybeText = None
    """Run trainings and evaluations side by side on this Ray cluster, HOST:PORT; auto is the one of this machine."""
    workers: MaybeInt = None
    """Of the cluster, at most; as many as it has cores by default, or accelerators with --device cuda."""

    def run(self) -> None:
        from quickstudy import families
        from quickstudy.experiment import Experiment
        from quickstudy.io.budget import Budget, seconds_of
        from quickstudy.results import compare, tables
        from quickstudy.results.tuning import Tuning

        budget = Budget(seconds_of(self.budget) if self.budget else None)
        reading = reading_of(self.observation, self.action, self.rate, self.time_unit, self.mask)
        family = families.get(self.family, self.objects, self.unit, reading)
        chosen: Sequence[str] = self.methods
        if not chosen or chosen == ("all",):
            chosen = [m.name for m in (compare.suited(family) if chosen else compare.usual(family))]
        folder = self.output_dir or Path("runs") / f"compare-{family.name}"
        splits = ("objects",) if self.objects is not None and not self.splits else self.splits
        sizes = [family.sizes.get(split, 100) for split in splits or family.test_splits]
        tasks = min(100, *sizes) if self.tasks is None else self.tasks
        tuning = Tuning(tasks=max(1, min(Tuning.tasks, family.sizes.get("validation", 0))))
        most = family.most_shown or 5
        shots = self.shots or tuple(k for k in (0, 1, 3, 5) if k <= most)
        protocol = compare.Protocol(self.seeds, splits, shots, tasks, self.episodes, self.trial_episodes or 0, tuning)

        def experiment_for(method: Any, seed: int) -> Experiment:
            changes = {"reading": asdict(reading)}
            changes |= {} if self.steps is None else {"training": {"steps": self.steps}}
            return Experiment.of(family, method, seed, changes).named(families.located(self.family))

        asked = {name: value for name, value in asdict(self).items() if name not in _NOT_ASKED}
        asked |= {"objects": str(self.objects) if self.objects else None, "methods": tuple(chosen)}
        with machines(self.cluster, self.workers, _PATIENCE_S, self.device) as (elsewhere, _):
            cells = compare.compare(
                family,
                chosen,
                protocol,
                folder,
                experiment_for=experiment_for,
                command=command_line(),
                budget=budget,
                asked=asked,
                by_task=self.objects is not None,
                device=self.device,
                machines=elsewhere,
            )
        if cells:
            tables.print_comparison(cells)
            console.print(f"The table is in {escape(str(folder))}/comparison.csv, .json and .tex.")
            say_next("report", folder)


@dataclass(frozen=True)
class Resume:
    """Go on with a training or a comparison from its folder alone, or repeat it in a new one."""

    run_folder: RunFolder
    anew: MaybePath = None
    """Repeat it from the start in this folder instead."""
    budget: MaybeText = None
    """Wall time of a comparison, as for compare."""
    device: str = "cpu"
    """What torch trains on."""
    cluster: MaybeText = None
    """Share the work over the machines of this Ray cluster, as for train and compare."""
    workers: MaybeInt = None
    """Of the cluster, at most."""
    patience: float = _PATIENCE_S
    """Seconds that a worker of the cluster is waited for before others take over."""

    def run(self) -> None:
        from quickstudy.io.provenance import NOTE, read_note
        from quickstudy.results import runs

        folder = self.anew or self.run_folder
        if not (self.run_folder / NOTE).exists() and runs.begun(self.run_folder):  # made by trial before version 0.2
            self._train(runs.load_settings(self.run_folder, "last"), folder)
            return
        note = read_note(self.run_folder)
        if not note.keys() & {"asked", "settings"}:
            raise QuickstudyError(
                f"'{self.run_folder}' is gone on with by the command that made it: {note.get('command', 'unknown')}."
            )
        if note.get("kind") == "comparison":
            asked: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in note["asked"].items()}
            asked["objects"] = Path(asked["objects"]) if asked.get("objects") else None
            where: dict[str, Any] = {"device": self.device, "cluster": self.cluster, "workers": self.workers}
            Compare(**asked, budget=self.budget, output_dir=folder, **where).run()
            return
        self._train(runs.settings_from_plain(note["settings"], f"{self.run_folder}/{NOTE}"), folder)

    def _train(self, settings: Any, folder: Path) -> None:
        from quickstudy import families, methods
        from quickstudy.experiment import Experiment
        from quickstudy.results import runs

        if folder == self.run_folder and runs.is_finished(folder):
            steps = settings.training.steps
            console.print(
                f"The training in {escape(str(folder))} is finished: {steps} of {steps} steps.", soft_wrap=True
            )
            say_next("evaluate", folder)
            return
        family = families.get(settings.family, reading=settings.reading)
        experiment = Experiment(family, methods.get(settings.method), settings)
        elsewhere = self.device, self.cluster, self.workers, self.patience
        Train(experiment, folder, runs.begun(folder), *elsewhere).run()


@dataclass(frozen=True)
class Reproduce:
    """Repeat a run from its folder alone, and tell whether its figures come again. Exit status 1 where they do not."""

    run_folder: RunFolder
    output_dir: MaybePath = None
    """Where the repetition goes; beside the run, with '-again' after its name, by default."""
    device: str = "cpu"
    """What torch trains on."""

    def run(self) -> None:
        import tyro

        from quickstudy.results import reproduction, runs

        again = self.output_dir or self.run_folder.with_name(f"{self.run_folder.absolute().name}-again")
        if not runs.is_finished(self.run_folder):
            raise QuickstudyError(f"'{self.run_folder}' is not finished; 'quickstudy resume' goes on with it first.")
        Resume(self.run_folder, anew=again, device=self.device).run()
        for command in reproduction.commands(self.run_folder):
            words = shlex.split(command)
            if words[:2] == ["quickstudy", "evaluate"]:
                asked = tyro.cli(Evaluate, args=words[2:])
                replace(asked, run_folder=again).run()
        table = Table("figure", "then", "its interval", "now", "")
        found = reproduction.figures(self.run_folder, again)
        for one in found:
            interval = "-" if one.interval is None else f"{one.interval[0]:.4g} to {one.interval[1]:.4g}"
            sign = "[green]agrees[/]" if one.agrees else "[red]differs[/]"
            table.add_row(one.what, f"{one.before:.4g}", interval, f"{one.now:.4g}", sign)
        if found:
            console.print(table)
        same = reproduction.same_bits(self.run_folder, again)
        console.print("The learner is the same, bit for bit." if same else "The learner differs in some bits.")
        if not all(one.agrees for one in found):
            sys.exit(1)
