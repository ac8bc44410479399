"""Statistics by hand, against rliable's own figures, and what must hold for any scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import beta, t

from quickstudy.errors import QuickstudyError
from quickstudy.results import statistics
from quickstudy.results.rows import figures
from quickstudy.results.statistics import (
    all_or_nothing,
    bootstrap,
    improvement,
    improvement_interval,
    iqm,
    iqm_interval,
    profile,
)

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


def test_intervals_are_as_wide_as_rliable_s_or_wider() -> None:
    """rliable draws seeds anew for every task, and runs alone for a pair: both take more to be independent than is."""
    better, worse = golden_scores()
    for scores, (low, high) in ((better, (0.69333333, 0.76883333)), (worse, (0.56526316, 0.66578947))):
        found = iqm_interval(scores)
        assert found is not None
        assert found[0] < low + 0.006
        assert found[1] > high - 0.006
        assert found[1] - found[0] < 2.5 * (high - low)
    low, high = improvement_interval(better, worse)
    assert low < 0.617 + 0.01
    assert high > 0.748 - 0.01
    assert low < 0.685 < high


@pytest.mark.parametrize(
    ("tasks", "low"), [(1, 0.025), (2, 0.1581), (3, 0.2924), (10, 0.6915), (50, 0.9289), (100, 0.9638)]
)
def test_all_successes_leave_room_for_failures_that_were_not_seen(tasks: int, low: float) -> None:
    assert bootstrap(np.ones((1, tasks))) == pytest.approx((low, 1.0), abs=5e-5)
    assert bootstrap(np.zeros((1, tasks))) == pytest.approx((0.0, 1 - low), abs=5e-5)
    assert bootstrap(np.ones((3, tasks))) == bootstrap(np.ones((1, tasks))), "seeds are no further tasks"
    assert iqm_interval(np.ones((1, tasks))) == pytest.approx((low, 1.0), abs=5e-5)
    assert improvement_interval(np.ones((2, tasks)), np.zeros((2, tasks))) == pytest.approx((low, 1.0), abs=5e-5)


def test_one_seed_of_single_successes_gives_the_interval_of_clopper_and_pearson() -> None:
    for successes in (1, 7, 15, 19):
        exact = beta.ppf(0.025, successes, 21 - successes), beta.ppf(0.975, successes + 1, 20 - successes)
        assert bootstrap((np.arange(20) < successes)[None] * 1.0, 20_000) == pytest.approx(exact, abs=0.01)


def test_the_middle_half_at_its_end_has_an_interval_too() -> None:
    scores = np.array([[1.0] * 19 + [0.0]])
    found = iqm_interval(scores)
    assert float(iqm(scores)) == 1.0
    assert found is not None
    assert found[0] <= 0.025 ** (1 / 20)


def coverage(rate: float, tasks: int, draws: int, episodes: int = 1, seeds: int = 1, spread: float = 0.0) -> float:
    """How often the interval holds the true rate, where tasks' own rates are spread about it by a Beta distribution."""
    rng, held = np.random.default_rng(tasks), 0
    for i in range(draws):
        rates = rng.beta(rate / spread, (1 - rate) / spread, tasks) if spread else np.full(tasks, rate)
        found = bootstrap(rng.binomial(episodes, rates, (seeds, tasks)) / episodes, 300, i, shares=True)
        assert found is not None
        held += found[0] <= rate <= found[1]
    return held / draws


@pytest.mark.parametrize("tasks", [5, 50])
@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97])
def test_95_per_cent_are_at_least_93(tasks: int, rate: float) -> None:
    assert coverage(rate, tasks, 400) >= 0.93
    assert coverage(rate, tasks, 400, episodes=4, seeds=2, spread=0.2) >= 0.93


def test_draws_of_one_task_are_no_further_tasks() -> None:
    """Fifty draws of five kinds: two kinds fail, three succeed, as the draws of each mostly do."""
    kinds = np.arange(50) % 5
    scores = np.where(kinds < 3, 1.0, 0.0)[None]
    apart, together = bootstrap(scores), bootstrap(scores, groups=list(kinds))
    assert apart is not None
    assert together is not None
    assert apart[0] > 0.4
    exact = beta.ppf(0.025, 3, 3), beta.ppf(0.975, 4, 2)
    assert together == pytest.approx(exact, abs=0.02)
    assert bootstrap(np.ones((2, 50)), groups=["same"] * 50) == pytest.approx((0.025, 1.0))
    alike = np.random.default_rng(0).random((2, 50))
    low, high = bootstrap(alike, groups=[0] * 50, shares=True) or (1, 0)
    assert low < 0.02
    assert high > 0.98
    for found in (
        iqm_interval(scores, groups=list(kinds)),
        improvement_interval(scores, 1 - scores, groups=list(kinds)),
    ):
        assert found is not None
        assert found[0] < 0.25
    with pytest.raises(QuickstudyError, match="50 tasks need as many keys; got 3"):
        bootstrap(scores, groups=[0, 1, 2])


def test_scores_without_bounds() -> None:
    assert bootstrap(np.full((3, 5), -7.5)) == (-7.5, -7.5)
    assert bootstrap(np.full((3, 5), 0.7)) == (0.7, 0.7)
    assert bootstrap(np.full((3, 5), 0.7), shares=True) == pytest.approx((0.3347, 0.8565), abs=1e-4)
    assert bootstrap(np.array([[3.0], [4.0]])) is None, "one task says nothing of others"
    assert iqm_interval(np.full((2, 6), 9.0), groups=[0] * 6) is None
    values = np.array([[1.0, 2.0, 4.0, 5.0]])
    low, high = bootstrap(values, 20_000) or (0, 0)
    reach = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert (low, high) == pytest.approx((3 - reach, 3 + reach), abs=0.15)
    rng, held = np.random.default_rng(0), 0
    for i in range(300):
        low, high = bootstrap(rng.normal(-40, 5, (1, 5)), 300, i) or (0, 0)
        held += low <= -40 <= high
    assert held / 300 > 0.92


def test_what_is_no_score_is_said() -> None:
    bad = np.ones((2, 3))
    bad[1, 2] = np.nan
    for made in (iqm, bootstrap, iqm_interval, lambda x: profile(x, np.zeros(1)), lambda x: improvement(x, x)):
        with pytest.raises(QuickstudyError, match="1 of 6 scores are not finite, the first in task 2, seed 1"):
            made(bad)
    with pytest.raises(QuickstudyError, match=r"at least one of each; got the shape \(1, 0\)"):
        bootstrap(np.ones((1, 0)))
    with pytest.raises(QuickstudyError, match="between 0 and 1; got scores from 0 to 2"):
        bootstrap(np.array([[0.0, 2.0]]), shares=True)


def test_a_lucky_seed_is_lucky_everywhere() -> None:
    lucky = np.repeat([[0.2], [0.5], [0.8]], 100, axis=1)
    for found in (bootstrap(lucky), iqm_interval(lucky)):
        assert found == pytest.approx((0.2, 0.8), abs=0.06)


def test_resampling_goes_in_portions_without_losing_any(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).random((2, 5))
    seen = []
    mean = statistics._mean
    monkeypatch.setattr(statistics, "_mean", lambda x, rows, *rest: seen.append(len(rows)) or mean(x, rows, *rest))
    monkeypatch.setattr(statistics, "_AT_ONCE", 60)
    bootstrap(scores, 10)
    assert seen == [4, 4, 2]


@settings(max_examples=30, deadline=None)
@given(SCORES, st.integers(0, 1000))
def test_properties(scores: np.ndarray, seed: int) -> None:
    value = float(iqm(scores))
    assert scores.min() - 1e-9 <= value <= scores.max() + 1e-9
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    assert iqm(scores[:, order]) == pytest.approx(value)
    assert improvement(scores, scores[:, :]) == pytest.approx(0.5)
    assert improvement(scores + np.ptp(scores) + 1, scores) == 1.0
    for interval, figure in ((bootstrap, scores.mean()), (iqm_interval, value)):
        low, high = interval(scores, 50, seed, shares=True) or (1, 0)
        assert -1e-9 <= low <= figure + 1e-9
        assert figure - 1e-9 <= high <= 1 + 1e-9
        assert low < high
    assert all_or_nothing(1.0, 5)[0] < all_or_nothing(1.0, 6)[0]
    assert (np.diff(profile(scores, np.linspace(-0.1, 1.1, 9))) <= 0).all()


def test_an_interval_of_squared_errors_does_not_reach_below_nothing():
    errors = np.array([[1.0, 30.0]])
    assert figures(errors, shares=False)["ci95"][0] < 0
    kept = figures(errors, shares=False, least=0.0)
    assert (kept["ci95"][0], kept["iqm_ci95"][0]) == (0.0, 0.0)
    assert kept["ci95"][1] == figures(errors, shares=False)["ci95"][1]
