"""One experiment for both ways of learning: what it is made of, what it learns from, how it trains and is judged."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy
from quickstudy import families, methods
from quickstudy.data import DemonstrationSet
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment, seconds_so_far
from quickstudy.families.classic import PointNavigation
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.io import checkpoint
from quickstudy.io.budget import Budget, OutOfTime
from quickstudy.results.compare import Protocol

QUICK: dict[str, Any] = {
    "demonstrations": {
        "training": {"steps": 4, "meta_batch": 3, "validate_every": 2, "batching": "vmap"},
        "data": {"tasks": 6, "demonstrations": 4, "validation_tasks": 2, "validation_episodes": 1},
    },
    "trials": {
        "training": {"steps": 4, "meta_batch": 2, "episodes_per_task": 2, "validate_every": 2, "validation_tasks": 2},
        "algorithm": {"width": 8, "minibatches": 2},
    },
}
WAYS = [("demonstrations", "maml"), ("trials", "rl2")]


class Short(Navigation2D):
    """Learned both ways, quickly."""

    horizon = 20


def quick(way: str, method: str, seed: int = 0) -> Experiment:
    return Experiment.of(Short(), method, seed, QUICK[way])


def weights(learner: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- what it is


def test_names_and_objects_make_the_same() -> None:
    by_name, by_object = (
        Experiment.of(family, method, 2)
        for family, method in (("point-navigation", "maml"), (PointNavigation(), methods.get("maml")))
    )
    assert by_name.settings == by_object.settings
    assert by_name.settings == methods.get("maml").defaults("point-navigation", PointNavigation(), 2)
    assert Experiment.of("navigation2d").method.name == Navigation2D.default_method
    assert by_name.named("a/path").settings.family == "a/path"


@pytest.mark.parametrize(
    ("family", "method", "sentence"),
    [
        ("sinusoid", "rl2", "Method 'rl2' learns from trials; 'sinusoid' is learned from demonstrations only."),
        ("cheetah-velocity", "maml", "Method 'maml' learns from demonstrations; 'cheetah-velocity' is learned from"),
        ("point-navigation", "prototypical", "Method 'prototypical' is for recognition"),
        ("point-navigation", "mmal", "Unknown method 'mmal'. Did you mean 'maml'?"),
        ("point-navigatio", "maml", "Unknown family 'point-navigatio'. Did you mean 'point-navigation'?"),
    ],
)
def test_what_does_not_fit_is_one_sentence(family: str, method: str, sentence: str) -> None:
    with pytest.raises(QuickstudyError) as error:
        Experiment.of(family, method)
    assert str(error.value).startswith(sentence)


def test_an_experiment_of_what_does_not_fit_cannot_be_made_either() -> None:
    settings = methods.get("rl2").defaults("sinusoid", families.get("sinusoid"))
    with pytest.raises(QuickstudyError, match="learned from demonstrations only"):
        Experiment(families.get("sinusoid"), methods.get("rl2"), settings)


@pytest.mark.parametrize(("way", "method"), WAYS)
def test_the_seed_draws_the_parameters_and_leaves_torchs_own_alone(way: str, method: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (weights(quick(way, method, seed).build()) for seed in (1, 1, 2))
    assert equal(one, same)
    assert not equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    learned = sum(p.numel() for p in quick(way, method).build().parameters() if p.requires_grad)
    assert quick(way, method).parameters() == learned
    assert Experiment.of(Short(), "replay").parameters() is None


# ---- what it learns from


def test_sources() -> None:
    source = quick("demonstrations", "maml").source()
    assert isinstance(source, DemonstrationSet)
    assert source.batch.mask.shape[:2] == (6, 4)
    few = quick("demonstrations", "nearest").source()
    assert few is not None
    assert few.batch is not None
    assert len(few.batch.x) == 6, "no more than there are"
    many = Experiment.of(PointNavigation(), "nearest").source()
    assert many is not None
    assert many.batch is not None
    assert len(many.batch.x) == 50
    assert quick("trials", "rl2").source() is None
    assert Experiment.of(Short(), "scratch-ppo").source() is None
    fresh = Experiment.of("sinusoid", "maml").source()
    assert fresh is not None
    assert fresh.batch is None


def test_meta_batches_that_cannot_be_had_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    changes = {**QUICK["demonstrations"], "training": {"shots": 9}}
    with pytest.raises(
        QuickstudyError, match="9 support and 2 query demonstrations a task; the one with the fewest has 4"
    ):
        Experiment.of(Short(), "maml", 0, changes).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- training


@pytest.mark.parametrize(("way", "method"), WAYS)
def test_a_training_that_is_stopped_goes_on_bit_for_bit(way: str, method: str, tmp_path: Path) -> None:
    made = quick(way, method)
    whole = weights(made.train(tmp_path / "whole"))
    assert equal(whole, weights(made.train())), "without a folder"
    assert equal(whole, weights(made.train(tmp_path / "whole"))), "a finished one is loaded"

    class Ends(Budget):
        """After three steps."""

        asked = 0

        def left(self) -> float:
            self.asked += 1
            return 1.0 if self.asked < 4 else 0.0

    with pytest.raises(OutOfTime):
        made.train(tmp_path / "parts", budget=Ends())
    assert checkpoint.load(tmp_path / "parts/checkpoints/last").config["step"] == 3
    seconds = seconds_so_far(tmp_path / "parts/training-seconds.json")
    assert equal(whole, weights(made.train(tmp_path / "parts")))
    assert seconds_so_far(tmp_path / "parts/training-seconds.json") > seconds > 0
    once, again = (checkpoint.load(tmp_path / name / "checkpoints/last") for name in ("whole", "parts"))
    assert once.config["history"] == again.config["history"]
    assert once.config["settings"] == json.loads(json.dumps(asdict(made.settings)))
    assert not equal(whole, weights(quick(way, method, 1).train()))


def test_costs() -> None:
    shown = quick("demonstrations", "maml")
    source = shown.source()
    assert isinstance(source, DemonstrationSet)
    cost = shown._cost(source)
    assert (cost.train_tasks, cost.demonstrations, cost.env_steps) == (6, 24, int(source.batch.mask.sum()))
    sinusoid = Experiment.of("sinusoid", "maml")
    cost = sinusoid._cost(sinusoid.source())
    assert (cost.train_tasks, cost.demonstrations, cost.env_steps) == (70_000 * 25, 70_000 * 25 * 15, None)
    tried = quick("trials", "rl2")._cost(None)
    assert (tried.train_tasks, tried.demonstrations, tried.env_steps) == (4 * 2, None, None)


def test_devices() -> None:
    with pytest.raises(QuickstudyError, match="no device 'gpu'"):
        quick("demonstrations", "maml").train(device="gpu")
    with pytest.raises(QuickstudyError, match="no device 'gpu'"):
        quick("trials", "rl2").train(device="gpu")


def test_a_method_that_is_not_trained_has_a_checkpoint_all_the_same(tmp_path: Path) -> None:
    for method in ("nearest", "scratch-ppo"):
        Experiment.of(Short(), method).train(tmp_path / method)
        assert checkpoint.exists(tmp_path / method / "checkpoints/best")
        assert not checkpoint.exists(tmp_path / method / "checkpoints/last")


# ---- evaluation


@pytest.mark.parametrize(("way", "method"), WAYS)
def test_evaluations_are_alike(way: str, method: str) -> None:
    made = quick(way, method)
    learner = made.build()
    result = made.evaluate(learner, tasks=3, episodes=2, shots=(0, 1, 2))
    assert (result.split, result.learns_from, len(result.tasks)) == ("test", way, 3)
    assert {"return", "success", "success_last"} <= result.metrics.keys()
    assert all(values.shape == (3, 3, 2) for values in result.metrics.values())
    again = made.evaluate(learner, tasks=3, episodes=2, shots=(0, 1, 2))
    assert (again.metrics["return"] == result.metrics["return"]).all()
    other = made.evaluate(learner, tasks=3, episodes=2, shots=(0, 1, 2), seed=1)
    assert (other.metrics["return"] != result.metrics["return"]).any()
    usual = made.evaluate(learner, "validation", tasks=2)
    assert usual.split == "validation"
    assert usual.metrics["return"].shape == (len(made.default_shots), 2, made.default_episodes)


@pytest.mark.parametrize(("way", "method"), WAYS)
def test_evaluations_that_cannot_be(way: str, method: str) -> None:
    made = quick(way, method)
    learner = made.build()
    for bad in ({"shots": []}, {"shots": [-1]}, {"episodes": -1}):
        with pytest.raises(QuickstudyError, match="shots and a seed of 0 or more, and at least one task and episode"):
            made.evaluate(learner, tasks=1, **bad)  # type: ignore[arg-type]
    with pytest.raises(QuickstudyError, match="Unknown split"):
        made.evaluate(learner, "tset")
    with pytest.raises(QuickstudyError, match="which holds 100000"):
        made.evaluate(learner, tasks=200_000)


def test_five_lines_of_python(tmp_path: Path) -> None:
    """As the documentation says."""
    experiment = quickstudy.Experiment.of("point-navigation", "maml", seed=0, changes=QUICK["demonstrations"])
    learner = experiment.train(tmp_path / "run")
    result = experiment.evaluate(learner, shots=[0, 1], tasks=2, episodes=1)
    assert result.metrics["success"].shape == (2, 2, 1)
    protocol = Protocol(seeds=1, tasks=2, episodes=1)
    (cell,) = quickstudy.compare("point-navigation", ["replay"], protocol, tmp_path / "comparison")
    assert [row.method for row in cell.rows] == ["replay"]
