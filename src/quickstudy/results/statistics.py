"""How sure a comparison is: interquartile means, performance profiles, probabilities of improvement and intervals.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS), checked
against their library rliable. Scores are [seed, task], the mean over a task's fixed quota of episodes: episodes of one
task are not independent samples of the family, so nothing here resamples them.

Two ways to resample, both over tasks and seeds:

`stratified`  theirs: tasks are drawn, and for every drawn task its seeds anew. It takes seeds as independent from task
              to task, as they are where every task has a training of its own.
`crossed`     seeds and tasks are drawn independently and every pair is kept (Owen 2007, "The pigeonhole bootstrap"). In
              meta-learning one training serves all tasks, so that a lucky seed is lucky everywhere; this way of
              resampling accounts for it, and its interval is the wider of the two where seeds differ.
"""

from collections.abc import Callable

import numpy as np

REPLICATES = 2000
_AT_ONCE = 2_000_000
"""Numbers that are resampled at once, which bounds the memory."""

Interval = tuple[float, float]


def iqm(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of scores [..., seed, task], [...]: a quarter of them is cut off at either end."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), -1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of scores [seed, task] above each threshold, [threshold]; the better curve lies higher."""
    return (scores[..., None] > thresholds).mean((0, 1))


def improvement(better: np.ndarray, worse: np.ndarray) -> float:
    """How probably a run of one method beats a run of the other on one of their common tasks; a tie is half a win.

    Args:
        better, worse: scores [seed, task] with the same tasks. The names say which win is counted, not which is better.
    """
    return float(_wins(better, worse).mean())


def stratified(scores: np.ndarray, rng: np.random.Generator, replicates: int) -> np.ndarray:
    """Resampled scores [replicate, seed, task]: tasks, and for every drawn task its seeds."""
    seeds, tasks = scores.shape
    drawn = rng.integers(tasks, size=(replicates, 1, tasks))
    return scores[rng.integers(seeds, size=(replicates, seeds, tasks)), drawn]


def crossed(scores: np.ndarray, rng: np.random.Generator, replicates: int) -> np.ndarray:
    """Resampled scores [replicate, seed, task]: seeds and tasks drawn apart, and all pairs of them."""
    seeds, tasks = scores.shape
    return scores[rng.integers(seeds, size=(replicates, seeds, 1)), rng.integers(tasks, size=(replicates, 1, tasks))]


def interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
    resample: Callable[[np.ndarray, np.random.Generator, int], np.ndarray] = stratified,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """The 95 % percentile interval of a statistic of scores [seed, task].

    Args:
        statistic: of resampled scores [replicate, seed, task], [replicate].
    """
    rng = np.random.default_rng(seed)
    parts = [statistic(resample(scores, rng, count)) for count in _portions(replicates, scores.size)]
    return _percentiles(np.concatenate(parts))


def bootstrap(values: np.ndarray, replicates: int = 5000, seed: int = 0) -> Interval:
    """The 95 % percentile interval of the mean of `values` [seed, task], resampling both seeds and tasks, `crossed`."""
    return interval(values, lambda drawn: drawn.mean((-2, -1)), crossed, replicates, seed)


def improvement_interval(
    better: np.ndarray, worse: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> Interval:
    """The 95 % percentile interval of `improvement`, `stratified`: tasks are drawn for both, seeds for each apart."""
    rng, wins = np.random.default_rng(seed), _wins(better, worse)
    first, second, tasks = wins.shape
    parts = []
    for count in _portions(replicates, wins.size):
        drawn = rng.integers(tasks, size=(count, 1, 1, tasks))
        one = rng.integers(first, size=(count, first, 1, tasks))
        other = rng.integers(second, size=(count, 1, second, tasks))
        parts.append(wins[one, other, drawn].mean((1, 2, 3)))
    return _percentiles(np.concatenate(parts))


def _wins(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """1 for a win, a half for a tie, 0 for a loss, [seed, other seed, task]."""
    apart = better[:, None] - worse[None]
    return (np.sign(apart) + 1) / 2


def _portions(replicates: int, size: int) -> list[int]:
    most = max(1, _AT_ONCE // size)
    return [min(most, replicates - start) for start in range(0, replicates, most)]


def _percentiles(samples: np.ndarray) -> Interval:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)
