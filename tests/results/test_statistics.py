"""Statistics by hand, against rliable's own figures, and what must hold for any scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quickstudy.results import statistics
from quickstudy.results.statistics import bootstrap, crossed, improvement, improvement_interval, interval, iqm, profile

SCORES = arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(0, 1, width=16))


def golden_scores() -> tuple[np.ndarray, np.ndarray]:
    """The scores that rliable was asked about, as docs/compare.md says."""
    rng = np.random.default_rng(7)
    better = np.round(rng.beta(5, 2, (4, 30)) + rng.normal(0, 0.05, (4, 1)), 2)
    return better, np.round(rng.beta(3, 2, (5, 30)), 2)


def test_point_estimates_by_hand() -> None:
    assert iqm(np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 100.0]])) == pytest.approx(3.5)  # of 2, 3, 4, 5
    assert iqm(np.array([[[1.0, 2.0]], [[3.0, 5.0]]])).tolist() == [1.5, 4.0]
    scores = np.array([[0.0, 0.5], [1.0, 0.5]])
    assert profile(scores, np.array([-1.0, 0.0, 0.5, 1.0])).tolist() == [1.0, 0.75, 0.25, 0.0]
    # Task 0: 0 and 1 against 0.5 win one of two; task 1: 0.5 against 0.5 ties twice.
    assert improvement(scores, np.array([[0.5, 0.5]])) == 0.5
    assert improvement(np.array([[1.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])) == pytest.approx(3.5 / 4)


def test_agrees_with_rliable() -> None:
    """rliable 1.2.0 (arch 7.2.0, pandas 2.3.3, numpy 2.4.6), 10,000 replicates with task_bootstrap=True."""
    better, worse = golden_scores()
    assert iqm(better) == pytest.approx(0.7295)
    assert iqm(worse) == pytest.approx(0.61578947)
    assert improvement(better, worse) == pytest.approx(0.685)
    thresholds = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert profile(better, thresholds) == pytest.approx([1.0, 1.0, 0.9, 0.425, 1 / 120])
    assert profile(worse, thresholds) == pytest.approx([1.0, 142 / 150, 0.68, 40 / 150, 0.0])
    # The bounds are random on both sides; 0.006 is about a tenth of an interval and four deviations of a bound.
    assert interval(better, replicates=10_000) == pytest.approx((0.69333333, 0.76883333), abs=0.006)
    assert interval(worse, replicates=10_000) == pytest.approx((0.56526316, 0.66578947), abs=0.006)


def test_an_improvement_is_as_sure_as_rliable_says_or_less() -> None:
    """rliable resamples runs alone for a pair; with tasks resampled too, the interval must be wider."""
    low, high = improvement_interval(*golden_scores())
    assert low < 0.617 + 0.01
    assert high > 0.748 - 0.01
    assert low < 0.685 < high


def test_a_lucky_seed_is_seen_only_where_seeds_stay_whole() -> None:
    lucky = np.repeat([[0.2], [0.5], [0.8]], 100, axis=1)
    low, high = bootstrap(lucky)
    assert (low, high) == pytest.approx((0.2, 0.8), abs=0.05)
    apart = interval(lucky, lambda drawn: drawn.mean((-2, -1)))
    assert apart[1] - apart[0] < 0.1


def test_one_seed_makes_both_the_same_kind_of_interval() -> None:
    scores = np.random.default_rng(0).random((1, 200))
    mean = lambda drawn: drawn.mean((-2, -1))  # noqa: E731
    assert interval(scores, mean, crossed) == pytest.approx(interval(scores, mean), abs=0.01)


def test_resampling_goes_in_portions_without_losing_any(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(statistics, "_AT_ONCE", 40)
    interval(np.ones((2, 5)), lambda drawn: seen.append(drawn.shape) or drawn.mean((-2, -1)), replicates=10)
    assert seen == [(4, 2, 5), (4, 2, 5), (2, 2, 5)]


@settings(max_examples=30, deadline=None)
@given(SCORES, st.integers(0, 1000))
def test_properties(scores: np.ndarray, seed: int) -> None:
    value = float(iqm(scores))
    assert scores.min() - 1e-9 <= value <= scores.max() + 1e-9
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    assert iqm(scores[:, order]) == pytest.approx(value)
    assert improvement(scores, scores[:, :]) == pytest.approx(0.5)
    assert improvement(scores + np.ptp(scores) + 1, scores) == 1.0
    low, high = interval(scores, replicates=50, seed=seed)
    assert scores.min() - 1e-9 <= low <= high <= scores.max() + 1e-9
    assert (np.diff(profile(scores, np.linspace(-0.1, 1.1, 9))) <= 0).all()
