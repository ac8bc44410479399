"""Time stamps as they are met: rounded, jittering, in other units, broken; and bringing an episode to another rate."""

import numpy as np
import pytest

from quickstudy.datasets import About, Episode
from quickstudy.datasets.timing import check_rising, check_steady, rate_of, resampled, resolution, seconds
from quickstudy.errors import QuickstudyError


def grid(rate: float, steps: int = 60, decimals: int | None = None, start: float = 0.0) -> np.ndarray:
    times = start + np.arange(steps) / rate
    return times if decimals is None else times.round(decimals)


@pytest.mark.parametrize("rate", [1.5, 5, 10, 12.5, 15, 24, 25, 29.97, 30, 50, 60, 100, 120, 240, 500])
@pytest.mark.parametrize("start", [0.0, 36_000.0, 1.7e9])
def test_the_rate_of_stamps_with_three_or_more_decimals(rate, start):
    for decimals in (3, 4, 6, None):
        for count in (1, 3):
            times = [grid(rate, 60, decimals, start)] * count
            found = rate_of(times, "'log.csv'").value
            assert found == pytest.approx(rate, rel=1e-3 if decimals == 3 else 1e-5)
            for one in times:
                check_steady(one, found, "line", 2)


@pytest.mark.parametrize(("rate", "decimals"), [(30, 2), (30, 3), (60, 2), (60, 3), (24, 2), (15, 2), (100, 2)])
@pytest.mark.parametrize("steps", [60, 300])
def test_rounding_does_not_move_the_rate(rate, decimals, steps):
    found = rate_of([grid(rate, steps, decimals)], "a")
    assert found.value == rate
    assert found.jitter <= 10.0**-decimals
    check_steady(grid(rate, steps, decimals), found.value, "line", 2)


def test_many_episodes_of_two_steps_tell_the_rate_together():
    stamps = np.round(np.arange(200) / 30, 2).reshape(-1, 2)
    assert rate_of(stamps, "a").value == 30
    assert rate_of([np.array([0.0, 0.08])], "a").value == 12.5
    assert rate_of([np.array([0.0])], "a") is None


def test_the_rate_that_most_have_counts_and_others_are_named():
    times = [grid(30), grid(30), grid(25)]
    assert rate_of(times, "a").value == 30
    with pytest.raises(
        QuickstudyError,
        match=r"line 5: time stamp 0\.12 s where 30 steps a second, the frame rate of the data set, give 0\.1 s",
    ):
        check_steady(times[2], 30, "line", 2)


def test_a_gap_does_not_move_the_rate_and_is_named():
    times = grid(50)
    times[30:] += 7.0
    assert rate_of([times], "a").value == 50
    with pytest.raises(QuickstudyError, match=r"line 32: time stamp 7\.6 s where 50 .* give 0\.6 s"):
        check_steady(times, 50, "line", 2)


def test_jitter_is_told_and_refused_from_a_tenth_of_a_step():
    noise = np.random.default_rng(0).uniform(-1, 1, 200)
    found = rate_of([grid(50, 200) + 1e-3 * noise], "a")
    assert found.value == 50
    assert 1e-3 < found.jitter < 2e-3
    check_steady(grid(50, 200) + 1e-3 * noise, 50, "line", 2)
    assert rate_of([grid(30, 200) + 5e-3 * noise], "a").value == pytest.approx(30, rel=2e-3)
    with pytest.raises(QuickstudyError, match="which --rate 30 brings uneven ones to"):
        check_steady(grid(30, 200) + 5e-3 * noise, 30, "line", 2)


def test_stamps_that_differ_differ_in_the_sentence():
    times = (1.7e9 + np.arange(60) / 30).astype("f4").astype(float)
    with pytest.raises(QuickstudyError) as error:
        check_steady(times, 30, "row", 0)
    assert "row 1: time stamp 1700000000 s where 30 steps" in str(error.value)
    assert "give 1700000000.0333 s" in str(error.value)


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ([0.0, 0.1, 0.1], "line 4: time stamps must rise; this one and the one before are both 0.1 s"),
        ([0.0, 0.2, 0.1], "line 4: time stamps must rise; this one is 0.1 s and the one before 0.2 s"),
        ([0.0, np.nan, 0.2], "line 3: the time stamp is missing or not finite"),
    ],
)
def test_stamps_that_do_not_rise(times, sentence):
    with pytest.raises(QuickstudyError, match=sentence):
        check_rising(np.array(times), "line", 2)
    with pytest.raises(QuickstudyError, match=r"line [34]: "):
        check_steady(np.array(times), 100, "line", 2)


def test_half_of_the_stamps_standing_still():
    with pytest.raises(QuickstudyError, match="stamps that rise"):
        rate_of([np.zeros(20)], "a")
    with pytest.raises(QuickstudyError, match="stamps that rise"):
        rate_of([np.arange(20) // 4 * 1.0], "a")


def test_units():
    ten = np.arange(5) * 10
    for unit, parts in {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}.items():
        np.testing.assert_allclose(seconds(ten, unit, "a"), ten / parts)
    assert seconds(np.arange(5) * 0.1, "", "a").tolist() == [0.1 * i for i in range(5)]
    with pytest.raises(QuickstudyError, match="100 steps a second in ms: say their unit by --time-unit s, ms"):
        seconds(ten, "", "a")
    with pytest.raises(QuickstudyError, match="100 steps a second in ms"):
        seconds(1_700_000_000_000 + ten, "", "a")
    with pytest.raises(QuickstudyError, match="30 steps a second in ns"):
        seconds(1_700_000_000_000_000_000 + np.arange(9) * 33_333_333, "", "a")
    stamps = np.array(["2026-11-30T10:00:00.000", "2026-11-30T10:00:00.020"], "M8[ms]")
    assert np.diff(seconds(stamps, "", "a"))[0] == pytest.approx(0.02)
    with pytest.raises(QuickstudyError, match="must be numbers"):
        seconds(np.array(["a"]), "", "a")


def test_the_decimals_that_stamps_were_written_with():
    assert resolution(grid(30, 60, 2)) == 0.01
    assert resolution(grid(30, 60, 3, 1.7e9)) == 0.001
    assert resolution(grid(30)) == 0.0


def episode(times: np.ndarray, **more: object) -> Episode:
    x = np.stack([np.sin(times), times], 1)
    return Episode("a", x, np.stack([2 * times, np.where(times > 0.5, 1.0, 0.0)], 1), **more)


def test_resampling_is_exact_for_straight_lines_and_keeps_switches():
    times = grid(50, 51) + np.random.default_rng(0).uniform(-5e-3, 5e-3, 51)
    made = resampled(episode(times), times, 20)
    np.testing.assert_allclose(np.diff(made.times), 0.05, rtol=1e-9)
    np.testing.assert_allclose(made.observations[:, 1], made.times)
    np.testing.assert_allclose(made.observations[:, 0], np.sin(made.times), atol=2e-4)
    np.testing.assert_allclose(made.actions[:, 0], 2 * made.times)
    assert set(made.actions[:, 1]) == {0.0, 1.0}
    assert made.observations.dtype == np.float64


@pytest.mark.parametrize("rate", [7.0, 20.0, 50.0, 130.0])
def test_resampling_keeps_rewards_success_and_the_ends(rate):
    times = grid(50, 51)
    rewards, success = np.zeros(51), np.zeros(51, bool)
    rewards[[3, 50]], success[[20, 50]] = 1.0, True
    images = {"front": np.arange(51, dtype=np.uint8)[:, None, None, None].repeat(3, -1)}
    made = resampled(episode(times, rewards=rewards, success=success, images=images), times, rate)
    assert made.rewards.sum() == pytest.approx(2.0)
    assert made.success.any()
    assert made.success[-1]
    shown = made.images["front"][:, 0, 0, 0]
    assert ((made.times - times[shown] >= -1e-9) & (made.times - times[shown] < 0.02 + 1e-9)).all()


def test_its_own_rate_changes_nothing():
    times = grid(30, 40, start=1.7e9)
    one = episode(times, success=np.arange(40) == 20, rewards=np.arange(40.0))
    made = resampled(one, times, 30)
    np.testing.assert_allclose(made.observations, one.observations, atol=1e-4)
    np.testing.assert_allclose(made.rewards, one.rewards, atol=1e-4)
    np.testing.assert_array_equal(made.success, one.success)


def test_resampling_refuses_gaps_and_stamps_that_go_back():
    times = grid(50, 40)
    times[20:] += 0.5
    with pytest.raises(QuickstudyError, match=r"nothing was recorded between 0.38 and 0.9 s"):
        resampled(episode(times), times, 30)
    times = grid(50, 40)
    times[7] = times[5]
    with pytest.raises(QuickstudyError, match="must rise"):
        resampled(episode(times), times, 30)
    assert len(resampled(episode(np.zeros(1)), np.zeros(1), 30)) == 1


@pytest.mark.parametrize(("turn", "low"), [(360.0, -180.0), (360.0, 0.0), (2 * np.pi, -np.pi), (2 * np.pi, 0.0)])
def test_resampling_takes_angles_the_short_way(turn, low):
    times = grid(10, 40)
    true = turn * (0.3 + 0.55 * times)  # more than two turns
    wrapped = (true - low) % turn + low
    made = resampled(Episode("a", wrapped[:, None], wrapped[:, None]), times, 37)
    wanted = turn * (0.3 + 0.55 * made.times)
    for values in (made.observations[:, 0], made.actions[:, 0]):
        off = (values - wanted + turn / 2) % turn - turn / 2
        np.testing.assert_allclose(off, 0, atol=1e-9 * turn)
        assert values.min() >= low - 1e-9
        assert values.max() <= low + turn + 1e-9


def test_resampling_takes_quaternions_the_short_way():
    times = grid(10, 30)
    signs = np.where(np.random.default_rng(0).random(30) < 0.5, -1.0, 1.0)
    true = np.stack([0 * times, 0 * times, np.sin(times / 2), np.cos(times / 2)], 1)
    names = ("qx", "qy", "qz", "qw")
    one = Episode("a", true * signs[:, None], np.zeros((30, 1)))
    for about in (About(observations=names), None):
        made = resampled(one, times, 25, about)
        wanted = np.stack([0 * made.times, 0 * made.times, np.sin(made.times / 2), np.cos(made.times / 2)], 1)
        np.testing.assert_allclose(np.abs((made.observations * wanted).sum(1)), 1, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(made.observations, axis=1), 1)
