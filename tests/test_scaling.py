"""Units do not matter: what is recorded is scaled by the training demonstrations, and comes back in its own units."""

import math

import numpy as np
import pytest
import torch

from linear import CHANGES, demonstration, recordings
from quickstudy import Experiment, adapt, families
from quickstudy.data import DemonstrationSet, Scaling, Seen
from quickstudy.demonstration import Demonstration
from quickstudy.io import checkpoint
from quickstudy.results import runs
from quickstudy.results.adaptation import imitation_error


def errors_of(method: str, scale: float, offset: float = 0.0) -> np.ndarray:
    """Errors on held-out tasks without and with a demonstration, of data in other units, in these units squared."""
    demonstrations, labels = recordings()
    other = [
        Demonstration(*(part.astype(float) * scale + offset for part in (d.observations, d.actions)))
        for d in demonstrations
    ]
    experiment = Experiment.of(families.from_demonstrations(other, labels), method, changes=CHANGES)
    return experiment.evaluate(experiment.train(), shots=[0, 1]).metrics["error"].mean((1, 2))


@pytest.mark.parametrize("method", ["maml", "meta-sgd", "reptile", "hypernet", "matching", "transfer", "nearest"])
def test_degrees_and_radians_train_alike(method):
    degrees = 180 / math.pi
    plain, large, tiny = (errors_of(method, scale) / scale**2 for scale in (1.0, degrees, 1e-7))
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(large, plain, rtol=2e-3)
    np.testing.assert_allclose(tiny, plain, rtol=2e-3)


def test_a_position_on_earth_trains_as_one_near_zero():
    np.testing.assert_allclose(errors_of("maml", 1.0, 5572094.0), errors_of("maml", 1.0), rtol=1e-3)


def test_centimetres_survive_the_position_on_earth():
    """Northings of UTM: float32 has steps of half a metre there."""
    x = np.column_stack([388096.40 + 0.02 * np.arange(20), 5572094.10 + 0.02 * np.arange(20)])
    one = Demonstration(x, 0.4 * np.ones((20, 1)))
    scaling = Scaling.of(Seen.of([[one]]))
    learnt = scaling.observations(one.observations) * scaling.deviation.numpy()
    np.testing.assert_allclose(np.diff(learnt[:, 1]), 0.02, atol=1e-3)
    assert len(np.unique(learnt[:, 1].round(3))) == 20
    assert scaling.actions(one.actions).tolist() == [[0.0]] * 20, "what is constant is only centred"
    assert scaling.restored(np.ones((1, 1), "f4")).tolist() == [[pytest.approx(1.4)]]


def test_the_scale_is_kept_with_the_learner_and_comes_back(tmp_path):
    demonstrations, labels = recordings()
    large = [Demonstration(d.observations, 1e4 * d.actions + 3e5) for d in demonstrations]
    np.savez(
        tmp_path / "large.npz",
        observations=np.concatenate([d.observations for d in large]),
        actions=np.concatenate([d.actions for d in large]),
        start=20 * np.arange(len(large) + 1),
        task=np.array(labels),
    )
    experiment = Experiment.of(str(tmp_path / "large.npz"), "maml", changes=CHANGES)
    learner = experiment.train(tmp_path / "run")
    new = demonstration(20, 0)
    new = Demonstration(new.observations, 1e4 * new.actions + 3e5)
    _, loaded = runs.load(tmp_path / "run")
    errors = [imitation_error(one, adapt(one, [new]), [new], experiment.family) for one in (learner, loaded)]
    assert errors[0] == errors[1] < np.var(new.actions)
    assert loaded.scaling.mean.dtype == torch.float64
    assert loaded.double().half().scaling.action_mean.dtype == torch.float64, "wherever the learner goes"


def test_a_learner_that_was_saved_without_a_scale_keeps_the_units_of_its_data(tmp_path):
    demonstrations, labels = recordings()
    family = families.from_demonstrations(demonstrations, labels)
    experiment = Experiment.of(family, "maml", changes=CHANGES)
    learner = experiment.train(tmp_path / "run", source=experiment.source().unscaled())
    assert learner.scaling is None
    assert not any(name.startswith("scaling") for name in checkpoint.load(tmp_path / "run/checkpoints/best").tensors)
    again = experiment.train(tmp_path / "run")  # a finished training is loaded, as it was
    assert again.scaling is None
    source = experiment.source()
    raw = DemonstrationSet.record(family, family.tasks("train", family.sizes["train"]), 5, 0).batch
    torch.testing.assert_close(source.unscaled().batch.x, raw.x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(source.unscaled().batch.y, raw.y, rtol=1e-5, atol=1e-5)


def test_families_of_this_house_are_not_scaled():
    for name in ("point-navigation", "sinusoid", "ml1-push"):
        family = families.get(name)
        assert not family.scales_actions
        assert Experiment.of(family, "maml").build().scaling is None
