"""The task families by name, or made of a user's own arrays. Each is built when it is asked for: some load a robot."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from quickstudy import datasets
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.progress import progress
from quickstudy.skills.classic import PointNavigation, Sinusoid
from quickstudy.skills.grasping import Grasping
from quickstudy.skills.perception import Omniglot, Recognition, numbers
from quickstudy.task import TaskFamily

FAMILIES: dict[str, Callable[[], TaskFamily]] = {
    "grasping": Grasping,
    "omniglot-5way": partial(Omniglot, 5, jitter=True),
    "omniglot-20way": partial(Omniglot, 20, jitter=True),
    "omniglot-60way": partial(Omniglot, 60, jitter=True),
    "omniglot-within-alphabet-20way": partial(Omniglot, 20, "within-alphabet", jitter=True),
    "point-navigation": PointNavigation,
    "sinusoid": Sinusoid,
}


def get(name: str) -> TaskFamily:
    """The family of this name, or that of a user's file `<name>.npz`, see `from_file`.

    Raises:
        QuickstudyError: there is none, or its data is missing.
    """
    if name.endswith(".npz"):
        return from_file(Path(name))
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return FAMILIES[name]()


def from_file(path: Path) -> Recognition:
    """`from_arrays` of the arrays `x`, `y` and, where there is one, the number `ways` in an .npz file.

    Its name is the file's, in lower case with dashes, so that its results do not depend on where the file lies.

    Raises:
        QuickstudyError: no such file, or arrays that are no such family.
    """
    arrays = datasets.load_arrays(path, "x", "y")
    ways = arrays.get("ways", np.array(5))
    if ways.shape != () or not np.issubdtype(ways.dtype, np.integer):
        raise QuickstudyError(f"'{path}': ways must be one whole number; got shape {ways.shape} of {ways.dtype}.")
    name = "-".join(re.findall("[a-z0-9]+", path.stem.lower())) or "arrays"
    try:
        return from_arrays(arrays["x"], arrays["y"], ways=int(ways), name=name)
    except QuickstudyError as error:
        raise QuickstudyError(f"'{path}': {error}") from error


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
) -> Recognition:
    """An N-way K-shot family of a user's own examples: images, features, or embeddings of texts.

    Args:
        x: [example, feature], which learners standardise by training classes; or grey images [example, height, width],
            uint8 or numbers of about 0 to 1.
        y: [example], the class of each, as integers or strings.
        ways: classes of a task.
        queries: examples of each class of a task that are kept to judge by.
        splits: shares of the classes for training, validation and test, which share no class; validation may have none.
        seed: draws which class goes where.
        image: height and width, where images come flattened.

    Raises:
        QuickstudyError: arrays or numbers that are not such, too few classes or too few examples of one.
    """
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
    if len(splits) != 3 or min(splits) < 0 or splits[0] * splits[2] == 0 or not np.isclose(sum(splits), 1.0):
        raise QuickstudyError(
            "splits must be three shares for training, validation (which may be 0) and test that sum to 1; got "
            f"{tuple(splits)}."
        )
    labels, classes = np.unique(y, return_inverse=True)
    ends = np.cumsum(splits)[:2] * len(labels)
    parts = np.split(np.random.default_rng(seed).permutation(len(labels)), ends.round().astype(int))
    named = zip(("train", "validation", "test"), parts, splits, strict=True)
    chosen = {split: some for split, some, share in named if share > 0}
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


def draw(family: TaskFamily, split: str, count: int, path: Path) -> None:
    """Writes a contact sheet (PNG) of the first tasks of a split.

    Raises:
        QuickstudyError: an unknown split, too many tasks, or nothing here can draw.
    """
    from quickstudy import rendering

    tasks = family.tasks(split, count)
    frames = []
    with progress(f"drawing {family.name}", count) as advance:
        for task in tasks:
            frames.append(family.snapshot(task))
            advance()
    sheet = rendering.contact_sheet(frames, [family.caption(task) for task in tasks], columns=6)
    rendering.write_png(path, sheet)
