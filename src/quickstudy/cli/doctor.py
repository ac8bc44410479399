"""The command that tells whether a data set is enough to learn from: quickstudy data doctor."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.markup import escape
from tyro.conf import Positional

from quickstudy.cli.words import MaybeFloat, MaybePath, MaybeText, Names, optional, say_next
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console


@dataclass(frozen=True)
class Doctor:
    """Tell whether a data set is enough to learn from, and how many demonstrations a new task would need.

    Exit status 1 where training on it would be useless or wrong."""

    path: Positional[Path]
    """A data set of demonstrations in any of the formats that are read."""
    learning: bool = True
    """Measure what learning gives by leaving tasks out in turn; that takes a few minutes."""
    steps: int = 300
    """Outer steps of every meta-training."""
    family: MaybeText = None
    """A simulated family that the labels are tasks of, to play the recorded actions back in."""
    observation: Names = ()
    """Features, keys or topics that are the observation, where the format leaves it open."""
    action: Names = ()
    """Likewise of the action."""
    rate: MaybeFloat = None
    """Steps a second that the recordings are brought to."""
    time_unit: Annotated[Literal["", "s", "ms", "us", "ns"], optional("{s,ms,us,ns}")] = ""
    """Of their time stamps, where nobody says."""
    output: MaybePath = None
    """The folder for doctor.json and doctor.png; <name>-doctor in the current folder by default."""

    def run(self) -> None:
        from quickstudy import doctor
        from quickstudy.doctor import learning, report
        from quickstudy.settings import ReadingConfig

        observation, action = (
            tuple(name for part in given for name in part.split(",") if name)
            for given in (self.observation, self.action)
        )
        reading = ReadingConfig(observation, action, self.rate, self.time_unit)
        if not self.path.exists():
            raise QuickstudyError(f"There is no '{self.path}'.")
        try:
            found, findings = doctor.examine(self.path, reading, self.family)
        except QuickstudyError as error:
            console.print(report.table([doctor.unreadable(self.path, error)]))
            sys.exit(1)
        curves = None
        if self.learning:
            try:
                curves = learning.curves(found, self.steps)
                findings += learning.judged(curves)
            except QuickstudyError as error:
                findings.append(doctor.Finding("learning", "measured", "note", str(error), ""))
        console.print(report.table(findings))
        folder = self.output or Path(f"{self.path.absolute().stem}-doctor")
        written = report.write(folder, found, findings, curves)
        console.print(f"Written: {escape(', '.join(map(str, written)))}.", soft_wrap=True)
        if report.useless(findings):
            console.print("Training on this would be useless or wrong; see what is bad above.")
            sys.exit(1)
        say_next("train", self.path)
