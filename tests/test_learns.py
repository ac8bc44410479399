"""It really learns: short trainings with fixed seeds and wide margins."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from quickstudy.batching import over_tasks
from quickstudy.data import DemonstrationSet
from quickstudy.evaluate import evaluate, run_tasks
from quickstudy.learners.maml import MAMLConfig
from quickstudy.methods import NetworkConfig, Settings, build
from quickstudy.skills.classic import Sinusoid
from quickstudy.skills.grasping import Grasping
from quickstudy.train import TrainConfig, meta_train


@pytest.fixture(scope="module")
def recorded() -> DemonstrationSet:
    family = Grasping()
    return DemonstrationSet.record(family, family.tasks("train", 60), 4, seed=0)


def test_the_example_grasps_unseen_objects_after_one_demonstration():
    path = Path(__file__).parents[1] / "examples/maml_grasping.py"
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
        learner = build(Settings("grasping", method), family)
        learner.standardise(recorded.batch)
        meta_train(learner, recorded, TrainConfig(steps=500, meta_batch=8, validate_every=500, batching="vmap"))
        result = evaluate(learner, family, "validation", shots=[1], tasks=15, episodes=3)
        success[method] = result.metrics["success"].mean()
    assert success["oracle"] > 0.8
    assert success["no-adaptation"] < success["oracle"] - 0.4


def test_maml_learns_to_fit_a_sinusoid_from_five_points():
    """Finn et al. 2017 reach 0.67 after one step and 70,000 iterations; a network without meta-training about 4."""
    family = Sinusoid()
    settings = Settings(
        "sinusoid", "maml", network=NetworkConfig((40, 40), 0), maml=MAMLConfig(inner_steps=1, inner_rate=0.01)
    )
    learner = build(settings, family)
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
