"""What the episodes of a data set look like: their timing, lengths, starts and ends, and whether any stands twice."""

import hashlib
from collections.abc import Iterator

import numpy as np

from quickstudy.datasets.timing import check_steady
from quickstudy.doctor.findings import Finding, Recordings, finite, longest, plural, some
from quickstudy.errors import QuickstudyError

_SHORT = 5
"""Steps that an episode should have."""
_IDLE = 0.02
"""Of a channel's usual step, what counts as no motion."""
_FAR = 8.0
"""Deviations, estimated by medians, of an episode from the others of its task."""
_LONG_IDLE = 0.15
"""Share of an episode at rest at its start or end from which on it is told."""


def timing(found: Recordings) -> Iterator[Finding]:
    """Findings about rate, jitter and gaps."""
    rate = found.about.rate
    if rate is None:
        said = "Nobody says how many steps a second there are."
        yield Finding(
            "timing", "rate", "note", said, "Give time stamps, or --rate; a robot must act as fast as it was shown."
        )
        return
    stamped = [e.times for e in found.episodes if e.times is not None and len(e.times) > 1]
    if not stamped:
        yield Finding("timing", "rate", "good", f"{rate:g} steps a second, as the data set says; steps have no stamps.")
        return
    uneven, first = 0, ""
    for i, episode in enumerate(found.episodes):
        try:
            if episode.times is not None and len(episode.times) > 1:
                check_steady(np.asarray(episode.times, float), rate, f"episode {i}, step", 0)
        except QuickstudyError as error:
            uneven, first = uneven + 1, first or str(error)
    if uneven:
        said = f"{uneven} of {len(found.episodes)} episodes have stamps that training refuses, the first: {first}"
        yield Finding("timing", "even", "bad", said, f"Try --rate {rate:g}, or cut what it does not fill.")
    steps = np.concatenate([np.diff(times) for times in stamped])
    steps = steps[np.isfinite(steps)]
    usual = float(np.median(steps)) if len(steps) else 0.0
    jitter = float(np.quantile(np.abs(steps - 1 / rate), 0.95) * rate) if len(steps) else 0.0
    gaps, backwards = int((steps > 1.5 / rate).sum()), int((steps <= 0).sum())
    said = f"{rate:g} steps a second; 95 of 100 steps are within {100 * jitter:.0f} % of that"
    if backwards:
        hit = [i for i, e in enumerate(found.episodes) if e.times is not None and (np.diff(e.times) <= 0).any()]
        where = f"in {plural(len(hit), 'episode')}, the first is episode {hit[0]}"
        told = f"{plural(backwards, 'time stamp')} not later than the one before, {where}."
        yield Finding("timing", "order", "bad", told, "Sort or cut the recordings there.")
    medians = {i: float(np.median(np.diff(e.times))) for i, e in enumerate(found.episodes)
               if e.times is not None and len(e.times) > 1}  # fmt: skip
    others = [i for i, one in medians.items() if one > 0 and abs(one - usual) > 0.1 * usual]
    if others:
        told = f"Some episodes run at another rate: {some([f'{i} at {1 / medians[i]:.4g}' for i in others])}."
        yield Finding("timing", "rates", "bad", told, "Bring all to one by --rate, or leave these out.")
    if usual > 0 and abs(usual * rate - 1) > 0.1:
        told = f"The data set says {rate:g} steps a second, half of its stamps {1 / usual:.4g}."
        yield Finding("timing", "stated rate", "bad", told, f"Correct what it says, or give --rate {1 / usual:.4g}.")
    elif gaps:
        told = f"{said}; in {gaps} places steps are missing, the longest of {steps.max():.3g} s."
        yield Finding("timing", "gaps", "note", told, "--rate resamples over short gaps.")
    elif jitter > 0.2:
        yield Finding("timing", "jitter", "note", f"{said}.", f"--rate {rate:g} resamples to even steps.")
    elif not uneven:
        yield Finding("timing", "rate", "good", f"{said}.")


def episodes(found: Recordings) -> Iterator[Finding]:
    """Findings about single episodes."""
    lengths = np.array([len(episode) for episode in found.episodes])
    empty = [i for i, length in enumerate(lengths) if length == 0]
    if empty:
        said = f"{plural(len(empty), 'empty episode')}, the first is episode {empty[0]}."
        yield Finding("episodes", "empty", "bad", said, "Delete them.")
    short = [i for i, length in enumerate(lengths) if 0 < length < _SHORT]
    if short:
        said = f"{plural(len(short), 'episode')} of fewer than {_SHORT} steps, the first is episode {short[0]}."
        yield Finding("episodes", "too short", "note", said, "Were they cut off? Delete them.")
    second = [i for i, length in enumerate(lengths) if found.about.rate and _SHORT <= length < found.about.rate]
    if second:
        said = f"{plural(len(second), 'episode')} of less than a second, the first is episode {second[0]}."
        yield Finding("episodes", "under a second", "note", said, "Recordings that were begun by mistake? Delete them.")
    yield from _lengths(found, lengths)
    yield from _twice(found)
    yield from _idle(found)
    yield from _frozen(found)
    yield from _outliers(found)
    yield from _failed(found)


def _lengths(found: Recordings, lengths: np.ndarray) -> Iterator[Finding]:
    real = lengths[lengths > 0]
    if not len(real):
        return
    middle = float(np.median(real))
    off = 3 * max(float(real.std()), 1e-9)
    away = [i for i, n in enumerate(lengths) if n and (not middle / 4 <= n <= 4 * middle or abs(n - real.mean()) > off)]
    span = f"{real.min()} to {real.max()} steps, median {middle:g}" if np.ptp(real) else f"{real.min()} steps"
    said = f"{plural(len(lengths), 'episode')} of {span}"
    if away:
        said += f"; {len(away)} are far shorter or longer than the others, the first is episode {away[0]}."
        yield Finding("episodes", "lengths", "note", said, "Look at these episodes.")
    else:
        yield Finding("episodes", "lengths", "good", f"{said}.")


def _twice(found: Recordings) -> Iterator[Finding]:
    seen: dict[bytes, int] = {}
    moved: dict[bytes, int] = {}
    alike: list[str] = []
    same: list[str] = []
    across: list[str] = []
    for i, episode in enumerate(found.episodes):
        content = np.ascontiguousarray(
            np.concatenate([episode.observations, episode.actions], 1).astype("f4")
        ).tobytes()
        first = seen.setdefault(hashlib.sha256(content).digest(), i)
        if first != i and len(episode):
            (same if found.episodes[first].task == episode.task else across).append(f"{i} as {first}")
        elif finite(episode) and len(episode) > 1 and np.ptp(episode.actions, axis=0).max() > 0:
            rounded = np.round(np.asarray(episode.actions, float), 6) + 0.0
            first = moved.setdefault(hashlib.sha256(rounded.tobytes()).digest(), i)
            alike += [f"{i} as {first}"] if first != i else []
    if across:
        said = f"Episodes stand twice under different tasks: {some(across)}; one task would be in training and test."
        yield Finding("episodes", "twice", "bad", said, "Delete the copies, or correct their labels.")
    if same:
        said = f"Episodes stand twice: {some(same)}; a learner would be judged by what it was shown."
        yield Finding("episodes", "twice", "bad", said, "Delete the copies.")
    if alike:
        said = f"Episodes have the same actions at other states: {some(alike)}."
        yield Finding("episodes", "same actions", "note", said, "Were actions played back rather than demonstrated?")
    if not same and not across:
        yield Finding("episodes", "twice", "good", "No episode stands twice.")


def _idle(found: Recordings) -> Iterator[Finding]:
    whole = [(i, found.continuous(e)) for i, e in enumerate(found.episodes) if len(e) > _SHORT and finite(e)]
    if not whole:
        return
    steps = np.concatenate([np.abs(np.diff(np.concatenate(pair, 1), axis=0)) for _, pair in whole])
    usual = np.array([np.quantile(s[s > 0], 0.9) if (s > 0).any() else np.inf for s in steps.T])
    starts, ends = [], []
    for i, pair in whole:
        moves = np.any(np.abs(np.diff(np.concatenate(pair, 1), axis=0)) > _IDLE * usual, axis=1)
        if not moves.any():
            continue
        first, last = int(moves.argmax()), int(moves[::-1].argmax())
        if first > _LONG_IDLE * len(moves):
            starts.append(i)
        if last > _LONG_IDLE * len(moves):
            ends.append(i)
    for where, hit in (("start", starts), ("end", ends)):
        if hit:
            said = f"In {len(hit)} of {len(whole)} episodes nothing moves for long at the {where}, such as {hit[0]}."
            remedy = "Trim them: a learner that is shown rest learns to rest."
            yield Finding("episodes", f"idle {where}s", "note", said, remedy)
    if not starts and not ends:
        yield Finding("episodes", "idle", "good", "Episodes start and end in motion.")


def _frozen(found: Recordings) -> Iterator[Finding]:
    """Stretches in which the state stands still to the last digit while actions go on changing."""
    hit = []
    for i, episode in enumerate(found.episodes):
        if len(episode) < 2 * _SHORT or not finite(episode):
            continue
        still = (np.diff(episode.observations, axis=0) == 0).all(1) & (np.diff(episode.actions, axis=0) != 0).any(1)
        if longest(still) >= max(_SHORT, 0.2 * len(episode)):
            hit.append(i)
    if hit:
        said = f"In {plural(len(hit), 'episode')} the state freezes while actions go on, such as episode {hit[0]}."
        yield Finding("episodes", "frozen states", "bad", said, "A sensor or its driver hung; delete these episodes.")


def _outliers(found: Recordings) -> Iterator[Finding]:
    """Episodes far from the others of their task, by the mean and spread of each channel."""
    hit = []
    number = {id(episode): i for i, episode in enumerate(found.episodes)}
    for task, some_episodes in found.tasks.items():
        whole = [e for e in some_episodes if len(e) > 2 and finite(e)]
        if len(whole) < 5:
            continue
        marks = np.array([np.concatenate([np.concatenate(pair, 1).mean(0), np.concatenate(pair, 1).std(0)])
                          for pair in map(found.continuous, whole)])  # fmt: skip
        middle = np.median(marks, 0)
        spread = 1.4826 * np.median(np.abs(marks - middle), 0)
        known = spread > 1e-9
        far = (np.abs(marks - middle)[:, known] / spread[known]).mean(1) if known.any() else np.zeros(len(whole))
        hit += [f"{number[id(whole[i])]} ({task})" for i in np.flatnonzero(far > _FAR)]
    if hit:
        said = f"{plural(len(hit), 'episode')} far from the others of the same task: {some(hit, 3)}."
        yield Finding("episodes", "outliers", "note", said, "Were they labelled rightly, and did they succeed?")


def _failed(found: Recordings) -> Iterator[Finding]:
    told = [bool(np.asarray(e.success)[-1:].any()) for e in found.episodes if e.success is not None]
    failed = told.count(False)
    if told and failed:
        said = f"{failed} of {len(told)} episodes ended without success; a learner imitates them as well."
        verdict: Finding = Finding(
            "episodes", "failures", "bad" if failed > len(told) / 2 else "note", said, "Leave them out."
        )
        yield verdict
    elif told:
        yield Finding("episodes", "failures", "good", "All episodes ended in success.")
