"""The one exception that a user's mistake raises: the command line prints its sentence and exits with its status."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class QuickstudyError(Exception):
    """A mistake in what was asked for; its text is one sentence: what was wrong, the value, what is accepted."""

    status = 2


class TrainingError(QuickstudyError):
    """What was asked for is fine, and still nothing came of the training."""

    status = 1


def unknown(kind: str, value: str, known: Iterable[str]) -> QuickstudyError:
    """The error for a name that does not exist, with the nearest name that does and the list of them all."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return QuickstudyError(f"Unknown {kind} '{value}'.{hint} Known: {', '.join(names)}.")


@contextmanager
def within(where: str) -> Iterator[None]:
    """A mistake in here is said with `where`, a file say, before its sentence."""
    try:
        yield
    except QuickstudyError as error:
        raise QuickstudyError(f"{where}: {error}") from error


def one_line(error: Exception) -> str:
    """What a library's error says, without its line breaks."""
    return " ".join(str(error).split())


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of these names, and how many there are more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
