"""What a demonstration keeps of the numbers that it is made from."""

import numpy as np
import pytest

from quickstudy import Demonstration
from quickstudy.errors import QuickstudyError

STEPS = np.arange(20)


@pytest.mark.parametrize(
    "channel",
    [5572094.10 + 0.02 * STEPS, 52.123456 + 1e-7 * STEPS, np.full(20, 388096.4), 1_700_000_000 + STEPS],
    ids=["metres", "degrees of latitude", "standing still", "whole numbers"],
)
def test_what_float32_would_lose_is_kept(tmp_path, channel):
    for kept in (
        Demonstration(channel[:, None], np.zeros((20, 1))).observations,
        Demonstration(np.zeros((20, 1)), channel[:, None]).actions,
    ):
        assert kept.dtype == np.float64
        np.testing.assert_array_equal(kept[:, 0], channel)
    Demonstration(channel[:, None], np.zeros((20, 1))).save(tmp_path / "d.npz")
    np.testing.assert_array_equal(Demonstration.load(tmp_path / "d.npz").observations[:, 0], channel)


@pytest.mark.parametrize(
    "channel",
    [np.sin(STEPS), np.full(20, 0.1), 0.5 + 1e-9 * np.sin(STEPS), 500 + 0.1 * STEPS, STEPS, 90 * np.sin(STEPS)],
)
def test_all_else_is_float32(channel):
    assert Demonstration(channel[:, None], np.zeros((20, 1))).observations.dtype == np.float32


def test_what_is_not_finite_once_it_is_float32():
    for value in (1e39, -1e300, 10**39):
        numbers = np.zeros((5, 2))
        numbers[3, 1] = value
        with pytest.raises(QuickstudyError, match=r"step 3, column 1 is .*, which is more than float32 holds"):
            Demonstration(np.zeros((5, 1)), numbers)
    for value in (np.nan, np.inf):
        with pytest.raises(QuickstudyError, match=rf"step 0, column 0 is {value}\."):
            Demonstration(np.full((5, 1), value), np.zeros((5, 1)))
    with pytest.raises(QuickstudyError, match="must be numbers"):
        Demonstration(np.zeros((5, 1), complex), np.zeros((5, 1)))
