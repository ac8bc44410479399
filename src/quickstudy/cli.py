"""The command line: each command is one dataclass whose `run` calls one public function and says what to try next.

Nothing heavy is imported before a command needs it, so that help and mistakes are answered at once. The options of
`train` and `profile` are the settings of the family and method that are named, see `quickstudy.options`.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io.progress import console

_ABOUT = (
    "A robot learns a new skill from a few demonstrations or trials, because it has learned how to learn. "
    "Start with: quickstudy demo"
)

FamilyName = Positional[Annotated[str, arg(metavar="FAMILY", help="A task family; 'quickstudy families' lists them.")]]
RunFolder = Positional[Annotated[Path, arg(metavar="RUN", help="The folder of a training; 'train' says where it is.")]]
Unit = Literal["m", "cm", "mm", "in"]
Format = Literal["lerobot", "minari", "npz", "csv"]
State = Literal["finished", "running", "stopped"]


def _optional(metavar: str) -> Any:
    """An option that has no value unless it is given one, which its help says in words."""
    return arg(metavar=metavar, help_behavior_hint="")


MaybeInt = Annotated[int | None, _optional("INT")]
MaybeFloat = Annotated[float | None, _optional("FLOAT")]
MaybeText = Annotated[str | None, _optional("STR")]
MaybePath = Annotated[Path | None, _optional("PATH")]
Names = Annotated[tuple[str, ...], _optional("[STR [STR ...]]")]


def say_next(*words: object, after: str = "") -> None:
    """Prints a command that works when it is pasted."""
    command = shlex.join(["quickstudy", *map(str, words)])
    console.print(f"Next: [bold]{escape(command)}[/]{after}", soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Demo:
    """The whole path in a few minutes: meta-train on grasping, adapt to unseen objects from one demonstration each,
    compare with the alternatives, write a report with plots and a video of the arm."""

    output_dir: Path = Path("runs/demo")
    """Where everything goes; a second call goes on where the first was stopped."""
    video: bool = True
    """Film the arm before and after adaptation."""

    def run(self) -> None:
        from quickstudy.demo import demo

        demo(self.output_dir, self.video)


@dataclass(frozen=True)
class Families:
    """List the task families, or draw sampled tasks of one: quickstudy families grasping."""

    family: Positional[Annotated[str | None, _optional("[FAMILY]")]] = None
    """The family to draw; without one, all are listed."""
    split: MaybeText = None
    """The split to draw from; 'train', or 'objects' where there are some, by default."""
    tasks: int = 24
    """How many tasks the contact sheet shows."""
    output: MaybePath = None
    """The contact sheet's file; families/<family>-<split>.png by default."""
    objects: MaybePath = None
    """A folder of .obj and .stl files of your own, to draw those that can be grasped."""
    unit: Unit = "m"
    """Of length in these files."""

    def run(self) -> None:
        from quickstudy import families

        if self.family is None:
            self._list()
            return
        family = families.get(self.family, self.objects, self.unit)
        split = self.split or ("train" if self.objects is None else "objects")
        tasks = min(self.tasks, family.sizes.get(split, self.tasks))
        path = self.output or Path("families") / f"{family.name}-{split}.png"
        families.draw(family, split, tasks, path)
        console.print(f"{tasks} tasks of '{split}': {path}")
        say_next("train", self.family)

    def _list(self) -> None:
        from quickstudy import families

        table = Table(
            Column("family", no_wrap=True),
            "learned from",
            "what is learned",
            "test splits",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        missing: dict[str, list[str]] = {}
        for record in families.records().values():
            try:
                family = record.build()
            except QuickstudyError:  # its data or robot is not here
                missing.setdefault(record.needs, []).append(record.name)
                continue
            learned_from = "both" if len(family.learned_from) > 1 else family.learned_from[0]
            table.add_row(record.name, learned_from, escape(record.summary), ", ".join(family.test_splits))
        console.print(table)
        for needs, names in missing.items():
            console.print(f"Not here yet: {', '.join(names)} ({escape(needs)}).", soft_wrap=True)
        say_next("families", "grasping", after=" draws some of its tasks.")


@dataclass(frozen=True)
class Check:
    """Check a family, or a method on a family against its contract: quickstudy check my_module:MyFamily."""

    family: Positional[Annotated[str, arg(metavar="FAMILY")]]
    """A family of your own, as package.module:attribute or as a file, or one of quickstudy's."""
    method: MaybeText = None
    """A method of your own, as package.module:attribute, or one of quickstudy's, to check on that family."""

    def run(self) -> None:
        from quickstudy import check, families, methods

        family = families.get(self.family)
        if self.method is None:
            points, whose = check.check(family), f"the family '{family.name}'"
        else:
            points = check.check_method(methods.get(self.method), family)
            whose = f"the method '{self.method}' on '{family.name}'"
        console.print(f"The contract of {escape(whose)}, point by point:", soft_wrap=True)
        table = Table(box=None, show_header=False)
        signs = {True: "[green]passed[/]", False: "[red]FAILED[/]", None: "[dim]–[/]"}
        for point in points:
            table.add_row(signs[point.passed], f"[bold]{escape(point.name)}:[/] {escape(point.said)}")
        console.print(table)
        failed, skipped = (sum(point.passed is how for point in points) for how in (False, None))
        if failed:
            console.print(f"{failed} of {len(points)} points failed.")
            sys.exit(1)
        console.print(f"{len(points) - skipped} points passed{f', {skipped} did not apply' if skipped else ''}.")
        say_next("train", self.family, *(["--method", self.method] if self.method else []))


@dataclass(frozen=True)
class Record:
    """Let a family's experts demonstrate tasks, and write what they did as a data set: quickstudy record grasping."""

    family: FamilyName
    demos: int = 5
    """Demonstrations of each task."""
    tasks: int = 20
    """Tasks."""
    split: str = "train"
    """The split that they are of."""
    format: Annotated[Format | None, _optional("{lerobot,minari,npz,csv}")] = None
    """Of the data set; what the ending of --output says, or lerobot."""
    output: MaybePath = None
    """A folder, or a file that ends with .npz or .csv; recordings/<family>-<split> by default."""
    rate: MaybeFloat = None
    """Steps a second that the data set states; the family's own by default."""
    seed: int = 0
    """Draws the starts and the noise."""

    def run(self) -> None:
        from quickstudy import families
        from quickstudy.datasets.record import record

        family = families.get(self.family)
        ending = f".{self.format}" if self.format in ("npz", "csv") else ""
        path = self.output or Path("recordings") / f"{family.name}-{self.split}{ending}"
        record(family, self.split, self.tasks, self.demos, path, self.format, self.rate, self.seed)
        console.print(f"{self.tasks} tasks with {self.demos} demonstrations each are in [bold]{escape(str(path))}[/].")
        say_next("data", "inspect", path)


@dataclass(frozen=True)
class FetchOmniglot:
    """Fetch Omniglot into the cache, once: quickstudy data omniglot."""

    source: Annotated[Path | None, arg(name="from", metavar="PATH", help_behavior_hint="")] = None
    """A folder with its archives that were downloaded by hand, or a file that this command made elsewhere."""

    def run(self) -> None:
        from quickstudy.datasets import fetch_omniglot

        fetch_omniglot(self.source)
        say_next("train", "omniglot-5way", "--method", "prototypical")


@dataclass(frozen=True)
class Inspect:
    """Look through a data set: its episodes, rates and ranges, and channels that are missing or constant."""

    path: Positional[Path]
    """A LeRobotDataset v3 or a Minari folder, or a .npz or .csv file of demonstrations."""
    output: MaybePath = None
    """The plots' file; <name>-inspection.png in the current folder by default."""

    def run(self) -> None:
        from quickstudy.datasets.inspection import inspect, plot, tables

        found = inspect(self.path)
        for table in tables(found):
            console.print(table)
        for warning in found.warnings:
            console.print(f"[yellow]Note:[/] {escape(warning)}", soft_wrap=True)
        output = self.output or Path(f"{self.path.absolute().stem}-inspection.png")
        plot(found, output)
        console.print(f"The plots are in [bold]{escape(str(output))}[/].")
        say_next("train", self.path)


@dataclass(frozen=True)
class Data:
    """Look through a data set of demonstrations, or fetch one: quickstudy data inspect PATH."""

    what: OmitSubcommandPrefixes[
        Annotated[FetchOmniglot, subcommand("omniglot", prefix_name=False)]
        | Annotated[Inspect, subcommand("inspect", prefix_name=False)]
    ]

    def run(self) -> None:
        self.what.run()


@dataclass(frozen=True)
class Train:
    """Meta-train a method on a family, from demonstrations or by trial: quickstudy train grasping --method maml.

    'quickstudy train FAMILY --method METHOD --help' shows every setting with its default for these two."""

    experiment: Any
    output_dir: Path | None
    resume: bool
    device: str

    def run(self) -> None:
        from quickstudy.results import runs

        experiment = self.experiment
        console.print(f"{experiment.family.name}: {escape(experiment.family.protocol)}.", soft_wrap=True)
        folder = self.output_dir or runs.new_folder(Path("runs"), experiment.family.name, experiment.method.name)
        runs.train_run(experiment, folder, self.resume, command_line(), self.device)
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
    shots: Annotated[tuple[int, ...] | None, _optional("[INT [INT ...]]")] = None
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

    def run(self) -> None:
        from quickstudy.results import runs

        path, before, after, milliseconds = runs.adapt_run(self.run_folder, self.demo, self.output)
        console.print(f"Adapted in {milliseconds:.0f} ms: imitation error {before:.4f} before, {after:.4f} after.")
        console.print(f"The skill is in [bold]{escape(str(path))}[/].")
        say_next("evaluate", self.run_folder, after=" tells how such skills do on unseen tasks.")


@dataclass(frozen=True)
class Match:
    """Find the known tasks that your demonstration is most like, and learn from the best one's skill on."""

    run_folder: RunFolder
    demo: Positional[tuple[Path, ...]]
    """One or more .npz files with 'observations' [step, obs] and 'actions' [step, act], all of one task."""
    skills_run: MaybePath = None
    """The run of 'transfer' that skills are fine-tuned from; RUN itself where it is one."""
    output: MaybePath = None
    """Where the skill goes; matched-skill.safetensors in the run folder by default."""
    shown: int = 5
    """How many known tasks the table shows."""

    def run(self) -> None:
        from quickstudy.results.task_similarity import match_run

        found = match_run(self.run_folder, self.demo, self.skills_run, self.output)
        table = Table("known task", "what it is", "same task, %")
        for task, probability, caption in found.ranking[: self.shown]:
            table.add_row(task.name, caption, f"{100 * probability:.1f}")
        console.print(table)
        if found.skill is None:
            where = ", where RUN is a run of transfer, learns from that task's skill on."
            say_next("match", self.run_folder, *self.demo, "--skills-run", "RUN", after=where)
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
    shots: tuple[int, ...] = (0, 1, 3, 5)
    """Numbers of demonstrations, or of rounds of own trials, to adapt from."""
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

    def run(self) -> None:
        from quickstudy import families
        from quickstudy.experiment import Experiment
        from quickstudy.io.budget import Budget, seconds_of
        from quickstudy.results import compare, tables
        from quickstudy.results.tuning import Tuning

        budget = Budget(seconds_of(self.budget) if self.budget else None)
        family = families.get(self.family, self.objects, self.unit)
        chosen: Sequence[str] = self.methods
        if not chosen or chosen == ("all",):
            chosen = [m.name for m in (compare.suited(family) if chosen else compare.usual(family))]
        folder = self.output_dir or Path("runs") / f"compare-{family.name}"
        splits = ("objects",) if self.objects is not None and not self.splits else self.splits
        tasks = self.tasks or min([100, *(family.sizes.get(split, 100) for split in splits or family.test_splits)])
        tuning = Tuning(tasks=max(1, min(Tuning.tasks, family.sizes.get("validation", 0))))
        protocol = compare.Protocol(
            self.seeds, splits, self.shots, tasks, self.episodes, self.trial_episodes or 0, tuning
        )

        def experiment_for(method: Any, seed: int) -> Experiment:
            changes = {"training": {"steps": self.steps}} if self.steps else {}
            made = Experiment.of(family, method, seed, changes)
            return made.named(self.family)

        asked = {name: value for name, value in asdict(self).items() if name not in ("output_dir", "budget")}
        asked |= {"objects": str(self.objects) if self.objects else None, "methods": tuple(chosen)}
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
            Compare(**asked, budget=self.budget, output_dir=folder).run()
            return
        self._train(runs.settings_from_plain(note["settings"], f"{self.run_folder}/{NOTE}"), folder)

    def _train(self, settings: Any, folder: Path) -> None:
        from quickstudy import families, methods
        from quickstudy.experiment import Experiment
        from quickstudy.results import runs

        experiment = Experiment(families.get(settings.family), methods.get(settings.method), settings)
        Train(experiment, folder, runs.begun(folder), self.device).run()


@dataclass(frozen=True)
class Runs:
    """List runs and comparisons, the last changed first: state, progress and headline."""

    root: Positional[Path] = Path("runs")
    """The folder to look in."""
    family: MaybeText = None
    """Only those of this family."""
    method: MaybeText = None
    """Only those of this method, or comparisons with it."""
    state: Annotated[State | None, _optional("{finished,running,stopped}")] = None
    """Only those in this state."""

    def run(self) -> None:
        from quickstudy.results import runs

        found = [
            run
            for run in runs.listed(self.root)
            if self.family in (None, run.family)
            and (self.method is None or self.method in run.method.split())
            and self.state in (None, run.state)
        ]
        if not found:
            console.print(f"No such run in '{escape(str(self.root))}'.")
            return
        table = Table(Column("run", overflow="fold"), "family", "method", "state", Column("progress", justify="right"),
                      "headline")  # fmt: skip
        for run in found:
            done, wanted = run.progress
            words = (str(run.folder), run.family, run.method, run.state, f"{done}/{wanted}", run.headline)
            table.add_row(*map(escape, words))
        console.print(table)
        stopped = next((run.folder for run in found if run.state == "stopped"), None)
        if stopped is not None:
            say_next("resume", stopped, after=" goes on where it stopped.")


@dataclass(frozen=True)
class Report:
    """Write report.html for a run or a comparison: its tables, charts, films and 3D replays in one file."""

    run_folder: RunFolder
    video: bool = True
    """Films and 3D replays; they are taken once."""

    def run(self) -> None:
        from quickstudy.report.build import write_report

        path = write_report(self.run_folder, command_line(), self.video)
        size = path.stat().st_size / 1e6
        console.print(f"The report is in [bold]{escape(str(path))}[/] ({size:.1f} MB)", soft_wrap=True)


@dataclass(frozen=True)
class Push:
    """Share a trained learner, with a model card: quickstudy push RUN owner/name, or quickstudy push RUN ./folder."""

    run_folder: RunFolder
    target: Positional[Annotated[str, arg(metavar="REPO_OR_FOLDER")]]
    """A repository of the Hugging Face Hub, or a folder that is not there yet."""
    license: str = ""
    """The learner's licence, as the Hub names them: apache-2.0, cc-by-4.0, ..."""

    def run(self) -> None:
        from quickstudy.results.hub import push

        where = push(self.run_folder, self.target, self.license)
        console.print(f"The learner is in [bold]{escape(where)}[/]; its README.md says what it is.")
        say_next("pull", self.target, after=" on another machine.")


@dataclass(frozen=True)
class Pull:
    """Get a learner that was shared, as a run folder: quickstudy pull owner/name, or quickstudy pull ./folder."""

    source: Positional[Annotated[str, arg(metavar="REPO_OR_FOLDER")]]
    """A repository of the Hugging Face Hub, or a folder that push made."""
    output_dir: MaybePath = None
    """The run folder; runs/<name> by default."""

    def run(self) -> None:
        from quickstudy.results.hub import pull
        from quickstudy.results.runs import example_of

        run = pull(self.source, self.output_dir)
        console.print(f"The run is in [bold]{escape(str(run))}[/]; its README.md says what it is.")
        example = example_of(run)
        if example is None:
            say_next("evaluate", run)
        else:
            say_next("adapt", run, "--demo", example)


_COMMANDS = {
    "demo": Demo, "families": Families, "check": Check, "record": Record, "data": Data, "train": Train,
    "evaluate": Evaluate, "adapt": Adapt, "match": Match, "compare": Compare, "resume": Resume, "runs": Runs,
    "report": Report, "push": Push, "pull": Pull, "profile": Profile,
}  # fmt: skip


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["quickstudy", *sys.argv[1:]])


def _parsed(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for."""
    if arguments and arguments[0] in ("train", "profile"):
        from quickstudy.options import parse

        experiment, others = parse(arguments[0], arguments[1:], _COMMANDS[arguments[0]].__doc__ or "")
        return _COMMANDS[arguments[0]](experiment, **others)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
        raise unknown("command", arguments[0], _COMMANDS)
    union: Any = None
    for name, command in _COMMANDS.items():
        shown: Any = _placeholder(command) if command in (Train, Profile) else command
        one: Any = Annotated[shown, subcommand(name)]
        union = one if union is None else union | one
    return tyro.cli(union, prog="quickstudy", description=_ABOUT, args=list(arguments) or ["--help"])


def _placeholder(command: type) -> type:
    """A command whose options are known only when it is called, for the list of all."""
    return dataclass(frozen=True)(type(command.__name__, (), {"__doc__": command.__doc__}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A user's mistake is one sentence and status 2, Ctrl-C is status 130."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments and arguments[0].startswith("rl-"):
            from quickstudy.io.migration import today

            before, arguments = arguments, today(arguments)
            if arguments != before:
                renamed = escape(shlex.join(["quickstudy", *arguments]))
                console.print(f"This command is now called: [bold]{renamed}[/]", soft_wrap=True, highlight=False)
        _parsed(arguments).run()
    except QuickstudyError as error:
        Console(stderr=True).print(f"[red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
