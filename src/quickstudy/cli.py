"""The command line: each command is one dataclass whose `run` calls one public function and says what to try next."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console
from quickstudy.methods.catalogue import COMPARED, Settings, build, defaults
from quickstudy.methods.trials.cli import RLEvaluate, RLProfile, RLTrain, train_defaults

OBJECTS = "objects"
"""The split of a user's own objects, see `quickstudy.families.grasping.family`."""

_ABOUT = "A robot learns a new skill from a few demonstrations, because it has learned how to learn. Start with: demo"

FamilyName = Positional[Annotated[str, arg(metavar="FAMILY", help="A task family; 'quickstudy families' lists them.")]]
RunFolder = Positional[Annotated[Path, arg(metavar="RUN", help="The folder of a training; 'train' says where it is.")]]


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

    family: Positional[str | None] = None
    """The family to draw; without one, all are listed."""
    split: str | None = None
    """The split to draw from; 'train', or 'objects' where there are some, by default."""
    tasks: int = 24
    """How many tasks the contact sheet shows."""
    output: Path | None = None
    """The contact sheet's file; families/<family>-<split>.png by default."""
    objects: Path | None = None
    """A folder of .obj and .stl files of your own, to draw those that can be grasped."""
    unit: Literal["m", "cm", "mm", "in"] = "m"
    """Of length in these files."""

    def run(self) -> None:
        from quickstudy.families import own as families

        if self.family is None:
            table = Table(Column("family", no_wrap=True), "observation", "action", "ranked by", "tasks by split")
            for name in families.FAMILIES:
                try:
                    f = families.get(name)
                except QuickstudyError as error:  # its data was not fetched
                    table.add_row(name, "", "", "", escape(str(error)))
                    continue
                sizes = ", ".join(f"{split} {size:,}" for split, size in f.sizes.items())
                table.add_row(name, str(f.observation_size), str(f.action_size), f.metric, sizes)
            console.print(table)
            console.print("Next: [bold]quickstudy families grasping[/] draws some of its tasks.")
            return
        family = families.get(self.family, self.objects, self.unit)
        split = self.split or ("train" if self.objects is None else OBJECTS)
        tasks = self.tasks if split != OBJECTS else min(self.tasks, family.sizes.get(OBJECTS, 0))
        path = self.output or Path("families") / f"{family.name}-{split}.png"
        families.draw(family, split, tasks, path)
        console.print(f"{tasks} tasks of '{split}': {path}")
        console.print(f"Next: [bold]quickstudy train {self.family}[/]")


@dataclass(frozen=True)
class Check:
    """Go through the contract of a family, point by point: quickstudy check my_module:MyFamily."""

    family: Positional[Annotated[str, arg(metavar="FAMILY")]]
    """A family of your own, as module:attribute or as a file, or one of quickstudy's."""

    def run(self) -> None:
        from quickstudy import check

        family = check.load(self.family)
        points = check.check(family)
        table = Table("", Column("the contract of a family", no_wrap=True), "found, or what to do")
        signs = {True: "[green]passed[/]", False: "[red]FAILED[/]", None: "[dim]–[/]"}
        for point in points:
            table.add_row(signs[point.passed], point.name, escape(point.said))
        console.print(table)
        failed = sum(point.passed is False for point in points)
        if failed:
            console.print(f"{failed} of {len(points)} points failed.")
            sys.exit(1)
        console.print("Next: train on it, see [bold]docs/bring_your_own.md[/].")


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
    format: Literal["lerobot", "minari", "npz", "csv"] | None = None
    """Of the data set; what the ending of --output says, or lerobot."""
    output: Path | None = None
    """A folder, or a file that ends with .npz or .csv; recordings/<family>-<split> by default."""
    rate: float | None = None
    """Steps a second that the data set states; the family's own by default."""
    seed: int = 0
    """Draws the starts and the noise."""

    def run(self) -> None:
        from quickstudy.datasets.record import record
        from quickstudy.families import own as families

        family = families.get(self.family)
        ending = f".{self.format}" if self.format in ("npz", "csv") else ""
        path = self.output or Path("recordings") / f"{family.name}-{self.split}{ending}"
        record(family, self.split, self.tasks, self.demos, path, self.format, self.rate, self.seed)
        console.print(f"{self.tasks} tasks with {self.demos} demonstrations each are in [bold]{path}[/].")
        console.print(f"Next: [bold]quickstudy data inspect {path}[/], or [bold]quickstudy train {path}[/]")


@dataclass(frozen=True)
class FetchOmniglot:
    """Fetch Omniglot into the cache, once: quickstudy data omniglot."""

    source: Annotated[Path | None, arg(name="from")] = None
    """A folder with its archives that were downloaded by hand, or a file that this command made elsewhere."""

    def run(self) -> None:
        from quickstudy.datasets import fetch_omniglot

        fetch_omniglot(self.source)
        console.print("Next: [bold]quickstudy train omniglot-5way --method prototypical[/]")


@dataclass(frozen=True)
class Inspect:
    """Look through a data set: its episodes, rates and ranges, and channels that are missing or constant."""

    path: Positional[Path]
    """A LeRobotDataset v3 or a Minari folder, or a .npz or .csv file of demonstrations."""
    output: Path | None = None
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
        console.print(f"The plots are in [bold]{output}[/].")
        console.print(f"Next: [bold]quickstudy train {self.path}[/]")


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
class Train(Settings):
    """Meta-train a method on a family: quickstudy train grasping --method maml --seed 1.

    Every default shown is that of the named family and method."""

    family: FamilyName
    method: str = "maml"
    """One of: maml fomaml anil meta-sgd reptile meta-lstm mann mann-raw siamese matching matching-fce matching-convex
    matching-frames prototypical hypernet hypernet-roles transfer scratch no-adaptation oracle replay nearest warp."""
    seed: int = 0
    """Draws the initial parameters and the meta-batches."""
    output_dir: Path | None = None
    """The run folder; runs/<family>-<method>/<time> by default."""
    start: str = ""
    """A run whose base network the training starts from, as far as the two are alike."""
    resume: bool = False
    """Go on with the training in --output-dir exactly where it stopped."""
    device: str = "cpu"
    """What torch trains on, such as cuda; validation episodes are simulated by the processor all the same."""

    def run(self) -> None:
        from quickstudy.batching import usable
        from quickstudy.families import own as families
        from quickstudy.io.provenance import note_start
        from quickstudy.results import runs
        from quickstudy.results.compare import source_for, train

        usable(self.device)
        settings = Settings(**{name: getattr(self, name) for name in Settings.__dataclass_fields__})
        family = families.get(self.family)
        folder = self.output_dir or runs.new_folder(Path("runs"), family.name, self.method)
        runs.check_folder(folder, settings, self.resume)
        build(settings, family)  # an unknown method is told before anything is recorded
        source = source_for(settings, family)
        note_start(folder, "training", command_line(), {"settings": asdict(settings)})
        train(settings, family, source, folder, self.resume, device=self.device)
        runs.save_example(family, folder)
        console.print(f"The run is in [bold]{folder}[/]; its curves: tensorboard --logdir {folder}/tensorboard")
        console.print(f"Next: [bold]quickstudy evaluate {folder}[/]")


@dataclass(frozen=True)
class Evaluate:
    """Adapt a trained learner to held-out tasks and run a fixed quota of episodes of each."""

    run_folder: RunFolder
    split: str | None = None
    """A split of the family; every test split by default."""
    shots: tuple[int, ...] = (0, 1)
    """Numbers of demonstrations to adapt from."""
    tasks: int | None = None
    """Held-out tasks of each split; 100, or all where there are fewer."""
    episodes: int | None = None
    """Episodes of each task, of which every one counts; 5, or all where there are fewer."""
    seed: int = 0
    """Draws the demonstrations, the starts and the noise."""
    checkpoint: str = "best"
    """'best' on validation tasks, or 'last'."""
    objects: Path | None = None
    """A folder of .obj and .stl files of your own; those that can be grasped become the split to evaluate."""
    unit: Literal["m", "cm", "mm", "in"] = "m"
    """Of length in these files."""

    def run(self) -> None:
        from quickstudy.results import evidence as results
        from quickstudy.results import runs

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
            results.print_table(cell)
        console.print(f"Next: [bold]quickstudy report {self.run_folder}[/]")


@dataclass(frozen=True)
class Adapt:
    """Learn a new task from your own demonstrations, and save the skill."""

    run_folder: RunFolder
    demo: tuple[Path, ...]
    """One or more .npz files with 'observations' [step, obs] and 'actions' [step, act], or data sets, of one task."""
    output: Path | None = None
    """Where the skill goes; skill.safetensors in the run folder by default."""

    def run(self) -> None:
        from quickstudy.results import runs

        path, before, after, milliseconds = runs.adapt_run(self.run_folder, self.demo, self.output)
        console.print(f"Adapted in {milliseconds:.0f} ms: imitation error {before:.4f} before, {after:.4f} after.")
        console.print(f"The skill is in [bold]{path}[/].")
        console.print(f"Next: [bold]quickstudy evaluate {self.run_folder}[/] tells how such skills do on unseen tasks.")


@dataclass(frozen=True)
class Match:
    """Find the known tasks that your demonstration is most like, and learn from the best one's skill on."""

    run_folder: RunFolder
    demo: Positional[tuple[Path, ...]]
    """One or more .npz files with 'observations' [step, obs] and 'actions' [step, act], all of one task."""
    skills_run: Path | None = None
    """The run of 'transfer' that skills are fine-tuned from; RUN itself where it is one."""
    output: Path | None = None
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
        demos = shlex.join(map(str, self.demo))
        if found.skill is None:
            console.print(
                f"Next: [bold]quickstudy match {self.run_folder} {demos} --skills-run RUN[/], where RUN is a run of "
                "transfer, learns from that task's skill on."
            )
            return
        console.print(
            f"Adapted from the skill of {found.ranking[0][0].name}: imitation error {found.before:.4f} before, "
            f"{found.after:.4f} after."
        )
        console.print(f"The skill is in [bold]{found.skill}[/].")
        console.print(f"Next: [bold]quickstudy adapt {self.run_folder} --demo {demos}[/] learns without a known task.")


@dataclass(frozen=True)
class Compare:
    """Train, tune and evaluate several methods with several seeds, and rank them in one table.

    What is finished is never run again: the same command goes on after a break."""

    family: FamilyName
    methods: tuple[str, ...] = COMPARED
    """Method names as for train, and transfer-equal-time; or all. Of the default, those that suit the family."""
    seeds: int = 3
    """Training seeds 0, 1, ... of each method."""
    splits: tuple[str, ...] = ()
    """Test splits; all of them by default."""
    shots: tuple[int, ...] = (0, 1, 3, 5)
    """Numbers of demonstrations to adapt from."""
    tasks: int | None = None
    """Held-out tasks of each split; 100, or all where there are fewer."""
    episodes: int = 2
    """Episodes of each task; every one counts."""
    steps: int | None = None
    """Outer steps of every training; the family's default where not given."""
    budget: str | None = None
    """Wall time, such as 30min or 2h: what does not fit is left for the next call of the same command."""
    output_dir: Path | None = None
    """runs/compare-<family> by default."""
    objects: Path | None = None
    """A folder of .obj and .stl files of your own; those that can be grasped become the split to compare on."""
    unit: Literal["m", "cm", "mm", "in"] = "m"
    """Of length in these files."""

    def run(self) -> None:
        from quickstudy.families import own as families
        from quickstudy.io.budget import Budget, seconds_of
        from quickstudy.results import tables
        from quickstudy.results.compare import Protocol, all_methods, compare

        budget = Budget(seconds_of(self.budget) if self.budget else None)
        family = families.get(self.family, self.objects, self.unit)
        suited = all_methods(family)
        usual = tuple(method for method in COMPARED if method in suited)
        methods = {("all",): suited, COMPARED: usual}.get(self.methods, self.methods)
        folder = self.output_dir or Path("runs") / f"compare-{family.name}"
        splits = (OBJECTS,) if self.objects is not None and not self.splits else self.splits
        tasks = self.tasks or min([100, *(family.sizes.get(split, 100) for split in splits or family.test_splits)])
        tuning = min(Protocol.tuning_tasks, family.sizes.get("validation", 0))
        protocol = Protocol(self.seeds, splits, self.shots, tasks, self.episodes, tuning)

        def settings_for(method: str, seed: int) -> Settings:
            settings = defaults(self.family, method, seed)
            training = replace(settings.training, steps=self.steps or settings.training.steps)
            return replace(settings, training=training)

        asked = {name: value for name, value in asdict(self).items() if name not in ("output_dir", "budget")}
        asked["objects"] = str(self.objects) if self.objects else None
        own = self.objects is not None
        cells = compare(
            family, methods, settings_for, protocol, folder, command_line(), budget, asked=asked, by_task=own
        )
        if cells:
            tables.print_comparison(cells)
            console.print(f"The table is in {folder}/comparison.csv, .json and .tex.")
            console.print(f"Next: [bold]quickstudy report {folder}[/]")


@dataclass(frozen=True)
class Resume:
    """Go on with a training or a comparison from its folder alone, or repeat it in a new one."""

    run_folder: RunFolder
    anew: Path | None = None
    """Repeat it from the start in this folder instead."""
    budget: str | None = None
    """Wall time of a comparison, as for compare."""

    def run(self) -> None:
        from quickstudy.io.provenance import NOTE, read_note
        from quickstudy.methods.catalogue import from_plain
        from quickstudy.results import runs

        note, folder = read_note(self.run_folder), self.anew or self.run_folder
        if not note.keys() & {"asked", "settings"}:
            raise QuickstudyError(
                f"'{self.run_folder}' is gone on with by the command that made it: {note.get('command', 'unknown')}."
            )
        if note.get("kind") == "comparison":
            asked: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in note["asked"].items()}
            asked["objects"] = Path(asked["objects"]) if asked.get("objects") else None
            Compare(**asked, budget=self.budget, output_dir=folder).run()
            return
        settings = from_plain(Settings, note["settings"], f"{self.run_folder}/{NOTE}")
        there = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
        Train(**there, output_dir=folder, resume=runs.begun(folder)).run()


@dataclass(frozen=True)
class Runs:
    """List runs and comparisons, the last changed first: state, progress and headline."""

    root: Positional[Path] = Path("runs")
    """The folder to look in."""
    family: str | None = None
    """Only those of this family."""
    method: str | None = None
    """Only those of this method, or comparisons with it."""
    state: Literal["finished", "running", "stopped"] | None = None
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
            console.print(f"No such run in '{self.root}'.")
            return
        table = Table(Column("run", overflow="fold"), "family", "method", "state", Column("progress", justify="right"),
                      "headline")  # fmt: skip
        for run in found:
            done, wanted = run.progress
            table.add_row(
                escape(str(run.folder)), run.family, run.method, run.state, f"{done}/{wanted}", escape(run.headline)
            )
        console.print(table)
        stopped = next((run.folder for run in found if run.state == "stopped"), None)
        if stopped is not None:
            console.print(f"Next: [bold]quickstudy resume {stopped}[/] goes on where it stopped.", soft_wrap=True)


@dataclass(frozen=True)
class Report:
    """Write report.html for a run or a comparison: its tables, charts, films and 3D replays in one file."""

    run_folder: RunFolder
    video: bool = True
    """Films and 3D replays; they are taken once."""

    def run(self) -> None:
        from quickstudy.demo import write_report

        path = write_report(self.run_folder, command_line(), self.video)
        console.print(f"The report is in [bold]{path}[/] ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


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
        console.print(f"The learner is in [bold]{where}[/]; its README.md says what it is.")
        console.print(f"Next: [bold]quickstudy pull {self.target}[/] on another machine.")


@dataclass(frozen=True)
class Pull:
    """Get a learner that was shared, as a run folder: quickstudy pull owner/name, or quickstudy pull ./folder."""

    source: Positional[Annotated[str, arg(metavar="REPO_OR_FOLDER")]]
    """A repository of the Hugging Face Hub, or a folder that push made."""
    output_dir: Path | None = None
    """The run folder; runs/<name> by default."""

    def run(self) -> None:
        from quickstudy.results.hub import pull

        run = pull(self.source, self.output_dir)
        console.print(f"The run is in [bold]{run}[/]; [bold]{run / 'README.md'}[/] says what it is.")
        console.print(f"Next: [bold]quickstudy adapt {run} --demo DEMO.npz[/]")


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["quickstudy", *sys.argv[1:]])


def _train_defaults(arguments: Sequence[str]) -> Any:
    """`Train` with the defaults of the family and method that are named in the arguments."""
    words = [word for word in arguments[1:2] if arguments[0] == "train" and not word.startswith("-")]
    family = words[0] if words else "grasping"
    method = next((word.removeprefix("--method=") for word in arguments if word.startswith("--method=")), None)
    method = next((after for word, after in pairwise(arguments) if word == "--method"), method)
    settings = vars(defaults(family, method))
    return Train(**{**settings, "family": family if words else tyro.MISSING})


def _commands(arguments: Sequence[str]) -> Any:
    """All commands, as tyro takes them; the defaults of 'train' are those of what is to be trained on.

    Raises:
        QuickstudyError: that is a data set that cannot be read.
    """
    return (
        Annotated[Demo, subcommand("demo")]
        | Annotated[Families, subcommand("families")]
        | Annotated[Check, subcommand("check")]
        | Annotated[Record, subcommand("record")]
        | Annotated[Data, subcommand("data")]
        | Annotated[Train, subcommand("train", default=_train_defaults(arguments))]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Adapt, subcommand("adapt")]
        | Annotated[Match, subcommand("match")]
        | Annotated[Compare, subcommand("compare")]
        | Annotated[Resume, subcommand("resume")]
        | Annotated[Runs, subcommand("runs")]
        | Annotated[Report, subcommand("report")]
        | Annotated[RLTrain, subcommand("rl-train", default=train_defaults(RLTrain, arguments))]
        | Annotated[RLEvaluate, subcommand("rl-evaluate")]
        | Annotated[RLProfile, subcommand("rl-profile", default=train_defaults(RLProfile, arguments))]
        | Annotated[Push, subcommand("push")]
        | Annotated[Pull, subcommand("pull")]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A user's mistake is one sentence and status 2, Ctrl-C is status 130."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        tyro.cli(_commands(arguments), prog="quickstudy", description=_ABOUT, args=arguments or ["--help"]).run()
    except QuickstudyError as error:
        Console(stderr=True).print(f"[red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
