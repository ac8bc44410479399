"""Omniglot: handwritten characters, the field's own test of few-shot recognition."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from quickstudy import datasets
from quickstudy.errors import unknown
from quickstudy.families.recognition.family import Recognition, settings_for
from quickstudy.settings import Changes

VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
"""The alphabets among the first 1200 characters that the Vinyals split keeps for validation."""

_TRAINING_CHARACTERS = 1200

Protocol = Literal["vinyals", "random", "within-alphabet"]

_PROTOCOLS = {
    "vinyals": "Vinyals split, rotations are classes",
    "random": "1200 random characters for training, rotations are classes",
    "within-alphabet": "background alphabets for training, evaluation alphabets for test, one in each task",
}


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
        jitter: turn, shear, scale and shift every training image a little.

    In the first two each rotation by a multiple of 90 degrees is a class of its own, in all splits.

    Raises:
        QuickstudyError: no such file, or not such a file; an unknown protocol.
    """

    shots = (1, 5)

    def __init__(
        self, ways: int = 5, protocol: Protocol = "vinyals", path: Path | None = None, jitter: bool = False
    ) -> None:
        if protocol not in _PROTOCOLS:
            raise unknown("protocol", protocol, _PROTOCOLS)
        data, within = datasets.load_omniglot(path), protocol == "within-alphabet"
        splits = _character_splits(data, protocol)
        characters, drawings = data.images.shape[:2]
        turns = 1 if within else 4
        images = np.concatenate([np.rot90(data.images, turn, (2, 3)) for turn in range(turns)])
        rows = np.arange(turns * characters * drawings).reshape(turns, characters, drawings)
        names = [f"{data.alphabet_names[a]} {c}" for a, c in zip(data.alphabet, data.character, strict=True)]
        super().__init__(
            f"omniglot-{ways}way" if protocol == "vinyals" else f"omniglot-{protocol}-{ways}way",
            images.reshape(-1, 28, 28),
            {split: list(rows[:, chosen].reshape(-1, drawings)) for split, chosen in splits.items()},
            ways,
            image=(28, 28),
            domains={split: data.alphabet[chosen] for split, chosen in splits.items()} if within else None,
            titles={
                split: [names[c] + (f" turned {90 * turn}°" if turn else "") for turn in range(turns) for c in chosen]
                for split, chosen in splits.items()
            },
            jitter=jitter,
        )
        self.method_settings = _method_settings(ways, within)
        self.protocol += f"; {_PROTOCOLS[protocol]}"


def _method_settings(ways: int, within: bool) -> Mapping[str, Changes]:
    """What methods do otherwise here; a meta-batch has fewer tasks where a task has more classes."""
    few = ways <= 5
    settings = settings_for(meta_batch=16 if few else 4 if ways <= 20 else 1)
    if within or ways > 20:
        shorter = {"steps": 2000, "validate_every": 500}
        settings |= {method: {"training": shorter} for method in ("siamese", "matching", "matching-fce")}
        settings["hypernet"] = {"training": {"steps": 1500, "validate_every": 500, "rate": 5e-4}}
        return settings if within else settings | {"prototypical": {"training": {"steps": 13_000}}}
    # The inner loop goes through the network again and again.
    narrow: Changes = {
        "network": {"channels": (32, 32, 64, 64), "embedding": 64},
        "data": {"validation_tasks": 100},
    }
    memory = {"queries": 10, "most_shots": 5, "base_rate": 0.1}
    descent: Changes = {
        **narrow,
        "algorithm": {"inner_steps": 2, "inner_rate": 0.03, "shared_head": True},
        "training": {
            "steps": 3200, "meta_batch": 8 if few else 4, "rate": 2e-3, "most_shots": 5, "validate_every": 400,
        },
    }  # fmt: skip
    return settings | {
        "mann": {"training": {"steps": 3000, "meta_batch": 16 if few else 4, **memory}},
        "mann-raw": {"training": {"steps": 7000, "meta_batch": 32 if few else 8, **memory}},
        "maml": descent,
        "anil": descent,
        "reptile": {
            **narrow,
            "algorithm": {"inner_steps": 8, "inner_rate": 2e-3, "test_steps": 20},
            "training": {"steps": 3000, "meta_batch": 5 if few else 2, "queries": 9, "validate_every": 500},
        },
        "meta-lstm": {
            **narrow,
            "algorithm": {"inner_steps": 4, "initial_rate": 0.01},
            "training": {"steps": 1500, "meta_batch": 4 if few else 2, "validate_every": 100},
        },
    }


def _character_splits(data: datasets.OmniglotImages, protocol: str) -> dict[str, np.ndarray]:
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
