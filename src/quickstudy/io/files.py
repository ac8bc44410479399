"""Files and folders that appear whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quickstudy.errors import QuickstudyError


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` (same suffix) to write to; on success it takes the place of `path`.

    Raises:
        QuickstudyError: the disk refuses (full, read-only, no such place); what was there before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def write(path: Path, content: bytes | str) -> None:
    """Writes bytes, or text as UTF-8.

    Raises:
        QuickstudyError: as `partial`.
    """
    with partial(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write to; on success it takes that name, which must not be taken yet.

    Raises:
        QuickstudyError: something is there already, or as `partial`.
    """
    path = Path(path)
    if path.exists():
        raise QuickstudyError(f"'{path}' is there already; name a place that is not.")
    temporary = path.absolute().with_name(f".{path.absolute().name}.partial-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refused(path: Path, error: OSError) -> QuickstudyError:
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return QuickstudyError(f"Could not write '{path}': {reason}.")
