"""What recognition gives to learners as tensors: meta-batches of training classes, and a user's own support."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quickstudy.batching import threads_for
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.families.recognition.family import Recognition, numbers, one_hot, scaled, shuffled
from quickstudy.nets import distorted

_STANDARDISED = 200
"""Tasks whose support gives the mean and deviation of observations."""


class FreshClasses:
    """Meta-batches of newly drawn tasks of the training classes: a `quickstudy.data.Source`."""

    def __init__(self, family: Recognition) -> None:
        classes = family.classes["train"]
        lengths = np.array([len(rows) for rows in classes])
        self._family, self._fewest = family, int(lengths.min())
        self._rows = np.array([np.resize(rows, lengths.max()) for rows in classes])
        self._there = np.arange(lengths.max()) < lengths[:, None]
        self._last: list[list[int]] = []

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        if shots < 1 or queries < 1 or shots + queries > self._fewest:
            raise QuickstudyError(
                f"Asked for {shots} support and {queries} query examples of each class; a class of the training split "
                f"has {self._fewest}, and both need at least one."
            )
        family, draw = self._family, np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
        self._last = [family.sample("train", draw)["classes"] for _ in range(tasks)]
        there = self._there[self._last]
        order = np.where(there, draw.random(there.shape), 1.0).argsort(-1)[..., : shots + queries]
        rows = np.take_along_axis(self._rows[self._last], order, -1).swapaxes(1, 2)  # [task, shot, way]
        rows, labels = shuffled(rows, draw)
        x, y = torch.from_numpy(family.read(rows)), torch.from_numpy(one_hot(labels, family.ways))
        if family.jitter and family.image is not None:
            x = jittered(x, family.image, rng)
        return SupportQuery(
            *(
                Batch(x[:, some], y[:, some], torch.ones(y[:, some].shape[:-1]), torch.zeros(tasks, 0))
                for some in (slice(shots), slice(shots, None))
            )
        )

    @property
    def batch(self) -> Batch:
        """Some tasks, always the same ones."""
        return self.sample(torch.Generator().manual_seed(0), _STANDARDISED, 1, 1).support

    def names(self) -> list[str]:
        titles = self._family.titles["train"]
        return [
            f"{self._family.name} with training classes {', '.join(titles[c] for c in some)}" for some in self._last
        ]


def labelled_support(x: np.ndarray, labels: Sequence[int] | np.ndarray, ways: int) -> Batch:
    """The support of one task from a user's own examples, for `MetaLearner.adapt`: [shot, way, obs].

    Args:
        x: [example, ...], as the learner's family encodes them (`Recognition.encode`).
        labels: [example], from 0 to ways - 1, each equally often.

    Raises:
        QuickstudyError: examples that are none or not finite numbers, or labels that are not such.
    """
    x, labels = numbers(x, "A support's examples"), np.asarray(labels)
    if labels.shape != (len(x),) or not np.issubdtype(labels.dtype, np.integer):
        raise QuickstudyError(
            f"A support needs one whole number as label for each of its {len(x)} examples; got shape {labels.shape} of "
            f"{labels.dtype}."
        )
    if len(np.unique(labels)) < 2:
        raise QuickstudyError(f"A support needs examples of at least 2 classes; all of these are of class {labels[0]}.")
    if labels.min() < 0 or labels.max() >= ways:
        raise QuickstudyError(
            f"The labels of a {ways}-way support are 0 to {ways - 1}; got {labels.min()} to {labels.max()}."
        )
    counts = np.bincount(labels, minlength=ways)
    if counts.min() != counts.max():
        raise QuickstudyError(
            f"Each class of a support needs as many examples as every other; class {counts.argmax()} has "
            f"{counts.max()}, class {counts.argmin()} has {counts.min()}."
        )
    rows = labels.argsort(kind="stable").reshape(ways, -1).T
    y = np.broadcast_to(np.eye(ways, dtype="f4"), (len(rows), ways, ways)).copy()
    seen = torch.from_numpy(scaled(x.reshape(len(x), -1))[rows])
    return Batch(seen, torch.from_numpy(y), torch.ones(rows.shape), torch.zeros(0))


@threads_for(0)  # shared among threads it is slower, on a busy machine many times
def jittered(x: Tensor, image: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Images [..., height * width], each `nets.distorted` by amounts of its own; what comes in from outside is 0."""
    pictures = x.reshape(-1, 1, *image)
    return distorted(pictures, 2 * torch.rand(6, len(pictures), generator=rng) - 1).reshape(x.shape)
