"""Commands about tasks and data: families, check, record, data."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich import box
from rich.markup import escape
from rich.table import Column, Table
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from quickstudy.cli.doctor import Doctor
from quickstudy.cli.reading import Reading
from quickstudy.cli.words import FamilyName, Format, MaybeFloat, MaybePath, MaybeText, Unit, optional, say_next
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console


@dataclass(frozen=True)
class Families:
    """List the task families, or draw sampled tasks of one: quickstudy families grasping."""

    family: Positional[Annotated[str | None, optional("[FAMILY]")]] = None
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
        console.print(f"{tasks} tasks of '{split}': {path}", markup=False)
        say_next("train", self.family)

    def _list(self) -> None:
        from quickstudy import families

        table = Table(
            Column("family", no_wrap=True),
            "learned from",
            "what is learned",
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
            splits = family.test_splits
            tested = "" if splits == ["test"] else f"; tested on {' and '.join(splits)}"
            table.add_row(record.name, learned_from, escape(record.summary + tested))
        console.print(table)
        for needs, names in missing.items():
            console.print(f"Not here yet: {', '.join(names)} ({escape(needs)}).", soft_wrap=True)
        say_next("families", "grasping", after="draws some of its tasks")


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
    format: Annotated[Format | None, optional("{lerobot,minari,npz,csv}")] = None
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
class Inspect(Reading):
    """Look through a data set: its episodes, rates and ranges, and channels that are missing or constant."""

    path: Positional[Path] = dataclasses.field(kw_only=True)
    """A folder or file of demonstrations: LeRobot, Minari, .npz, .csv, HDF5 of robomimic or Isaac Lab, or ROS bags."""
    output: MaybePath = None
    """The plots' file; <name>-inspection.png in the current folder by default."""

    def run(self) -> None:
        from quickstudy.datasets.inspection import free_place, inspect, plot, tables

        found = inspect(self.path, self.reading)
        for table in tables(found):
            console.print(table)
        for warning in found.warnings:
            console.print(f"[yellow]Note:[/] {escape(warning)}", soft_wrap=True)
        output = self.output or free_place(self.path)
        plot(found, output)
        console.print(f"The plots are in [bold]{escape(str(output))}[/].")
        say_next("train", self.path, *self.given)


@dataclass(frozen=True)
class Convert(Reading):
    """Write a data set in any format that is read as one that is written: quickstudy data convert SOURCE TARGET."""

    source: Positional[Annotated[Path, arg(metavar="SOURCE")]] = dataclasses.field(kw_only=True)
    """A folder or file of demonstrations, as `data inspect` takes it."""
    target: Positional[Annotated[Path, arg(metavar="TARGET")]] = dataclasses.field(kw_only=True)
    """A folder, or a file that ends with .npz or .csv, that is not there yet."""
    format: Annotated[Format | None, optional("{lerobot,minari,npz,csv}")] = None
    """Of the new data set; what the ending of TARGET says, or lerobot."""

    def run(self) -> None:
        from quickstudy import datasets

        for note in datasets.convert(self.source, self.target, self.format, self.reading):
            console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
        console.print(f"{escape(str(self.source))} is now in [bold]{escape(str(self.target))}[/].", soft_wrap=True)
        say_next("data", "inspect", self.target)


@dataclass(frozen=True)
class Data:
    """Look through a data set of demonstrations, convert or fetch one: quickstudy data inspect PATH."""

    what: OmitSubcommandPrefixes[
        Annotated[FetchOmniglot, subcommand("omniglot", prefix_name=False)]
        | Annotated[Inspect, subcommand("inspect", prefix_name=False)]
        | Annotated[Convert, subcommand("convert", prefix_name=False)]
        | Annotated[Doctor, subcommand("doctor", prefix_name=False)]
    ]

    def run(self) -> None:
        self.what.run()
