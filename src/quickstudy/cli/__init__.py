"""The command line: each command is one dataclass whose `run` calls one public function and says what to try next.

Nothing heavy is imported before a command needs it, so that help and mistakes are answered at once. The options of
`train` and `profile` are the settings of the family and method that are named, see `quickstudy.cli.options`.
"""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any

from rich.console import Console
from rich.markup import escape
from tyro.conf import subcommand

from quickstudy.cli.learning import Adapt, Compare, Evaluate, Match, Profile, Reproduce, Resume, Train
from quickstudy.cli.outcome import Demo, Pull, Push, Report, Runs
from quickstudy.cli.robot import Export
from quickstudy.cli.studio import Studio
from quickstudy.cli.tasks import Check, Data, Families, Record
from quickstudy.cli.words import parsed
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io.progress import console

_ABOUT = (
    "A robot learns a new skill from a few demonstrations or trials, because it has learned how to learn. "
    "Start with: quickstudy demo"
)

_COMMANDS = {
    "demo": Demo, "studio": Studio, "families": Families, "check": Check, "record": Record, "data": Data,
    "train": Train, "evaluate": Evaluate, "adapt": Adapt, "match": Match, "compare": Compare, "resume": Resume,
    "reproduce": Reproduce, "runs": Runs, "report": Report, "export": Export, "push": Push, "pull": Pull,
    "profile": Profile,
}  # fmt: skip


def _parsed(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for."""
    if arguments and arguments[0] in ("train", "profile"):
        from quickstudy.cli.options import parse

        experiment, others = parse(arguments[0], arguments[1:], _COMMANDS[arguments[0]].__doc__ or "")
        return _COMMANDS[arguments[0]](experiment, **others)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
        raise unknown("command", arguments[0], _COMMANDS)
    union: Any = None
    for name, command in _COMMANDS.items():
        shown: Any = _placeholder(command) if command in (Train, Profile) else command
        one: Any = Annotated[shown, subcommand(name)]
        union = one if union is None else union | one
    return parsed(union, prog="quickstudy", description=_ABOUT, args=list(arguments) or ["--help"])


def _placeholder(command: type) -> type:
    """A command whose options are known only when it is called, for the list of all."""
    return dataclass(frozen=True)(type(command.__name__, (), {"__doc__": command.__doc__}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake is one sentence and status 2, a training without a result status 1, Ctrl-C status 130."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _quiet_imports():
            if arguments and arguments[0].startswith("rl-"):
                from quickstudy.io.migration import today

                before, arguments = arguments, today(arguments)
                if arguments != before:
                    renamed = escape(shlex.join(["quickstudy", *arguments]))
                    console.print(f"This command is now called: [bold]{renamed}[/]", soft_wrap=True, highlight=False)
            _parsed(arguments).run()
    except QuickstudyError as error:
        Console(stderr=True).print(f"[red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)


@contextmanager
def _quiet_imports() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt, but for moments at which modules are imported: libraries answer it with errors of
    their own, or print it from where nobody can catch it, so that the process ends at once."""
    before = signal.getsignal(signal.SIGINT)
    known = before in (signal.SIG_DFL, signal.default_int_handler)
    if not known or threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_globals.get("__name__") == "importlib._bootstrap":
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
