"""The one exception that a user's mistake raises: the command line prints its sentence and exits with its status."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

MOST = 300
"""Characters of a sentence, whatever names, paths and values it quotes."""
LONGEST = 1000
"""The same of one that explains much, or lists what a user is to choose from."""


class QuickstudyError(Exception):
    """A mistake in what was asked for; its text is one sentence: what was wrong, the value, what is accepted.

    It is one printable line whatever it quotes; of one with more than `most` characters the beginnings of paths and the
    middle are left out.
    """

    status = 2

    def __init__(self, sentence: str, most: int = MOST) -> None:
        self.most = most
        line = printable(sentence)
        if len(line) > most:
            line = _PATH.sub(r"'…\1'", line)
        super().__init__(line if len(line) <= most else f"{line[: most * 2 // 3]} … {line[3 - most // 3 :]}")


_PATH = re.compile(r"'/[^'\n]{20,}((?:/[^'/\n]+){3})'")
"""A long path, of which the last three parts tell most."""


class TrainingError(QuickstudyError):
    """What was asked for is fine, and still nothing came of the training."""

    status = 1


class DivergedError(TrainingError):
    """Losses or gradients of a training are not finite any more."""


def unknown(kind: str, value: str, known: Iterable[str]) -> QuickstudyError:
    """The error for a name that does not exist, with the nearest name that does and a list of them all.

    Where that is too long for a sentence, it begins with the nearest ones, if any is near, and says how many there are.
    """
    names = every = sorted(map(printable, known))
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    begin = f"Unknown {kind} '{value[:60]}'.{hint} Known: "
    if near and len(begin) + len(", ".join(names)) >= LONGEST:
        names = difflib.get_close_matches(value, names, n=len(names), cutoff=0.0)
    while len(names) > 1 and len(begin) + len(", ".join(names)) > LONGEST - 20:
        names = names[:-1]
    more = f" and {len(every) - len(names)} more" if len(names) < len(every) else ""
    return QuickstudyError(f"{begin}{', '.join(names)}{more}.", LONGEST)


@contextmanager
def within(where: str) -> Iterator[None]:
    """A mistake in here is said with `where`, a file say, before its sentence."""
    try:
        yield
    except QuickstudyError as error:
        raise QuickstudyError(f"{where}: {error}", error.most) from error


@contextmanager
def sound(what: str) -> Iterator[None]:
    """Whatever a library stumbles over in here is said with `what` before it, such as "'file' is not whole".

    Raises:
        QuickstudyError: anything was raised in here.
    """
    try:
        yield
    except QuickstudyError:
        raise
    except Exception as error:  # damaged files make libraries raise anything
        raise QuickstudyError(f"{what} ({type(error).__name__}: {one_line(error)}).") from error


def one_line(error: Exception, most: int = 120) -> str:
    """What a library's error says, without its line breaks; of a long one the beginning."""
    text = " ".join(printable(str(error)[: 20 * most]).split())
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """The same as one line, whose control characters, such as those that terminals obey, are written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else ascii(c)[1:-1] for c in text)


def shown(value: object, most: int = 60) -> str:
    """A value as it can stand in a sentence, however long or deep it is."""
    try:
        text = printable(_REPR.repr(value))
    except Exception:  # an object of somebody else's
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 200


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of these names, and how many there are more."""
    short = [name if len(name) <= 80 else f"{name[:77]}…" for name in map(printable, names[:most])]
    return ", ".join(short) + (f" and {len(names) - most} more" if len(names) > most else "")
