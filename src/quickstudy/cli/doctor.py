"""The command that tells whether a data set is enough to learn from: quickstudy data doctor."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape
from tyro.conf import Positional

from quickstudy.cli.reading import Reading
from quickstudy.cli.words import MaybePath, MaybeText, say_next
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console


@dataclass(frozen=True)
class Doctor(Reading):
    """Tell whether a data set is enough to learn from, and how many demonstrations a new task would need.

    Exit status 1 where training on it would be useless or wrong."""

    path: Positional[Path] = field(kw_only=True)
    """A data set of demonstrations in any of the formats that are read."""
    learning: bool = True
    """Measure what learning gives by leaving tasks out in turn; that takes a few minutes."""
    steps: int = 300
    """Outer steps of every meta-training."""
    family: MaybeText = None
    """A simulated family that the labels are tasks of, to play the recorded actions back in."""
    output: MaybePath = None
    """The folder for doctor.json and doctor.png; <name>-doctor in the current folder by default."""

    def run(self) -> None:
        from quickstudy import doctor
        from quickstudy.doctor import learning, report

        if not self.path.exists():
            raise QuickstudyError(f"There is no '{self.path}'.")
        begin = time.monotonic()
        folder = self.output or Path(f"{self.path.absolute().stem}-doctor")
        findings = doctor.of_files(self.path)
        try:
            found, more = doctor.examine(self.path, self.reading, self.family)
        except QuickstudyError as error:
            findings = [doctor.unreadable(self.path, error), *findings]
            console.print(report.table(findings))
            written = report.write(folder, self.path, None, findings)
            console.print(f"Written: {escape(', '.join(map(str, written)))}.", soft_wrap=True)
            console.print("Training on this is not possible before it can be read.")
            sys.exit(1)
        findings += more
        curves = None
        if self.learning:
            trainings, seconds = learning.cost(found, self.steps)
            if trainings:
                said = f"Leaving tasks out in turn: {trainings} trainings of {self.steps} steps"
                console.print(f"{said}, about {seconds:.0f} s; --no-learning leaves that out.", soft_wrap=True)
            try:
                curves = learning.curves(found, self.steps)
                findings += learning.judged(curves)
            except QuickstudyError as error:
                findings.append(doctor.Finding("learning", "measured", "note", str(error), ""))
        console.print(report.table(findings))
        written = report.write(folder, self.path, found, findings, curves)
        seconds = time.monotonic() - begin
        console.print(f"Written: {escape(', '.join(map(str, written)))}, after {seconds:.0f} s.", soft_wrap=True)
        if report.useless(findings):
            console.print("Training on this would be useless or wrong; see what is bad above.")
            sys.exit(1)
        say_next("train", self.path, *self.given)
