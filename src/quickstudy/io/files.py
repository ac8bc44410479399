"""Files and folders that appear whole or not at all."""

import errno
import io
import json
import math
import os
import re
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from quickstudy.errors import QuickstudyError, listed, one_line, shown, sound

if TYPE_CHECKING:
    from pydantic import BaseModel

_Model = TypeVar("_Model", bound="BaseModel")

_DEEPEST = 100
"""Brackets within each other in a JSON file."""
_JSON_BYTES = 256 << 20
_BYTES, _TIMES = 512 << 20, 20
"""What a file may hold once it is unpacked: so many bytes, or so many times its own size, whichever is more."""


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
    with sound(f"'{path}' is not a readable .npz file of plain arrays"), zipfile.ZipFile(path) as archive:
        check_size(path, sum(member.file_size for member in archive.infolist()))
        arrays = {one.filename.removesuffix(".npy"): _array(archive, one) for one in archive.infolist()}
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise QuickstudyError(
            f"'{path}' lacks the array '{missing[0]}'; it needs {', '.join(needed)}, and holds "
            f"{listed(list(arrays), 10) or 'nothing'}."
        )
    return arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array of numbers, truth values, texts or dates, for which no more is allocated than the archive holds."""
    content = archive.read(member)
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, in_columns, dtype = known[version](file)
    if dtype.kind not in "biufUSM":
        raise ValueError(f"the array '{member.filename[:60]}' is of {shown(dtype)}, which is not read.")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise QuickstudyError(f"The array '{member.filename[:60]}' has not as many numbers as it says, {shown(shape)}.")
    array = (
        np.frombuffer(content, dtype, offset=file.tell()) if math.prod(shape) * dtype.itemsize else np.empty(0, dtype)
    )
    return array.reshape(shape, order="F" if in_columns else "C").copy()


def check_size(path: Path, unpacked: int) -> None:
    """Raises QuickstudyError where a file would unpack to so many bytes that it is no recording but an attack."""
    most = max(_BYTES, _TIMES * path.stat().st_size)
    if unpacked > most:
        raise QuickstudyError(f"'{path}' would unpack to {unpacked >> 20:,} MB; for its size {most >> 20:,} are read.")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        QuickstudyError: no such file, or as `parse_json`.
    """
    path = Path(path)
    if not path.is_file():
        raise QuickstudyError(f"There is no file '{path}'.")
    if path.stat().st_size > _JSON_BYTES:
        raise QuickstudyError(f"'{path}' has {path.stat().st_size >> 20} MB; JSON is read up to {_JSON_BYTES >> 20}.")
    with sound(f"'{path}' is not a readable JSON file"):
        return parse_json(path.read_text(encoding="utf-8-sig"), f"'{path}'")


def parse_json(text: str | bytes, where: str) -> Any:
    """What a JSON text holds.

    Raises:
        QuickstudyError: it is not JSON, or deeper than anything that is written.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QuickstudyError(f"{where} is not valid JSON ({one_line(error)}).") from error
    layer = [found]
    for _ in range(_DEEPEST):
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return found
    raise QuickstudyError(f"{where} has more than {_DEEPEST} brackets within each other.")


def checked(model: "type[_Model]", said: object, where: str) -> "_Model":
    """What a file says about itself, of the types that it must have.

    Raises:
        QuickstudyError: something is missing or of another type.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(said)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        if wrong["type"] == "missing":
            raise QuickstudyError(f"{where} lacks '{key}'.") from None
        raise QuickstudyError(
            f"{where} says {key[:80] or 'all in all'} {shown(wrong['input'])}: {wrong['msg'].lower()}."
        ) from None


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
