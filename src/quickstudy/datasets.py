"""Data sets that are fetched once and kept in the user's cache."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quickstudy.errors import QuickstudyError


class OmniglotImages(NamedTuple):
    """Omniglot at 28 x 28, Lake's order of characters.

    Attributes:
        images: [character, drawing, 28, 28] uint8, 255 is ink.
        alphabet: [character], index into `alphabet_names`.
        alphabet_names: [alphabet].
        evaluation: [character], True for Lake's evaluation set, False for the background set.
    """

    images: np.ndarray
    alphabet: np.ndarray
    alphabet_names: np.ndarray
    evaluation: np.ndarray


def cache() -> Path:
    """Where data sets are kept: $QUICKSTUDY_CACHE, or the usual cache folder of the user."""
    chosen = os.environ.get("QUICKSTUDY_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quickstudy"


def load_omniglot(path: Path | None = None) -> OmniglotImages:
    """Reads what `quickstudy data omniglot` put into the cache, or such a file elsewhere.

    Raises:
        QuickstudyError: no such file, or not such a file.
    """
    where = path or cache() / "omniglot28.npz"
    if not where.exists():
        raise QuickstudyError(f"Omniglot is not at '{where}'. 'quickstudy data omniglot' fetches it (4 MB).")
    try:
        with np.load(where) as data:
            return OmniglotImages(
                data["images"], data["alphabet"].astype(int), data["alphabet_names"], data["evaluation"].astype(bool)
            )
    except (OSError, ValueError, KeyError) as error:
        raise QuickstudyError(
            f"'{where}' is not Omniglot as 'quickstudy data omniglot' writes it ({error})."
        ) from error
