"""The command on the way to the robot: export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.markup import escape

from quickstudy.cli.words import MaybePath, RunFolder, optional
from quickstudy.io.progress import console


@dataclass(frozen=True)
class Export:
    """Write a run's learner as one file for robots without PyTorch: network, scale, limits, adaptation itself."""

    run_folder: RunFolder
    output: MaybePath = None
    """The file; <family>-<method>.quickstudy in the run folder by default."""
    precision: Literal["float32", "int8"] = "float32"
    """Of the weights."""
    rest: Annotated[tuple[float, ...] | None, optional("[FLOAT [FLOAT ...]]")] = None
    """The action that keeps the robot where it is, where its family does not say it; nan for a channel that keeps its
    last value."""

    def run(self) -> None:
        import shlex

        from quickstudy.export.bundle import export
        from quickstudy.results import runs

        settings = runs.load_settings(self.run_folder)
        name = f"{Path(settings.family).stem.split(':')[-1]}-{settings.method.split(':')[-1]}.quickstudy"
        made = export(self.run_folder, self.output or self.run_folder / name, self.precision, self.rest)
        found = made.parity
        adapted = "" if found.adapt_ms is None else f"adapting takes {found.adapt_ms:.1f} ms and "
        console.print(
            f"{escape(str(made.path))}: {made.size / 1e6:.2f} MB; {adapted}acting {found.act_ms:.3f} ms on one thread; "
            f"at most {max(found.act, found.adapt or 0):.1e} from PyTorch.",
            soft_wrap=True,
        )
        words = shlex.join(["quickstudy-runtime", "info", str(made.path)])
        console.print(f"Next: [bold]{escape(words)}[/]", soft_wrap=True, highlight=False)
