"""Which channels wrap, and what averages and compares them."""

import numpy as np
import pytest

from quickstudy.datasets import angles

STEPS = np.arange(50)


def wrapped(turn: float, low: float, start: float = 0.4) -> np.ndarray:
    return ((turn * (start + 0.03 * STEPS) - low) % turn + low)[:, None]


@pytest.mark.parametrize(("turn", "low"), [(360.0, -180.0), (360.0, 0.0), (2 * np.pi, -np.pi), (2 * np.pi, 0.0)])
def test_jumps_tell_an_angle(turn, low):
    values = wrapped(turn, low)
    assert angles.find([values]).turns == {0: turn}
    made = angles.find([values]).continuous(values)
    np.testing.assert_allclose(np.diff(made[:, 0]), 0.03 * turn)


@pytest.mark.parametrize(
    "channel",
    [
        np.random.default_rng(0).uniform(-3.1, 3.1, 50),  # noise has jumps of all sizes
        np.where(STEPS % 10 < 5, -3.0, 3.0),  # a switch
        STEPS % 7,  # a counter
        20.0 * STEPS,  # more than a turn: not wrapped
        np.zeros(50),
    ],
    ids=["noise", "switch", "counter", "turns", "still"],
)
def test_what_is_no_angle(channel):
    assert not angles.find([channel[:, None].astype(float)])


def test_units_and_names_tell_what_never_jumps():
    values = [np.full((5, 1), 179.5), np.full((5, 1), -179.5)]
    assert not angles.find(values)
    assert angles.find(values, units=["deg"]).turns == {0: 360.0}
    assert angles.find(values, names=["base.yaw"]).turns == {0: 360.0}
    assert not angles.find(values, units=["rad"])
    assert not angles.find([np.full((5, 1), 100.0), np.full((5, 1), -100.0)], units=["degrees"])
    assert not angles.find(values, units=["mm"])


def test_averages_and_differences_go_the_short_way():
    one, other = np.full((5, 1), 179.0), np.full((5, 1), -179.0)
    found = angles.find([one, other], units=["deg"])
    mean = np.mean([one, found.near(other, one.mean(0))])
    assert mean == 180.0
    assert found.difference(one, other).ravel().tolist() == [-2.0] * 5


def rotations(signs: np.ndarray) -> np.ndarray:
    half = STEPS / 60
    return np.stack([np.sin(half), 0 * half, 0 * half, np.cos(half)], 1) * signs[:, None]


@pytest.mark.parametrize("names", [(), ("qx", "qy", "qz", "qw"), ("quat.0", "quat.1", "quat.2", "quat.3")])
def test_quaternions(names):
    signs = np.where(np.random.default_rng(1).random(50) < 0.5, -1.0, 1.0)
    one, other = rotations(signs), -rotations(np.ones(50))
    found = angles.find([one, other], names)
    assert found.quaternions == (0,)
    np.testing.assert_allclose(np.abs(np.diff(found.continuous(one), axis=0)).max(), 0.0, atol=0.02)
    np.testing.assert_allclose(found.near(other, found.continuous(one).mean(0)), found.continuous(one), atol=1e-12)
    np.testing.assert_allclose(found.difference(one, other), 0, atol=1e-12)


def test_a_choice_of_one_in_four_is_no_quaternion():
    assert not angles.find([np.eye(4)[STEPS % 4]])
    assert not angles.find([np.random.default_rng(0).normal(size=(50, 4))])
