"""Progress of anything that takes more than a moment: a bar with time left on a terminal, some lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from quickstudy.errors import printable


class SafeConsole(Console):
    """A console that obeys no control characters in what it is given, such as names of files and labels of data."""

    def render_str(self, text: str, **options: Any) -> Text:
        safe = text if text.isprintable() else "\n".join(map(printable, text.split("\n")))
        return super().render_str(safe, **options)


console = SafeConsole()

_SECONDS_BETWEEN_LINES = 20.0
_SECONDS_WORTH_A_LINE = 2.0
_showing = False


class Advance(Protocol):
    """Tells a running bar that `steps` more are done, what to say about them, and how many of the
    seconds that they took come but once, so that they say nothing of the time left."""

    def __call__(self, steps: int = 1, note: str = "", once: float = 0.0) -> None: ...


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A bar of `total` steps, of which `done` were done before. Within another bar it stays silent."""
    global _showing
    description = printable(description)
    if _showing:
        yield lambda steps=1, note="", once=0.0: None
        return
    _showing = True
    try:
        yield from (_bar if console.is_terminal else _lines)(description, total, done)
    finally:
        _showing = False


def _bar(description: str, total: int, done: int) -> Iterator[Advance]:
    """By rich, which measures speed from the end of the first step on, after what comes but once."""
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(description, total=total, completed=done, note="")
        said = ""

        def advance(steps: int = 1, note: str = "", once: float = 0.0) -> None:
            nonlocal said
            said = note or said
            shown.update(task, advance=steps, note=said)

        yield advance


def _lines(description: str, total: int, done: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    begun, count, said, apart = done, done, "", 0.0

    def advance(steps: int = 1, note: str = "", once: float = 0.0) -> None:
        nonlocal last, count, said, apart
        count, said, apart = count + steps, note or said, apart + once
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES or (count == total and now - start >= _SECONDS_WORTH_A_LINE):
            last = now
            left = (now - start - apart) / max(1, count - begun) * (total - count)
            print(f"{description}: {count}/{total}, {now - start:.0f} s, {left:.0f} s left {said}", flush=True)

    yield advance
