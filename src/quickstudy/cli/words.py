"""What commands have in common: kinds of options, and what is said at the end."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.markup import escape
from tyro.conf import Positional, arg

from quickstudy.io.progress import console

FamilyName = Positional[Annotated[str, arg(metavar="FAMILY", help="A task family; 'quickstudy families' lists them.")]]
RunFolder = Positional[Annotated[Path, arg(metavar="RUN", help="The folder of a training; 'train' says where it is.")]]
Unit = Literal["m", "cm", "mm", "in"]
Format = Literal["lerobot", "minari", "npz", "csv"]
State = Literal["finished", "running", "stopped"]


def optional(metavar: str) -> Any:
    """An option that has no value unless it is given one, which its help says in words."""
    return arg(metavar=metavar, help_behavior_hint="")


MaybeInt = Annotated[int | None, optional("INT")]
MaybeFloat = Annotated[float | None, optional("FLOAT")]
MaybeText = Annotated[str | None, optional("STR")]
MaybePath = Annotated[Path | None, optional("PATH")]
Names = Annotated[tuple[str, ...], optional("[STR [STR ...]]")]


def say_next(*words: object, after: str = "") -> None:
    """Prints a command that works when it is pasted, and in brackets what it does."""
    command = shlex.join(["quickstudy", *map(str, words)])
    console.print(f"Next: [bold]{escape(command)}[/]", soft_wrap=True, highlight=False)
    if after:
        console.print(f"      ({after})", soft_wrap=True, highlight=False)


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["quickstudy", *sys.argv[1:]])
