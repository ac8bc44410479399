"""What lies outside of training is told by channel and distance, in deviations and in widths of its range."""

import numpy as np
import pytest

from quickstudy import outside
from quickstudy.data import Seen, Spread
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError


def seen(still: float = 1e-4) -> Seen:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.uniform(-1, 1, 500), 0.5 + still * rng.normal(size=500)])
    return Seen.of([[Demonstration(x, rng.uniform(-1, 1, (500, 1)))]])


def shown(x: float, still: float = 0.5, action: float = 0.3) -> list[Demonstration]:
    return [Demonstration([[0.0, 0.5], [x, still]], [[0.0], [action]])]


@pytest.mark.parametrize(
    ("demonstrations", "channel"),
    [(shown(57.3), "0 of the observations"), (shown(0.1, 0.6), "1 of the observations"),
     (shown(0.1, action=50.0), "0 of the actions"), (shown(-1e30), "0 of the observations")],
    ids=["degrees for radians", "a sensor that stood still", "actions fifty times too large", "nonsense"],
)  # fmt: skip
def test_what_is_too_far_is_refused_by_channel(demonstrations, channel):
    with pytest.raises(QuickstudyError, match=f"too far outside of training to adapt to: channel {channel} is "):
        outside.check(seen(), demonstrations)


@pytest.mark.parametrize(
    ("demonstrations", "far"),
    [(shown(0.9), False), (shown(1.5), False), (shown(2.0, 0.5003), False), (shown(5.0), True)],
    ids=["inside", "half as much again", "twice as much", "five times as much"],
)
def test_ordinary_generalisation_passes(demonstrations, far):
    assert outside.check(seen(), demonstrations).far == far


def test_distances_are_in_deviations_of_training():
    found = outside.farthest(seen(), shown(0.1, 0.6))
    assert found.deviations == pytest.approx(1000, rel=0.1)
    assert "is 1100 deviations from training's mean (0.6; training had 0.499" in str(found)


def test_a_channel_that_was_constant_is_told_when_it_is_not():
    found = outside.check(seen(0.0), shown(0.1, 0.6))
    assert found.far
    assert str(found) == "channel 1 of the observations is 0.6 and was always 0.5 in training"
    assert not outside.check(seen(0.0), shown(0.1, 0.5000001)).far, "rounding is no change"


def test_what_training_showed_survives_json():
    import json

    one = seen()
    again = outside.from_plain(json.loads(json.dumps(outside.plain(one), allow_nan=False)))
    for part, other in zip(one, again, strict=True):
        for a, b in zip(part, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_deviation_of_what_is_constant_but_for_rounding_is_zero():
    x = np.full((50, 1), 388096.4)
    x[::2] += 2e-11
    assert Spread.of([x]).deviation[0] == 0.0
    moving = 5572094.1 + 0.02 * np.arange(50.0)[:, None]
    assert Spread.of([moving]).deviation[0] == pytest.approx(0.02 * np.arange(50.0).std(), rel=1e-6)
    pixels = Spread.of([np.array([[0.0, 0.0], [1.0, 0.0]])], whole=True)
    assert pixels.deviation.tolist() == pytest.approx([np.array([0, 0, 1, 0]).std()] * 2)
