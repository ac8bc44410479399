"""It really learns: short trainings with fixed seeds and wide margins."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy import methods
from quickstudy.batching import over_tasks
from quickstudy.data import DemonstrationSet
from quickstudy.evaluation import evaluate, run_tasks
from quickstudy.experiment import Experiment
from quickstudy.families import own as families
from quickstudy.families.classic import Sinusoid
from quickstudy.families.grasping.family import Grasping
from quickstudy.io import checkpoint
from quickstudy.methods.demonstrations.warm_start import start_from
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train


@pytest.fixture(scope="module")
def recorded() -> DemonstrationSet:
    family = Grasping()
    return DemonstrationSet.record(family, family.tasks("train", 60), 4, seed=0)


def test_the_example_grasps_unseen_objects_after_one_demonstration():
    path = Path(__file__).parents[3] / "examples/maml_grasping.py"
    spec = importlib.util.spec_from_file_location("maml_grasping", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    before, after = example.main(train_tasks=60, test_tasks=15, steps=250)
    assert after > 0.6
    assert after > before + 0.4
    code = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(code) <= 80


def test_the_oracle_grasps_and_one_policy_for_all_objects_does_not(recorded):
    """A family is worth learning to learn only if what is hidden is needed, and is enough."""
    family, success = Grasping(), {}
    for method in ("oracle", "no-adaptation"):
        learner = Experiment.of(family, method).build()
        learner.standardise(recorded.batch)
        meta_train(learner, recorded, TrainConfig(steps=500, meta_batch=8, validate_every=500, batching="vmap"))
        result = evaluate(learner, family, "validation", shots=[1], tasks=15, episodes=3)
        success[method] = result.metrics["success"].mean()
    assert success["oracle"] > 0.8
    assert success["no-adaptation"] < success["oracle"] - 0.4


def test_maml_learns_to_fit_a_sinusoid_from_five_points():
    """Finn et al. 2017 reach 0.67 after one step and 70,000 iterations; a network without meta-training about 4."""
    family = Sinusoid()
    changes = {"network": {"hidden": (40, 40), "context": 0}, "algorithm": {"inner_steps": 1, "inner_rate": 0.01}}
    learner = Experiment.of(family, "maml", changes=changes).build()
    config = TrainConfig(steps=1500, meta_batch=25, shots=5, queries=10, rate=3e-3, batching="vmap")
    tasks = family.tasks("test", 200)
    support = DemonstrationSet.record(family, tasks, 5, seed=0).batch
    before = mse(learner, family, tasks, support)
    meta_train(learner, family.fresh(), config)
    after = mse(learner, family, tasks, support)
    assert before > 2.5
    assert after < 1.5


def mse(learner, family, tasks, support) -> float:
    skills = over_tasks(learner.adapt, support)
    return float(np.mean(run_tasks(family, tasks, 50, learner, skills, seed=0)["mse"]))


@pytest.fixture(scope="module")
def glyphs():
    """Images of 80 made-up characters, each drawn 12 times by an unsteady hand; 5-way tasks."""
    rng, side, images = np.random.default_rng(0), 14, []
    pixels = np.stack(np.meshgrid(range(side), range(side), indexing="ij"), -1).reshape(-1, 1, 2)
    for _ in range(80):
        corners = rng.uniform(2, side - 3, (4, 2))
        for _ in range(12):
            drawn = corners + rng.normal(0, 0.6, corners.shape)
            line = np.stack([np.interp(np.linspace(0, 3, 60), range(4), drawn[:, k]) for k in (0, 1)], 1)
            images.append(np.exp(-np.square(pixels - line).sum(-1).min(1)).reshape(side, side))
    x = (255 * np.stack(images)).astype("u1")
    return families.from_arrays(x, np.repeat(np.arange(80), 12), name="glyphs")


MAML = {"inner_steps": 2, "inner_rate": 0.03}
ALGORITHM = {"maml": MAML, "anil": MAML, "mann": {"slots": 32, "controller": 64}}
NETWORK = {"channels": (16, 32), "embedding": 32, "bfloat16": False}


def learned(method: str, glyphs, steps: int = 150, tasks: int = 8, start: Path | None = None):
    training = {"steps": steps, "meta_batch": tasks, "queries": 3, "base_rate": 0.1 if start else 1.0}
    training |= {"rate": 3e-3} | methods.get(method).changes.get("training", {})
    changes = {"network": NETWORK, "algorithm": ALGORITHM.get(method, {}), "training": training}
    experiment = Experiment.of(glyphs, method, changes=changes)
    learner, source = experiment.build(), glyphs.fresh()
    if start is not None:
        start_from(learner, start)
    learner.standardise(source.batch)
    meta_train(learner, source, experiment.settings.training)
    return learner


def accuracy(learner, glyphs) -> float:
    result = evaluate(learner, glyphs, "test", shots=[0, 1], tasks=60, episodes=10)
    before, after = result.metrics["accuracy"].mean((1, 2))
    assert before < 0.3
    return float(after)


@pytest.mark.parametrize("method", ["prototypical", "siamese", "matching", "hypernet", "anil", "maml", "reptile"])
def test_unseen_characters_are_recognised_from_one_look(method, glyphs):
    """Chance is 0.2; each of these reaches 0.8 or more."""
    few = {"steps": 90, "tasks": 5} if method == "reptile" else {}  # its inner loop is long
    assert accuracy(learned(method, glyphs, **few), glyphs) > 0.6


def test_the_learned_optimiser_recognises_unseen_characters(glyphs):
    assert accuracy(learned("meta-lstm", glyphs, steps=100, tasks=4), glyphs) > 0.5


def test_the_memory_recognises_unseen_characters_with_a_network_that_another_method_trained(glyphs, tmp_path):
    """From a random network, memory and embedding wait for each other for a long time."""
    embedding = learned("prototypical", glyphs)
    checkpoint.save(tmp_path / "checkpoints/best", embedding.state_dict(), {})
    assert accuracy(learned("mann", glyphs, steps=500, start=tmp_path), glyphs) > 0.5


def small(method: str, family, seed: int = 0):
    changes = {"network": {"channels": (4, 4), "embedding": 6, "bfloat16": False}}
    return Experiment.of(family, method, seed, changes).build()


def test_a_run_with_another_number_of_classes_is_a_start_too(glyphs, tmp_path):
    """Every class gets the mean of the rows of the other head; all else stays as it is."""
    fives = small("maml", glyphs)
    checkpoint.save(tmp_path / "checkpoints/best", fives.state_dict(), {})
    blank = families.from_arrays(np.zeros((120, 14, 14), "u1"), np.repeat(np.arange(20), 6), ways=3)
    threes = small("meta-lstm", blank)
    start_from(threes, tmp_path)
    for name, there in fives.base.initial().items():
        expected = (
            there.mean(0, keepdim=True).expand(3, *there.shape[1:]) if name.startswith("network.head.") else there
        )
        torch.testing.assert_close(threes.base.initial()[name], expected)


def test_what_embeds_images_and_what_recognises_them_start_from_each_other(glyphs, tmp_path):
    compares, descends = small("prototypical", glyphs), small("maml", glyphs, seed=1)
    wanted = compares.base.network.state_dict()
    checkpoint.save(tmp_path / "a/checkpoints/best", compares.state_dict(), {})
    start_from(descends, tmp_path / "a")
    torch.testing.assert_close(descends.base.network.embedding.state_dict(), wanted)
    checkpoint.save(tmp_path / "b/checkpoints/best", descends.state_dict(), {})
    for method in ("matching", "hypernet"):
        other = small(method, glyphs, seed=2)
        start_from(other, tmp_path / "b")
        torch.testing.assert_close(dict(other.base.network.state_dict()), dict(wanted))
