"""What commands have in common: kinds of options, and what is said at the end."""

import io
import re
import shlex
import sys
import textwrap
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.markup import escape
from tyro.conf import Positional, arg

from quickstudy.errors import QuickstudyError, printable
from quickstudy.io.progress import console

if TYPE_CHECKING:
    from quickstudy.settings import ReadingConfig

FamilyName = Positional[Annotated[str, arg(metavar="FAMILY", help="A task family; 'quickstudy families' lists them.")]]
RunFolder = Positional[Annotated[Path, arg(metavar="RUN", help="The folder of a training; 'train' says where it is.")]]
Unit = Literal["m", "cm", "mm", "in"]
Format = Literal["lerobot", "minari", "npz", "csv"]
State = Literal["finished", "running", "stopped", "damaged"]


def optional(metavar: str) -> Any:
    """An option that has no value unless it is given one, which its help says in words."""
    return arg(metavar=metavar, help_behavior_hint="")


MaybeInt = Annotated[int | None, optional("INT")]
MaybeFloat = Annotated[float | None, optional("FLOAT")]
MaybeText = Annotated[str | None, optional("STR")]
MaybePath = Annotated[Path | None, optional("PATH")]
TimeUnit = Annotated[Literal["", "s", "ms", "us", "ns"], optional("{s,ms,us,ns}")]
Names = Annotated[tuple[str, ...], optional("[STR [STR ...]]")]


def parsed(kind: Any, **options: Any) -> Any:
    """What `tyro.cli` makes of the words, a mistake in them in one sentence.

    Raises:
        QuickstudyError: words that it does not understand.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(kind, **options)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise QuickstudyError(_sentence(said.getvalue())) from None


def _sentence(box: str) -> str:
    """The sentence that a box of tyro's says, with the first of its hints and where help is."""
    framed = "╭" in box  # where the terminal has such signs; else a title and a line stand above
    lines = [line.strip("│").rstrip() for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts: list[list[str]] = [[]]
    for line in textwrap.dedent("\n".join(line for line in lines if line.strip())).splitlines():
        if set(line.strip()) <= set("─-"):
            parts.append([])
        else:
            parts[-1].append(line)
    said, *others = [textwrap.dedent("\n".join(part)).splitlines() for part in (parts if framed else parts[1:])]
    text = " ".join(line for line in said if not line.startswith(" "))
    wanted = [line.strip() for line in said if re.match(" {4}[^ ]", line)]
    hints = [some for some in others if some and some[0].startswith("Perhaps you meant")]
    nearest = f"; did you mean {hints[0][1].split()[0].strip(',')}?" if hints and len(hints[0]) > 1 else "."
    found = re.search(r"quickstudy [a-z]+(?: [a-z]+)* --help", " ".join(lines))
    return (
        " ".join([text, ", ".join(wanted)]).strip().rstrip(".")
        + nearest
        + (f" '{found.group()}' shows what there is." if found else "")
    )


def reading_of(
    observation: str | None, action: str | None, rate: float | None, time_unit: str, mask: str | None = None
) -> "ReadingConfig":
    """How a user's own recordings are read, from options; several names stand between commas.

    Raises:
        QuickstudyError: a value that is not allowed.
    """
    from quickstudy.settings import ReadingConfig

    names = [tuple(name.strip() for name in (some or "").split(",") if name.strip()) for some in (observation, action)]
    return ReadingConfig(names[0], names[1], rate, time_unit, mask or "")  # type: ignore[arg-type]


def say_next(*words: object, after: str = "") -> None:
    """Prints a command that works when it is pasted, and in brackets what it does."""
    command = shlex.join(["quickstudy", *map(str, words)])
    console.print(f"Next: [bold]{escape(command)}[/]", soft_wrap=True, highlight=False)
    if after:
        console.print(f"      ({after})", markup=False, soft_wrap=True, highlight=False)


def command_line() -> str:
    """The command as it was typed."""
    return printable(shlex.join(["quickstudy", *sys.argv[1:]]))
