"""Few-shot recognition: N-way K-shot families made of any labelled arrays, and Omniglot, the field's own test.

A demonstration is one look at every class: N steps, one example each, in random order, so that K shots are K
demonstrations. An episode is one query, recognised alone: nothing of the other queries is known to the learner, unless
an evaluation asks for transductive figures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from quickstudy import datasets
from quickstudy.data import Batch, SupportQuery
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.task import Policy, Task, TaskFamily


class Recognition(TaskFamily):
    """N-way K-shot tasks from labelled examples; its splits share no class.

    Args:
        name: of the family.
        examples: [example, ...], numbers; uint8 images are divided by 255.
        classes: of each split, for each class the rows of its examples.
        ways: classes of a task (N).
        queries: examples of each class that are kept for queries and never shown.
        image: height and width, where an example is a grey image.
        domains: of each split, a number for each class; the classes of a task then have equal ones (the alphabet of a
            character, say).

    Raises:
        QuickstudyError: too few classes in a split, or too few examples in a class.
    """

    metric = "accuracy"
    labelled: ClassVar[bool] = True
    horizon = 1
    hidden_size = 0

    def __init__(
        self,
        name: str,
        examples: np.ndarray,
        classes: Mapping[str, Sequence[np.ndarray]],
        ways: int = 5,
        queries: int = 15,
        image: tuple[int, int] | None = None,
        domains: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        if ways < 2:
            raise QuickstudyError(f"A recognition task needs at least 2 classes; got ways={ways}.")
        if queries < 1:
            raise QuickstudyError(f"Each class needs at least 1 query; got queries={queries}.")
        self.name, self.ways, self.queries, self.image = name, ways, queries, image  # type: ignore[misc]
        self.sizes = {split: 10**9 if split == "train" else 100_000 for split in classes}  # type: ignore[misc]
        self.protocol = (  # type: ignore[misc]
            f"{ways} classes that training did not hold, queries one at a time; success is the right class"
        )
        self.observation_size, self.action_size = int(np.prod(examples.shape[1:])), ways
        self._examples = torch.from_numpy(np.ascontiguousarray(examples.reshape(len(examples), -1)))
        self._classes, self._domains = classes, domains or {}
        for split, rows in classes.items():
            if len(rows) < ways:
                raise QuickstudyError(f"Split '{split}' of '{name}' has {len(rows)} classes; {ways} ways need {ways}.")
            fewest = min(len(some) for some in rows)
            if fewest <= queries:
                raise QuickstudyError(
                    f"A class of split '{split}' of '{name}' has {fewest} examples; {queries} queries and at least one "
                    f"shot need {queries + 1}."
                )

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        among = np.arange(len(self._classes[split]))
        if split in self._domains:
            domains, sizes = np.unique(self._domains[split], return_counts=True)
            among = among[self._domains[split] == rng.choice(domains[sizes >= self.ways])]
        return {"classes": rng.choice(among, self.ways, replace=False).tolist()}

    def hidden(self, task: Task) -> np.ndarray:
        return np.zeros(0, "f4")

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        made = []
        for task in tasks:
            rows = self._rows(task, seed)
            most = min(len(some) for some in rows) - self.queries
            if count > most:
                raise QuickstudyError(
                    f"Asked for {count} shots of '{task.name}'; a class has {most} besides its {self.queries} queries."
                )
            rng, shots = task.generator(seed, 1), []
            for k in range(count):
                order = rng.permutation(self.ways)
                x = self._read(torch.tensor([int(rows[way][k]) for way in order])).numpy()
                shots.append(Demonstration(x, np.eye(self.ways, dtype="f4")[order]))
            made.append(shots)
        return made

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        if episodes > self.ways * self.queries:
            raise QuickstudyError(
                f"Asked for {episodes} queries of a task; {self.queries} of each of {self.ways} classes were kept."
            )
        labels = np.arange(episodes) % self.ways
        rows = [[self._rows(task, seed)[way][-1 - e // self.ways] for e, way in enumerate(labels)] for task in tasks]
        logits = policy(self._read(torch.tensor(np.array(rows))).numpy())
        return {"accuracy": (logits.argmax(-1) == labels).astype("f8")}

    def caption(self, task: Task) -> str:
        return f"classes {', '.join(str(c) for c in task.parameters['classes'])}"

    def snapshot(self, task: Task) -> np.ndarray:
        """Two examples of each class, one class a column."""
        if self.image is None:
            return super().snapshot(task)
        rows = torch.tensor(np.array([some[:2] for some in self._rows(task, 0)]).T)
        tiles = 255 - (self._read(rows).numpy() * 255).astype("u1").reshape(*rows.shape, *self.image)
        sheet = np.concatenate(list(tiles.transpose(0, 2, 1, 3).reshape(2, self.image[0], -1)), 0)
        return np.repeat(np.kron(sheet, np.ones((2, 2), "u1"))[..., None], 3, -1)

    def fresh(self) -> "FreshClasses":
        return FreshClasses(self, self._classes["train"], self._domains.get("train"))

    def _rows(self, task: Task, seed: int) -> list[np.ndarray]:
        """For each class of a task its examples in random order: shots from the front, queries from the back."""
        rng = task.generator(seed, 0)
        return [rng.permutation(self._classes[task.split][c]) for c in task.parameters["classes"]]

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        """Examples [..., obs] as float32."""
        x = self._examples[rows]
        return x.float() / 255 if x.dtype == torch.uint8 else x.float()


class FreshClasses:
    """Meta-batches of newly drawn tasks of the training classes: a `quickstudy.data.Source`."""

    def __init__(self, family: Recognition, classes: Sequence[np.ndarray], domains: np.ndarray | None) -> None:
        self._family, self._domains = family, None if domains is None else torch.from_numpy(domains)
        most = max(len(rows) for rows in classes)
        self._rows = torch.tensor(np.array([np.resize(rows, most) for rows in classes]))
        self._there = torch.arange(most) < torch.tensor([len(rows) for rows in classes])[:, None]
        self._fewest = min(len(rows) for rows in classes)
        self._last: list[list[int]] = []

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        if shots < 1 or queries < 1 or shots + queries > self._fewest:
            raise QuickstudyError(
                f"Asked for {shots} support and {queries} query examples of each class; a class of the training split "
                f"has {self._fewest}, and both need at least one."
            )
        ways = self._family.ways
        classes = self._draw_classes(rng, tasks, ways)
        self._last = classes.tolist()
        keys = torch.rand(tasks, ways, self._rows.shape[1], generator=rng).masked_fill(~self._there[classes], -1.0)
        chosen = keys.topk(shots + queries, -1).indices
        rows = self._rows[classes].gather(2, chosen).transpose(1, 2)  # [task, shot, way]
        order = torch.rand(rows.shape, generator=rng).argsort(-1)
        x, y = self._family._read(rows.gather(2, order)), torch.eye(ways)[order]
        return SupportQuery(self._batch(x[:, :shots], y[:, :shots]), self._batch(x[:, shots:], y[:, shots:]))

    def names(self) -> list[str]:
        return [f"{self._family.name} with training classes {classes}" for classes in self._last]

    def _draw_classes(self, rng: torch.Generator, tasks: int, ways: int) -> torch.Tensor:
        keys = torch.rand(tasks, len(self._rows), generator=rng)
        if self._domains is not None:
            domains, sizes = self._domains.unique(return_counts=True)
            domains = domains[sizes >= ways]
            drawn = domains[torch.randint(len(domains), (tasks,), generator=rng)]
            keys = keys.masked_fill(self._domains[None] != drawn[:, None], -1.0)
        return keys.topk(ways, -1).indices

    def _batch(self, x: torch.Tensor, y: torch.Tensor) -> Batch:
        return Batch(x, y, torch.ones(x.shape[:-1]), torch.zeros(len(x), 0))


VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
"""The alphabets among the first 1200 characters that the Vinyals split keeps for validation."""

_TRAINING_CHARACTERS = 1200


class Omniglot(Recognition):
    """Handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015), 28 x 28.

    Args:
        ways: characters of a task.
        protocol: 'vinyals' has Lake's characters 1 to 1200 for training, of which five alphabets (172 characters) are
            for validation, and the other 423 for test (Vinyals et al. 2016; the lists are those of Snell et al. 2017).
            'random' draws 1200 training characters (100 of them for validation), as Santoro et al. 2016 and Finn et
            al. 2017 do. 'within-alphabet' trains on the 30 background alphabets, less the five, tests on the 20
            evaluation alphabets, and the characters of a task are of one alphabet (Lake et al. 2015).
        path: `omniglot28.npz`, see `quickstudy data omniglot`, which puts it into the cache.

    In the first two each rotation by a multiple of 90 degrees is a class of its own, in all splits.

    Raises:
        QuickstudyError: no such file, or not such a file.
    """

    def __init__(
        self,
        ways: int = 5,
        protocol: Literal["vinyals", "random", "within-alphabet"] = "vinyals",
        path: Path | None = None,
    ) -> None:
        data = datasets.load_omniglot(path)
        splits = _character_splits(data, protocol)
        turns = 1 if protocol == "within-alphabet" else 4
        count, drawings = data.images.shape[:2]
        images = np.concatenate([np.rot90(data.images, k, (2, 3)) for k in range(turns)])
        rows = np.arange(turns * count * drawings).reshape(turns, count, drawings)
        classes = {split: list(rows[:, chosen].reshape(-1, drawings)) for split, chosen in splits.items()}
        within = protocol == "within-alphabet"
        domains = {split: data.alphabet[chosen] for split, chosen in splits.items()} if within else None
        name = f"omniglot-{ways}way" if protocol == "vinyals" else f"omniglot-{protocol}-{ways}way"
        super().__init__(name, images.reshape(-1, 28, 28), classes, ways, 15, (28, 28), domains)
        self.protocol += {  # type: ignore[misc]
            "vinyals": "; Vinyals split, rotations are classes",
            "random": "; 1200 random characters for training, rotations are classes",
            "within-alphabet": "; background alphabets for training, evaluation alphabets for test, one in each task",
        }[protocol]


def _character_splits(data: "datasets.OmniglotImages", protocol: str) -> dict[str, np.ndarray]:
    """The characters of each split."""
    characters = np.arange(len(data.images))
    if protocol == "random":
        drawn = np.random.default_rng(0).permutation(characters)
        validation = _TRAINING_CHARACTERS - 100
        parts = np.split(drawn, [validation, _TRAINING_CHARACTERS])
        return dict(zip(("train", "validation", "test"), parts, strict=True))
    held = np.isin(data.alphabet_names[data.alphabet], VALIDATION_ALPHABETS)
    test = data.evaluation if protocol == "within-alphabet" else characters >= _TRAINING_CHARACTERS
    return {
        "train": characters[~held & ~test],
        "validation": characters[held & ~test],
        "test": characters[test],
    }
