"""Files and folders that appear whole or not at all."""

import errno
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.errors import QuickstudyError


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A temporary place of the same name and file system to write to; on success it takes the place of `path`.

    It lies in a folder of this process beside `path`, which no pattern of names finds; what a process that was killed
    left there goes when the next one writes.

    Raises:
        QuickstudyError: the disk refuses (full, read-only, no such place); what was there before is untouched.
    """
    path = Path(path)
    try:
        with _own_folder(path) as folder:
            temporary = folder / path.name
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error


@contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    """A folder of this process beside `path`, which is gone afterwards with all that is left in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"\W", "_", socket.gethostname())
    for left in path.parent.glob(f".partial-{host}-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    # Threads of a process write at the same time, so the folder is one write's own.
    folder = Path(tempfile.mkdtemp(prefix=f".partial-{host}-{os.getpid()}-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write(path: Path, content: bytes | str) -> None:
    """Writes bytes, or text as UTF-8.

    Raises:
        QuickstudyError: as `partial`.
    """
    with partial(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Writes what JSON can hold, with options of `json.dumps`.

    Raises:
        QuickstudyError: a number that is not finite, for which JSON has no word; or as `partial`.
    """
    try:
        text = json.dumps(content, allow_nan=False, **options)
    except ValueError as error:
        raise QuickstudyError(f"'{path}' was not written: it would hold a number that is not finite.") from error
    write(path, text + "\n")


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write to, as `partial`; on success it takes the name `path`, which must not be taken yet.

    Raises:
        QuickstudyError: something is there already, or as `partial`.
    """
    path = Path(path)
    if path.exists():
        raise QuickstudyError(f"'{path}' is there already; name a place that is not.")
    try:
        with _own_folder(path.absolute()) as folder:
            temporary = folder / path.absolute().name
            temporary.mkdir()
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error


def load_arrays(path: Path, *needed: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Raises:
        QuickstudyError: no such file, not an .npz file, or a needed array missing.
    """
    path = Path(path)
    if not path.is_file():
        raise QuickstudyError(f"There is no file '{path}'.")
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except Exception as error:  # a damaged archive raises whatever its decompression stumbles over
        raise QuickstudyError(f"'{path}' is not a readable .npz file of plain arrays ({error}).") from error
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise QuickstudyError(
            f"'{path}' lacks the array '{missing[0]}'; it needs {', '.join(needed)}, and holds "
            f"{', '.join(arrays) or 'nothing'}."
        )
    return arrays


def holds(path: Path, name: str) -> bool:
    """Whether an .npz file has an array of this name; nothing else of it is read."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as data:
            return name in data.files
    except Exception:  # `load_arrays` says what is wrong
        return False


def _refused(path: Path, error: OSError) -> QuickstudyError:
    return QuickstudyError(f"Could not write '{path}': {reason(error)}.")


def reason(error: OSError) -> str:
    """Why the disk refuses, in a few words."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
