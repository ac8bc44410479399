"""Files that appear whole or not at all."""

import errno
import os
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
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise QuickstudyError(f"Could not write '{path}': {reason}.") from error
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
