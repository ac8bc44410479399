"""Omniglot, fetched once and kept in the user's cache."""

import hashlib
import http.client
import io
import re
import shutil
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from quickstudy.datasets.arrays import cache
from quickstudy.errors import QuickstudyError
from quickstudy.io import files
from quickstudy.io.progress import console, progress

_OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"

_OMNIGLOT_MD5 = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""Lake's two archives, in the order of his numbers of the characters."""

_DRAWING = re.compile(r"images_(?:background|evaluation)/([^/]+)/character(\d+)/(\d+_\d+)\.png")
"""Path of a drawing in an archive: alphabet, character, and Lake's number of the character with the drawer's."""

_BY_HAND = f"download {' and '.join(_OMNIGLOT_MD5)} by hand and say 'quickstudy data omniglot --from FOLDER'"


class OmniglotImages(NamedTuple):
    """Omniglot at 28 x 28, Lake's order of characters.

    Attributes:
        images: [character, drawing, 28, 28] uint8, 255 is ink.
        alphabet: [character], index into `alphabet_names`.
        alphabet_names: [alphabet].
        character: [character], its number within its alphabet, from 1.
        evaluation: [character], True for Lake's evaluation set, False for the background set.
    """

    images: np.ndarray
    alphabet: np.ndarray
    alphabet_names: np.ndarray
    character: np.ndarray
    evaluation: np.ndarray


def load_omniglot(path: Path | None = None) -> OmniglotImages:
    """Reads what `fetch_omniglot` put into the cache, or such a file elsewhere.

    Raises:
        QuickstudyError: no such file, or not such a file.
    """
    where = path or _omniglot()
    if not where.exists():
        raise QuickstudyError(f"Omniglot is not at '{where}'; 'quickstudy data omniglot' fetches it.")
    arrays = files.load_arrays(where, *OmniglotImages._fields)
    read = OmniglotImages(*(arrays[name] for name in OmniglotImages._fields))
    characters = len(read.images)
    if read.images.shape[2:] != (28, 28) or any(len(a) != characters for a in (read.alphabet, *read[3:])):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in read._asdict().items())
        raise QuickstudyError(f"'{where}' is not Omniglot as 'quickstudy data omniglot' writes it: it has {shapes}.")
    return read._replace(alphabet=read.alphabet.astype(int), evaluation=read.evaluation.astype(bool))


def fetch_omniglot(source: Path | None = None) -> Path:
    """Puts Omniglot into the cache, unless it is there already, and returns where.

    The archives are checked against their MD5 hashes before anything in them is used, and the file appears whole or
    not at all.

    Args:
        source: a folder with the two archives that were downloaded by hand, or an `omniglot28.npz` that was made
            elsewhere; downloaded where not given.

    Raises:
        QuickstudyError: no network, a broken download, a file that is missing or not what it should be, or a disk
            that refuses.
    """
    target = _omniglot()
    if target.exists():
        load_omniglot(target)
        console.print(f"Omniglot is there already: {target}", markup=False, soft_wrap=True)
        return target
    if source is not None and source.is_file():
        load_omniglot(source)
        with files.partial(target) as temporary:
            shutil.copyfile(source, temporary)
    else:
        archives = [
            _checked(name, _download(name) if source is None else _read(source, name)) for name in _OMNIGLOT_MD5
        ]
        images = _convert(archives)
        with files.partial(target) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **images._asdict())
    console.print(f"Omniglot is in {target}", markup=False, soft_wrap=True)
    return target


def _omniglot() -> Path:
    return cache() / "omniglot28.npz"


def _download(name: str) -> bytes:
    """One of Lake's archives; they are small enough to be kept in memory until they are checked."""
    url, parts = _OMNIGLOT + name, []
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            expected = int(answer.headers.get("Content-Length") or 0)
            with progress(f"downloading {name} (kB)", expected // 1024) as advance:
                while part := answer.read(2**16):
                    parts.append(part)
                    advance(len(part) // 1024)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise QuickstudyError(f"Could not download '{url}' ({reason}); try again later, or {_BY_HAND}.") from error
    content = b"".join(parts)
    if len(content) < expected:
        raise QuickstudyError(
            f"The download of '{url}' broke off after {len(content)} of {expected} bytes; try again, or {_BY_HAND}."
        )
    return content


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        what = f"has no {name}" if folder.is_dir() else "does not exist"
        raise QuickstudyError(
            f"'{folder}' {what}; it must be a folder with {' and '.join(_OMNIGLOT_MD5)} from {_OMNIGLOT}."
        ) from error
    except OSError as error:
        raise QuickstudyError(f"Could not read '{folder / name}': {error.strerror}.") from error


def _checked(name: str, content: bytes) -> bytes:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != _OMNIGLOT_MD5[name]:
        raise QuickstudyError(
            f"What came as {name} is not Omniglot: its MD5 is {found}, not {_OMNIGLOT_MD5[name]}; nothing of it was "
            f"used. Try again, or {_BY_HAND}."
        )
    return content


class _Drawing(NamedTuple):
    """Where a drawing is; its order is Lake's."""

    archive: int
    alphabet: str
    character: int
    file: str
    path: str


def _convert(archives: list[bytes]) -> OmniglotImages:
    """All drawings; the alphabets of an archive, their characters and their drawings in alphabetical order."""
    opened = [zipfile.ZipFile(io.BytesIO(content)) for content in archives]
    drawings = sorted(
        _Drawing(i, found[1], int(found[2]), found[3], found[0])
        for i, archive in enumerate(opened)
        for found in map(_DRAWING.fullmatch, archive.namelist())
        if found  # and not a folder, or what some packers add
    )
    characters = sorted({drawing[:3] for drawing in drawings})
    alphabets = sorted({character[:2] for character in characters})
    images = []
    with progress("converting drawings", len(drawings)) as advance:
        for drawing in drawings:
            images.append(_shrink(opened[drawing.archive].read(drawing.path)))
            advance()
    return OmniglotImages(
        images=np.stack(images).reshape(len(characters), -1, 28, 28),
        alphabet=np.array([alphabets.index(character[:2]) for character in characters], "u1"),
        alphabet_names=np.array([name for _, name in alphabets]),
        character=np.array([number for _, _, number in characters], "u1"),
        evaluation=np.array([archive for archive, _, _ in characters], "u1"),
    )


def _shrink(png: bytes) -> np.ndarray:
    """A drawing at 28 x 28, 255 is ink."""
    # Pillow resizes an image of one bit by nearest neighbour whatever filter it is told: it has to be made grey first.
    grey = Image.open(io.BytesIO(png)).convert("L")
    return 255 - np.asarray(grey.resize((28, 28), Image.Resampling.LANCZOS))
