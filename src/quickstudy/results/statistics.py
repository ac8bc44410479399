"""How sure a comparison is: interquartile means, performance profiles, probabilities of improvement and intervals.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS), whose point
estimates these are. Scores are [seed, task], the mean over a task's fixed quota of episodes. Two rules for intervals:

**Only what is independent is resampled**: distinct tasks, and training seeds. Episodes of a task are not independent
samples of the family, and neither are several draws of the same task: they stay together. Seeds and tasks are drawn
apart, and every pair is kept (Owen 2007, "The pigeonhole bootstrap"): one training serves all tasks, so that a lucky
seed is lucky everywhere. One seed says nothing of luck in training.

**What was not seen may still be there.** Distinct tasks are weighted at random (Rubin 1981, "The Bayesian bootstrap").
Where a score is a share, between 0 and 1, one more task joins them, a failure for the lower end and a success for the
upper one (Gaffke 2005; Learned-Miller and Thomas 2019, "A new confidence interval for the mean of a bounded random
variable", arXiv:1905.06208). For one seed and scores of 0 and 1 alone this is the interval of Clopper and Pearson 1934:
10 successes of 10 give [69.2, 100] per cent. Scores without bounds get an interval that is widened for few tasks as
Student's t is, and none where there is only one.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy.stats import beta, norm, t

from quickstudy.errors import QuickstudyError

REPLICATES = 5000
_TAIL = 0.025
"""Probability beyond either end of an interval."""
_AT_ONCE = 2_000_000
"""Numbers that are resampled at once, which bounds the memory."""

Interval = tuple[float, float]
Groups = Sequence[Hashable]
"""[task], the key of each task; equal keys are one distinct task."""
_Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of scores [row, task] with weights [replicate, row], [replicate, task] and [replicate, 1], the last for one more
task: its values [replicate] where that task has the score 0, and where it has 1."""


def iqm(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of scores [..., seed, task], [...]: a quarter of them is cut off at either end."""
    flat = np.sort(_finite(scores).reshape(*scores.shape[:-2], -1), -1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of scores [seed, task] above each threshold, [threshold]; the better curve lies higher."""
    return (_finite(scores)[..., None] > thresholds).mean((0, 1))


def improvement(better: np.ndarray, worse: np.ndarray) -> float:
    """How probably a run of one method beats a run of the other on one of their common tasks; a tie is half a win.

    Args:
        better, worse: scores [seed, task] with the same tasks. The names say which win is counted, not which is better.
    """
    return float(_wins(better, worse).mean())


def distinct(groups: Groups) -> int:
    """How many distinct tasks these are."""
    return len(set(groups))


def bootstrap(
    values: np.ndarray,
    replicates: int = REPLICATES,
    seed: int = 0,
    *,
    groups: Groups | None = None,
    shares: bool | None = None,
) -> Interval | None:
    """The 95 % interval of the mean of `values` [seed, task].

    Args:
        groups: [task], equal where two tasks are the same; all are distinct where it is not given.
        shares: whether scores lie between 0 and 1 by their nature; where not said, whether these do
            and some of them is 0 or 1.

    Returns:
        None where scores have no bounds and there is only one distinct task, of which nothing follows for others.

    Raises:
        QuickstudyError: no scores, some that are not finite, or no shares where shares were promised.
    """
    values = _finite(values)
    return _interval(values, values.mean(), _mean, _draws(len(values)), groups, shares, replicates, seed)


def iqm_interval(
    scores: np.ndarray,
    replicates: int = REPLICATES,
    seed: int = 0,
    *,
    groups: Groups | None = None,
    shares: bool | None = None,
) -> Interval | None:
    """The 95 % interval of `iqm`; arguments, result and errors are those of `bootstrap`."""
    scores = _finite(scores)
    return _interval(scores, float(iqm(scores)), _middle, _draws(len(scores)), groups, shares, replicates, seed)


def improvement_interval(
    better: np.ndarray,
    worse: np.ndarray,
    replicates: int = REPLICATES,
    seed: int = 0,
    *,
    groups: Groups | None = None,
) -> Interval:
    """The 95 % interval of `improvement`: tasks are drawn for both methods together, seeds for each apart."""
    wins = _wins(better, worse)
    one, other = _draws(len(better)), _draws(len(worse))

    def pairs(rng: np.random.Generator, count: int) -> np.ndarray:
        return (one(rng, count)[:, :, None] * other(rng, count)[:, None]).reshape(count, -1)

    rows = wins.reshape(-1, wins.shape[-1])
    found = _interval(rows, float(rows.mean()), _mean, pairs, groups, True, replicates, seed)
    assert found is not None  # a win is a share
    return found


def all_or_nothing(value: float, count: int) -> Interval:
    """The 95 % interval of a share of 0 or 1 over `count` distinct tasks, or of the same share in each of them."""
    kept = _TAIL ** (1 / count)
    return value * kept, 1 - (1 - value) * kept


def widest(value: float, count: int) -> Interval:
    """The 95 % interval of a mean of shares over `count` distinct tasks that vary as much as shares can: all 0 or 1."""
    successes = value * count
    low = beta.ppf(_TAIL, successes, count - successes + 1) if value > 0 else 0.0
    high = beta.ppf(1 - _TAIL, successes + 1, count - successes) if value < 1 else 1.0
    return float(low), float(high)


def _interval(
    x: np.ndarray,
    value: float,
    statistic: _Statistic,
    draw_rows: Callable[[np.random.Generator, int], np.ndarray],
    groups: Groups | None,
    shares: bool | None,
    replicates: int,
    seed: int,
) -> Interval | None:
    """Of a statistic of scores [row, task] that is `value`; `draw_rows` gives weights [replicate, row]."""
    of, count = _numbered(groups, x.shape[1])
    within = bool(((x >= 0) & (x <= 1)).all())
    if shares and not within:
        raise QuickstudyError(f"A share lies between 0 and 1; got scores from {x.min():g} to {x.max():g}.")
    shares = within and bool(((x == 0) | (x == 1)).any()) if shares is None else shares
    if not shares and count < 2:
        return None
    if (x == x[0, 0]).all():
        value = float(x[0, 0])
        return all_or_nothing(value, count) if shares else (value, value)
    rng = np.random.default_rng(seed)
    lows, highs = [], []
    for some in _portions(replicates, x.size + x.shape[1]):
        rows = draw_rows(rng, some)
        mass = rng.standard_exponential((some, count + 1))
        tasks, spare = mass[:, of], mass[:, -1:] * (shares * x.shape[1] / count)
        total = tasks.sum(1, keepdims=True) + spare
        values = statistic(x, rows, tasks / total, spare / total)
        lows.append(values[0])
        highs.append(values[1])
    low = float(np.quantile(np.concatenate(lows), _TAIL))
    high = float(np.quantile(np.concatenate(highs), 1 - _TAIL))
    if not shares:
        widened = t.ppf(1 - _TAIL, count - 1) / norm.ppf(1 - _TAIL) * np.sqrt((count + 1) / (count - 1))
        low, high = value + widened * (low - value), value + widened * (high - value)
    elif value in (0, 1):  # of the middle half alone
        least, most = all_or_nothing(value, count)
        low, high = min(low, least), max(high, most)
    return float(min(low, value)), float(max(high, value))


def _mean(x: np.ndarray, rows: np.ndarray, tasks: np.ndarray, spare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = ((rows @ x) * tasks).sum(1)
    return low, low + spare[:, 0]


def _middle(x: np.ndarray, rows: np.ndarray, tasks: np.ndarray, spare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the middle half of the weight."""
    order = np.argsort(x, None)
    values = x.ravel()[order]
    ends = (rows[:, :, None] * tasks[:, None]).reshape(len(rows), -1)[:, order].cumsum(1)
    starts = np.pad(ends, ((0, 0), (1, 0)))[:, :-1]

    def middle(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return np.maximum(np.minimum(end, 0.75) - np.maximum(start, 0.25), 0) / 0.5

    low = (values * middle(starts + spare, ends + spare)).sum(1)
    return low, (values * middle(starts, ends)).sum(1) + middle(1 - spare[:, 0], np.ones(len(rows)))


def _draws(rows: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Weights [replicate, row] of rows that are drawn with replacement."""
    return lambda rng, count: rng.multinomial(rows, np.full(rows, 1 / rows), count) / rows


def _wins(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """1 for a win, a half for a tie, 0 for a loss, [seed, other seed, task]."""
    apart = _finite(better)[:, None] - _finite(worse)[None]
    return (np.sign(apart) + 1) / 2


def _numbered(groups: Groups | None, tasks: int) -> tuple[np.ndarray, int]:
    """[task], the number of each distinct task, and how many there are."""
    if groups is None:
        return np.arange(tasks), tasks
    if len(groups) != tasks:
        raise QuickstudyError(f"{tasks} tasks need as many keys; got {len(groups)}.")
    numbers = {key: i for i, key in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[key] for key in groups]), len(numbers)


def _finite(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim < 2 or scores.size == 0:
        raise QuickstudyError(f"Scores are [seed, task], at least one of each; got the shape {scores.shape}.")
    if not np.isfinite(scores).all():
        bad = np.argwhere(~np.isfinite(scores))
        raise QuickstudyError(
            f"{len(bad)} of {scores.size} scores are not finite, the first in task {bad[0, -1]}, seed {bad[0, -2]}."
        )
    return scores


def _portions(replicates: int, size: int) -> list[int]:
    most = max(1, _AT_ONCE // size)
    return [min(most, replicates - start) for start in range(0, replicates, most)]
