"""Commands about what came of it: demo, runs, report, push, pull."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich import box, filesize
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table
from tyro.conf import Positional, arg

from quickstudy.cli.words import MaybePath, MaybeText, RunFolder, State, command_line, optional, say_next
from quickstudy.io.progress import console


@dataclass(frozen=True)
class Demo:
    """The whole path in a few minutes: meta-train on grasping, adapt to unseen objects from one demonstration each,
    compare with the alternatives, write a report with plots and a video of the arm."""

    output_dir: Path = Path("runs/demo")
    """Where everything goes, in a folder 'quick' where it is that; a second call goes on where the first stopped."""
    video: bool = True
    """Film the arm before and after adaptation."""
    quick: bool = False
    """Half a minute and no meta-training: what a learner that comes with the package makes of one demonstration."""

    def run(self) -> None:
        from quickstudy.demo import demo, quick

        if self.quick:
            quick(self.output_dir / "quick", self.video)
        else:
            demo(self.output_dir, self.video)


@dataclass(frozen=True)
class Runs:
    """List runs and comparisons, the last changed first: state, progress and headline."""

    root: Positional[Path] = Path("runs")
    """The folder to look in."""
    family: MaybeText = None
    """Only those of this family."""
    method: MaybeText = None
    """Only those of this method, or comparisons with it."""
    state: Annotated[State | None, optional("{finished,running,stopped,damaged}")] = None
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
        table = Table(Column("run", overflow="fold"), Column("state", no_wrap=True), box=box.SIMPLE_HEAD)
        for run in found:
            damaged = run.state == "damaged"
            what = (
                run.headline if damaged else f"{run.method} on {run.family}{': ' if run.headline else ''}{run.headline}"
            )
            done = "damaged" if damaged else "{} {}/{}".format(run.state, *run.progress)
            table.add_row(f"[bold]{escape(str(run.folder))}[/]", done)
            table.add_row(Padding(escape(what), (0, 0, 0, 2)))
        console.print(table)
        stopped = next((run.folder for run in found if run.state == "stopped"), None)
        if stopped is not None:
            say_next("resume", stopped, after="goes on where it stopped")


@dataclass(frozen=True)
class Report:
    """Write report.html for a run or a comparison: its tables, charts, films and 3D replays in one file."""

    run_folder: RunFolder
    video: bool = True
    """Films and 3D replays; they are taken once."""

    def run(self) -> None:
        from quickstudy.report.build import write_report

        path = write_report(self.run_folder, command_line(), self.video)
        size = filesize.decimal(path.stat().st_size)
        console.print(f"The report is in [bold]{escape(str(path))}[/] ({size}).", soft_wrap=True)


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
        say_next("pull", self.target, after="on another machine")


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
