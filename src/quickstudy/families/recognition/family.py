"""N-way K-shot recognition of any labelled arrays.

A demonstration is one look at every class: N steps, one example each, in random order, so that K shots are K
demonstrations. An episode is one query, recognised alone: nothing of the other queries is known to the learner, unless
an evaluation asks for transductive figures.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.batching import threads_for
from quickstudy.data import Batch, SupportQuery, check_shots
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.nets import distorted
from quickstudy.settings import Changes
from quickstudy.task import Policy, Task, TaskFamily

_STANDARDISED = 200
"""Tasks whose support gives the mean and deviation of observations."""


def settings_for(meta_batch: int) -> dict[str, Changes]:
    """What methods do otherwise where classes are recognised."""
    return {
        "demonstrations": {
            "network": {"channels": (32, 64, 128, 256), "bfloat16": True, "embedding": 256},
            "training": {"steps": 6000, "meta_batch": meta_batch, "shots": 1, "queries": 3, "validate_every": 1500},
            "data": {"validation_tasks": 400, "validation_episodes": 15},
        },
        **{
            method: {"algorithm": {"inner_steps": 3, "inner_rate": 0.1}}
            for method in ("maml", "fomaml", "anil", "meta-sgd")
        },
    }


class Recognition(TaskFamily):
    """N-way K-shot tasks from labelled examples; its splits share no class.

    Args:
        name: of the family.
        examples: [example, ...], finite numbers; uint8, and images of 0 to 255 of any type, are divided by 255.
        classes: of each split, for each class the rows of its examples.
        ways: classes of a task (N).
        queries: examples of each class of a task that are kept for queries and never shown, whatever the seed.
        image: height and width, where an example is a grey image.
        domains: of each split, a number for each class; the classes of a task then have equal ones (the alphabet of a
            character, say).
        titles: of each split, what each class is called; its number where not given.
        jitter: turn, shear, scale and shift every training image a little, see `jittered`.

    Raises:
        QuickstudyError: too few classes in a split or in each of its domains, or too few examples in a class.
    """

    metric = "accuracy"
    labelled: ClassVar[bool] = True
    horizon = 1
    hidden_size = 0
    default_method = "prototypical"
    method_settings: Mapping[str, Changes] = settings_for(meta_batch=16)

    def __init__(
        self,
        name: str,
        examples: np.ndarray,
        classes: Mapping[str, Sequence[np.ndarray]],
        ways: int = 5,
        queries: int = 15,
        image: tuple[int, int] | None = None,
        domains: Mapping[str, np.ndarray] | None = None,
        titles: Mapping[str, Sequence[str]] | None = None,
        jitter: bool = False,
    ) -> None:
        if ways < 2:
            raise QuickstudyError(f"A recognition task needs at least 2 classes; got ways={ways}.")
        if queries < 1:
            raise QuickstudyError(f"Each class needs at least 1 query; got queries={queries}.")
        if jitter and image is None:
            raise QuickstudyError(f"Only images can be jittered; '{name}' has none.")
        self.name, self.ways, self.queries, self.image, self.jitter = name, ways, queries, image, jitter
        self.sizes = {split: 10**9 if split == "train" else 100_000 for split in classes}
        self.protocol = f"{ways} classes that training did not hold, queries one at a time; success is the right class"
        self.observation_size, self.action_size = int(np.prod(examples.shape[1:])), ways
        self.classes = classes
        self.titles = titles or {split: [str(c) for c in range(len(rows))] for split, rows in classes.items()}
        self._among = {split: self._drawn_from(split, (domains or {}).get(split)) for split in classes}
        for split, some in classes.items():
            fewest = int(np.argmin([len(rows) for rows in some]))
            if len(some[fewest]) <= queries:
                raise QuickstudyError(
                    f"Class '{self.titles[split][fewest]}' of '{name}' has {len(some[fewest])} examples; {queries} "
                    f"queries and at least one shot need {queries + 1}."
                )
        self._form = examples.shape[1:]
        self._white = 1.0 if image is None else white(examples, f"The images of '{name}'")
        small = examples.dtype == np.uint8  # bytes stay bytes until they are read
        self._examples = examples.reshape(len(examples), -1) if small else self.encode(examples)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Raw examples [example, ...] as this family's learners see them, [example, obs].

        Raises:
            QuickstudyError: none, not finite numbers, or of another form than the family's own.
        """
        x = numbers(x, "Examples")
        if x.shape[1:] != self._form:
            raise QuickstudyError(f"An example of '{self.name}' has the shape {self._form}; got {x.shape[1:]}.")
        if self.image is None or x.dtype == np.uint8:
            return scaled(x).reshape(len(x), -1)
        # A dark image alone does not say that it is of 0 to 255, but the family's own images do.
        most = 1.0 if x.dtype == bool else max(white(x, "The images"), self._white if x.max() > 1 else 1.0)
        return (x / most).astype("f4").reshape(len(x), -1)

    def support(self, x: np.ndarray, labels: Sequence[int] | np.ndarray) -> Batch:
        """A user's own raw examples of one task as the support that `MetaLearner.adapt` takes, [shot, way, obs].

        Args:
            x: [example, ...].
            labels: [example], from 0 to ways - 1, each equally often.

        Raises:
            QuickstudyError: examples as `encode` refuses them, or labels that are not such.
        """
        x, labels = self.encode(x), np.asarray(labels)
        if labels.shape != (len(x),) or not np.issubdtype(labels.dtype, np.integer):
            raise QuickstudyError(
                f"A support needs one whole number as label for each of its {len(x)} examples; got shape "
                f"{labels.shape} of {labels.dtype}."
            )
        if labels.min() < 0 or labels.max() >= self.ways:
            raise QuickstudyError(
                f"The labels of a {self.ways}-way support are 0 to {self.ways - 1}; got {labels.min()} to "
                f"{labels.max()}."
            )
        counts = np.bincount(labels, minlength=self.ways)
        if counts.min() != counts.max():
            raise QuickstudyError(
                f"Each class of a support needs as many examples as every other; class {counts.argmax()} has "
                f"{counts.max()}, class {counts.argmin()} has {counts.min()}."
            )
        rows = labels.argsort(kind="stable").reshape(self.ways, -1).T
        y = one_hot(labels[rows], self.ways)
        return Batch(torch.from_numpy(x[rows]), torch.from_numpy(y), torch.ones(rows.shape), torch.zeros(0))

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        among = self._among[split]
        return {"classes": rng.choice(among[rng.integers(len(among))], self.ways, replace=False).tolist()}

    def task_key(self, task: Task) -> str:
        """Its classes, in whichever order; where a task is of one domain, that domain, such as an alphabet."""
        classes, among = sorted(task.parameters["classes"]), self._among[task.split]
        return str(classes if len(among) == 1 else next(i for i, some in enumerate(among) if classes[0] in some))

    def hidden(self, task: Task) -> np.ndarray:
        return np.zeros(0, "f4")

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        made = []
        for task in tasks:
            shown, _ = self._rows(task, seed)
            if count > len(shown):
                raise QuickstudyError(
                    f"Asked for {count} shots of '{task.name}'; a class has {len(shown)} besides its {self.queries} "
                    "queries."
                )
            rows, labels = shuffled(shown[:count], task.generator(seed, 2))
            looks = zip(self.read(rows), one_hot(labels, self.ways), strict=True)
            made.append([Demonstration(x, y) for x, y in looks])
        return made

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        if episodes > self.ways * self.queries:
            raise QuickstudyError(
                f"Asked for {episodes} queries of a task; {self.queries} of each of {self.ways} classes were kept."
            )
        # Each class once before any twice: every quota is as balanced as it can be, and favours no label.
        drawn = [shuffled(self._rows(task, seed)[1], task.generator(seed, 3)) for task in tasks]
        rows, labels = (np.stack([a.ravel()[:episodes] for a in arrays]) for arrays in zip(*drawn, strict=True))
        return {"accuracy": (policy(self.read(rows)).argmax(-1) == labels).astype("f8")}

    def caption(self, task: Task) -> str:
        return ", ".join(self.titles[task.split][c] for c in task.parameters["classes"])

    def snapshot(self, task: Task) -> np.ndarray:
        """Two examples of each class, one class a column."""
        if self.image is None:
            return super().snapshot(task)
        shown, kept = self._rows(task, 0)
        tiles = self.read(np.concatenate([shown, kept])[:2]).reshape(2, self.ways, *self.image)
        sheet = np.concatenate(list(tiles.transpose(0, 2, 1, 3).reshape(2, self.image[0], -1)))
        grey = 255 - (255 * sheet).clip(0, 255).astype("u1")
        return np.repeat(np.kron(grey, np.ones((2, 2), "u1"))[..., None], 3, -1)

    def fresh(self) -> "FreshClasses":
        return FreshClasses(self)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The examples of these rows as learners see them, [..., obs]."""
        return scaled(self._examples[rows])

    def _rows(self, task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows that may be shown, [shot, way], and rows that are kept for queries, [query, way].

        Which are kept belongs to the task, the order of either to the seed.
        """
        drawn, rng = task.generator(), task.generator(seed, 1)
        classes = [drawn.permutation(self.classes[task.split][c]) for c in task.parameters["classes"]]
        fewest = min(len(rows) for rows in classes) - self.queries
        shown = [rng.permutation(rows[: -self.queries])[:fewest] for rows in classes]
        kept = [rng.permutation(rows[-self.queries :]) for rows in classes]
        return np.stack(shown, 1), np.stack(kept, 1)

    def _drawn_from(self, split: str, domain: np.ndarray | None) -> list[np.ndarray]:
        """The sets of classes that tasks of a split are drawn from: all of them, or one for each domain."""
        classes = np.arange(len(self.classes[split]))
        among = [classes] if domain is None else [classes[domain == d] for d in np.unique(domain)]
        most = max((len(some) for some in among), default=0)
        if most < self.ways:
            where = "" if domain is None else " in its largest domain"
            raise QuickstudyError(
                f"Split '{split}' of '{self.name}' has {most} classes{where}; {self.ways} ways need {self.ways}."
            )
        return [some for some in among if len(some) >= self.ways]


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
        check_shots(shots, queries, self._fewest, "examples of each class")
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


def numbers(x: np.ndarray, what: str) -> np.ndarray:
    """`x` as an array of finite numbers [example, ...], or QuickstudyError."""
    x = np.asarray(x)
    if x.ndim < 2 or not np.issubdtype(x.dtype, np.number) or np.iscomplexobj(x):
        raise QuickstudyError(f"{what} must be numbers [example, ...]; got shape {x.shape} of {x.dtype}.")
    if x.size == 0:
        raise QuickstudyError(f"{what} must be at least one; got none (shape {x.shape}).")
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        raise QuickstudyError(f"{what} must be finite; number {bad[0][0]} holds {x[tuple(bad[0])]}.")
    return x


def white(x: np.ndarray, what: str) -> float:
    """What white is in images of any type: 255, or 1 where they are of about 0 to 1, or standardised.

    Raises:
        QuickstudyError: they are of neither.
    """
    if x.dtype == np.uint8:
        return 255.0
    low, high = float(x.min()), float(x.max())
    if (low >= 0 and 10 < high <= 255) or (x.dtype.kind in "iu" and low >= 0 and 1 < high <= 255):
        return 255.0
    if max(-low, high) <= 10:
        return 1.0
    raise QuickstudyError(f"{what} must be of 0 to 255 or of about 0 to 1; these are of {low:g} to {high:g}.")


def scaled(x: np.ndarray) -> np.ndarray:
    """As float32; bytes become 0 to 1."""
    return np.divide(x, 255, dtype="f4") if x.dtype == np.uint8 else x.astype("f4", copy=False)


def shuffled(rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows [..., way], each look at the classes in an order of its own, and the labels in that order."""
    labels = rng.permuted(np.broadcast_to(np.arange(rows.shape[-1]), rows.shape), axis=-1)
    return np.take_along_axis(rows, labels, -1), labels


def one_hot(labels: np.ndarray, ways: int) -> np.ndarray:
    return np.eye(ways, dtype="f4")[labels]


@threads_for(0)  # shared among threads it is slower, on a busy machine many times
def jittered(x: Tensor, image: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Images [..., height * width], each `nets.distorted` by amounts of its own; what comes in from outside is 0."""
    pictures = x.reshape(-1, 1, *image)
    return distorted(pictures, 2 * torch.rand(6, len(pictures), generator=rng) - 1).reshape(x.shape)
