"""Families of a user's own data and environments: arrays, demonstrations, files of either, or Gymnasium."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quickstudy import datasets
from quickstudy.datasets import selection
from quickstudy.datasets.channels import as_in
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, listed, within
from quickstudy.families.gymnasium.family import GymFamily
from quickstudy.families.recorded import (
    QUERIES,
    SHARES,
    RecordedDemonstrations,
    check_copies,
    one_spelling,
    split_by_shares,
    split_labels,
)
from quickstudy.io import files
from quickstudy.io.progress import console, progress
from quickstudy.settings import ReadingConfig
from quickstudy.task import TaskFamily

if TYPE_CHECKING:
    from quickstudy.families.recognition.family import Recognition

from_gymnasium = GymFamily


def from_file(path: Path, reading: ReadingConfig | None = None) -> TaskFamily:
    """A family of a user's own data; what is there says of which kind.

    A folder or a .csv: demonstrations, `from_dataset`. An .npz with `observations`, `actions` and `task`: the same. An
    .npz with `x` and `y`, perhaps `ways`: `from_arrays`. An .npz with `points` and `task`: motions, see
    `quickstudy.families.motions.recordings`.

    Its name is the file's, in lower case with dashes, so that its results do not depend on where the file lies.

    Raises:
        QuickstudyError: nothing there, or nothing that is such a family.
    """
    from quickstudy.families.motions import recordings
    from quickstudy.families.motions.family import Motions

    if path.suffix != ".npz" or path.is_dir() or files.holds(path, "observations"):
        return from_dataset(path, reading=reading)
    if recordings.are_in(path):
        motions = recordings.load(path)
        with within(f"'{path}'"):
            return Motions(motions=motions, name=_name(path))
    arrays = files.load_arrays(path, "x", "y")
    ways = arrays.get("ways", np.array(5))
    with within(f"'{path}'"):
        if ways.shape != () or not np.issubdtype(ways.dtype, np.integer):
            raise QuickstudyError(f"ways must be one whole number; got shape {ways.shape} of {ways.dtype}.")
        return from_arrays(arrays["x"], arrays["y"], ways=int(ways), name=_name(path))


def from_dataset(
    path: Path,
    *,
    splits: Sequence[float] | Mapping[str, Sequence[str | int]] | None = None,
    queries: int = QUERIES,
    seed: int = 0,
    reading: ReadingConfig | None = None,
    like: datasets.About | None = None,
) -> RecordedDemonstrations:
    """A family of recorded demonstrations in any of the formats of `quickstudy.datasets`; the labels are its tasks.

    Args:
        path: a folder or file; its name becomes the family's.
        splits: as in `from_demonstrations`; by default those that the data set's own masks part the tasks in, or
            shares.
        queries, seed: as in `from_demonstrations`.
        reading: as in `quickstudy.datasets.load`.
        like: has the channels that are wanted, in their order, by name.

    Raises:
        QuickstudyError: nothing there or nothing that is read, a channel that is lacking, an episode that is not fit to
            learn from, or too few tasks or demonstrations of one.
    """
    recording = datasets.load(path, reading)
    if like is not None:
        recording = as_in(recording, like)
    for note in recording.notes:
        console.print(f"'{path}': {note}", markup=False, soft_wrap=True)
    demonstrations, tasks = [], []
    with progress(f"reading {path.name}", len(recording)) as advance:
        for demonstration, task in recording.demonstrations():
            demonstrations.append(demonstration)
            tasks.append(task)
            advance()
    with within(f"'{path}'"):
        return from_demonstrations(
            demonstrations,
            tasks,
            splits=splits or selection.splits(recording) or SHARES,
            queries=queries,
            seed=seed,
            name=_name(path),
            about=recording.about,
        )


def _name(path: Path) -> str:
    """A family's name from that of its file."""
    stem = path.stem if path.suffix in (".npz", ".csv") else path.absolute().name
    return "-".join(re.findall("[a-z0-9]+", stem.lower())) or "arrays"


def from_arrays(
    x: np.ndarray,
    y: np.ndarray,
    *,
    ways: int = 5,
    queries: int = 5,
    splits: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    name: str = "arrays",
    image: tuple[int, int] | None = None,
) -> "Recognition":
    """An N-way K-shot family of a user's own examples: images, features, or embeddings of texts.

    Args:
        x: [example, feature], which learners standardise by training classes; or grey images [example, height, width],
            of 0 to 255 or of about 0 to 1, of any type.
        y: [example], the class of each, as integers or strings.
        ways: classes of a task.
        queries: examples of each class of a task that are kept to judge by.
        splits: shares of the classes for training, validation and test, which share no class; validation may have none.
        seed: draws which class goes where.
        image: height and width, where images come flattened.

    Raises:
        QuickstudyError: arrays or numbers that are not such, too few classes or too few examples of one.
    """
    from quickstudy.families.recognition.family import Recognition, numbers

    x, y = numbers(x, "x"), np.asarray(y)
    if y.dtype == object and all(isinstance(label, str) for label in y.flat):
        y = y.astype(str)
    if y.ndim != 1 or y.dtype.kind not in "iuU":
        raise QuickstudyError(f"y must be one integer or string for each example; got shape {y.shape} of {y.dtype}.")
    if len(x) != len(y):
        raise QuickstudyError(f"x and y must be equally long; got {len(x)} examples and {len(y)} labels.")
    if image is None and x.ndim == 3:
        image = (x.shape[1], x.shape[2])
    if x.ndim > 3 or (image is not None and np.prod(image) != np.prod(x.shape[1:])):
        raise QuickstudyError(
            f"x must be [example, feature] or grey images [example, height, width]; got shape {x.shape}"
            f"{f' for images of {image[0]} x {image[1]}' if image else ''}."
        )
    labels, classes = np.unique(y, return_inverse=True)
    parts = split_by_shares(len(labels), splits, seed)
    chosen = {split: some for (split, some), share in zip(parts.items(), splits, strict=True) if share > 0}
    for split, some in chosen.items():
        if len(some) < ways:
            raise QuickstudyError(
                f"Of {len(labels)} classes the split '{split}' gets {len(some)}; {ways} ways need at least {ways} in "
                "each split."
            )
    return Recognition(
        name,
        x,
        {split: [np.flatnonzero(classes == c) for c in some] for split, some in chosen.items()},
        ways,
        queries,
        image,
        titles={split: [str(labels[c]) for c in some] for split, some in chosen.items()},
    )


def from_demonstrations(
    demonstrations: Sequence[Demonstration | tuple[np.ndarray, np.ndarray]],
    tasks: Sequence[str | int],
    *,
    splits: Sequence[float] | Mapping[str, Sequence[str | int]] = SHARES,
    queries: int = QUERIES,
    seed: int = 0,
    name: str = "demonstrations",
    rate: float | None = None,
    about: datasets.About | None = None,
) -> RecordedDemonstrations:
    """A family of a user's own demonstrations, judged by the imitation of those that were not shown.

    Args:
        demonstrations: pairs of observations [step, obs] and actions [step, act].
        tasks: the task of each, a text or a whole number.
        splits: shares of the tasks for training, validation and test; or the tasks of each split by name.
        queries: demonstrations of each task that are kept to judge by.
        seed: draws which task goes where, and which demonstrations are kept.
        rate: steps a second, if known.
        about: the same, and names and units of the channels, if known.

    Labels that differ by blanks, Unicode form, case or a full stop alone are one task, which is said.

    Raises:
        QuickstudyError: arrays, labels or splits that are not such, too few tasks or demonstrations of one, or the same
            demonstrations in two splits.
    """
    if len(demonstrations) != len(tasks) or not len(tasks):
        raise QuickstudyError(
            f"A task is needed for each demonstration; got {len(demonstrations)} demonstrations and {len(tasks)} tasks."
        )
    written = [str(task) for task in tasks]
    if not all(label.strip() for label in written):
        raise QuickstudyError(f"Demonstration {[bool(label.strip()) for label in written].index(False)} has no task.")
    chosen_spelling = one_spelling(written)
    others = [f"{other!r} ({chosen!r})" for other, chosen in chosen_spelling.items() if other != chosen]
    if others:
        console.print(
            f"Labels that differ by blanks, Unicode form, case or a full stop alone are one task: {listed(others)}.",
            markup=False,
            soft_wrap=True,
        )
    labels = [chosen_spelling[label] for label in written]
    of: dict[str, list[Demonstration]] = {label: [] for label in sorted(set(labels))}
    for one, label in zip(demonstrations, labels, strict=True):
        of[label].append(one if isinstance(one, Demonstration) else Demonstration(*one))
    chosen = split_labels(list(of), splits, seed)
    tasks_of = {split: {label: of[label] for label in some} for split, some in chosen.items()}
    family = RecordedDemonstrations(name, tasks_of, queries, seed, rate or (about.rate if about else None), about)
    if copies := check_copies(of, chosen):
        console.print(copies, markup=False, soft_wrap=True)
    return family


def draw(family: TaskFamily, split: str, count: int, path: Path) -> None:
    """Writes a contact sheet (PNG) of the first tasks of a split.

    Raises:
        QuickstudyError: an unknown split, too many tasks, or nothing here can draw.
    """
    from quickstudy.simulation import rendering

    tasks = family.tasks(split, count)
    frames = []
    with progress(f"drawing {family.name}", count) as advance:
        for task in tasks:
            frames.append(family.snapshot(task))
            advance()
    sheet = rendering.contact_sheet(frames, [family.caption(task) for task in tasks], columns=6)
    rendering.write_png(path, sheet)
