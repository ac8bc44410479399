"""What single joints did, episode by episode: dead, stuck, held, too fast, or not where they were commanded to be."""

from collections.abc import Callable, Iterator

import numpy as np

from quickstudy.datasets.angles import unit_of
from quickstudy.datasets.episodes import Episode, numbered
from quickstudy.doctor.findings import Finding, Recordings, finite, longest, some, sounds_like_angle

_DEAD = 0.01
"""Of the usual deviation of a channel, beside that of the one that moves most, what counts as no motion."""
_STUCK = 0.8
"""Share of an episode's steps without change, in that share of the episodes, from which on a channel is stuck."""
_PINNED = 0.3
"""Share of an episode's steps at an end of its own range from which on a state is called pinned there."""
_HELD = 0.05
"""Share of an episode in which the same action is repeated from which on it is told."""
_FROZEN = 0.5
"""Seconds of an unchanging state in the middle of an episode that are told."""
_FASTEST = 8.0
"""Radians a second that the joints of hobby arms do not reach."""
_FOLLOWS = 0.8
"""Correlation of a joint with its command."""
_FAR = 10.0
"""Deviations from the mean."""
_SHIFT = 3.0
"""Deviations between the first quarter of the episodes and the last."""
_SHIFT_OF_TASKS = 6.0
"""The same where the two have no task in common, which alone moves them."""
_GRASPING = ("pick", "grasp", "place", "put", "lift", "insert")

Whole = list[tuple[int, Episode]]


def joints(found: Recordings) -> Iterator[Finding]:
    """Findings about the course of single channels."""
    whole = [(i, e) for i, e in enumerate(found.episodes) if len(e) > 2 and finite(e)]
    if not whole:
        return
    for look in (_dead, _stuck, _pinned, _runs, _gripper, _fast, _following, _far, _shift):
        yield from look(found, whole)


def _told(hits: dict[str, list[int]], total: int) -> str:
    """Channels and in how many of the episodes, the most frequent first."""
    worst = sorted(hits, key=lambda name: -len(hits[name]))
    return some([f"{name} ({len(hits[name])} of {total} episodes, such as {hits[name][0]})" for name in worst])


def _by_channel(
    found: Recordings, whole: Whole, part: str, look: Callable[[np.ndarray], np.ndarray]
) -> dict[str, list[int]]:
    """The episodes in which `look`, of values [step, channel], says so of a channel, by the channel's name."""
    names = getattr(found.about, part)
    hits: dict[str, list[int]] = {}
    for i, episode in whole:
        for channel in np.flatnonzero(look(np.asarray(getattr(episode, part), float))):
            hits.setdefault(names[channel], []).append(i)
    return hits


def _dead(found: Recordings, whole: Whole) -> Iterator[Finding]:
    usual = np.median([e.observations.std(0) for _, e in whole], axis=0)
    moving = usual > 1e-8

    def look(x: np.ndarray) -> np.ndarray:
        share = x.std(0) / np.where(moving, usual, np.inf)
        return np.asarray(moving & (share < _DEAD * share.max()))

    hits = _by_channel(found, whole, "observations", look)
    if hits:
        said = f"Channels stand still while others move: {_told(hits, len(whole))}."
        yield Finding("joints", "dead", "note", said, "A motor or its sensor was off; leave these episodes out.")


def _stuck(found: Recordings, whole: Whole) -> Iterator[Finding]:
    def look(x: np.ndarray) -> np.ndarray:
        return np.asarray((np.ptp(x, axis=0) > 1e-8) & (len(x) > 10) & ((np.diff(x, axis=0) == 0).mean(0) > _STUCK))

    for part in ("observations", "actions"):
        hits = _by_channel(found, whole, part, look)
        hits = {name: some for name, some in hits.items() if len(some) > _STUCK * len(whole)}
        if hits:
            said = f"{part.capitalize()} hardly ever change: {_told(hits, len(whole))}."
            yield Finding("joints", f"stuck {part}", "note", said, "A switch does so; a joint that does is stuck.")


def _pinned(found: Recordings, whole: Whole) -> Iterator[Finding]:
    def look(x: np.ndarray) -> np.ndarray:
        ends = np.isclose(x, x.min(0), atol=1e-6) | np.isclose(x, x.max(0), atol=1e-6)
        switch = np.array([len(np.unique(channel)) <= 3 for channel in x.T])
        return np.asarray((np.ptp(x, axis=0) > 1e-6) & (ends.mean(0) > _PINNED) & ~switch)

    hits = _by_channel(found, whole, "observations", look)
    if hits:
        said = f"States stay at an end of their range: {_told(hits, len(whole))}."
        yield Finding("joints", "pinned", "note", said, "Check the mechanical limit and the calibration of these.")


def _runs(found: Recordings, whole: Whole) -> Iterator[Finding]:
    held, frozen = [], []
    least = max(15, round(_FROZEN * (found.about.rate or 30.0)))
    for i, episode in whole:
        same = (np.diff(episode.actions, axis=0) == 0).all(1)
        if longest(same) >= max(2, _HELD * len(episode)):
            held.append(i)
        changes = np.flatnonzero((np.diff(episode.observations, axis=0) != 0).any(1))
        if len(changes) > 1 and np.diff(changes).max() > least:
            frozen.append(i)
    if held:
        said = (
            f"In {len(held)} of {len(whole)} episodes one action is repeated for {100 * _HELD:.0f} % of the steps or "
            f"more, such as episode {held[0]}."
        )
        yield Finding("joints", "held actions", "note", said, "Commands that come too slowly are held; cut rests away.")
    if frozen:
        said = f"In {len(frozen)} of {len(whole)} episodes no state changes for {least} steps in the middle, such as "
        remedy = "The recorder or its bus hung there: cut or delete these episodes."
        yield Finding("joints", "frozen in the middle", "note", f"{said}{frozen[0]}.", remedy)


def _gripper(found: Recordings, whole: Whole) -> Iterator[Finding]:
    columns = [i for i, name in enumerate(found.about.observations) if "gripper" in name.lower()]
    grasps = [(i, e) for i, e in whole if any(word in e.task.lower() for word in _GRASPING)]
    inert = [i for i, e in grasps if columns and np.ptp(e.observations[:, columns], axis=0).max() <= 1e-6]
    if inert:
        said = f"In {len(inert)} of {len(grasps)} episodes whose task is to grasp the gripper never moves, such as "
        yield Finding("joints", "gripper", "note", f"{said}{inert[0]}.", "Nothing was grasped there: leave them out.")


def _fast(found: Recordings, whole: Whole) -> Iterator[Finding]:
    rate, names = found.about.rate, found.about.observations
    if rate is None:
        return
    largest = np.max([np.abs(e.observations).max(0) for _, e in whole], axis=0)
    scale = []  # radians of one unit of each channel; 0 where it is no angle
    for name, unit, most in zip(names, found.about.observation_units or ("",) * len(names), largest, strict=True):
        known = unit_of(unit)
        if not unit and sounds_like_angle(name) and most <= 720:
            known = "deg" if most > 2 * np.pi else "rad"
        scale.append({"deg": np.pi / 180, "rad": 1.0}.get(known, 0.0))
    hits: dict[str, list[int]] = {}
    for i, episode in whole:
        x, _ = found.continuous(episode)
        for channel in np.flatnonzero((np.abs(np.diff(x, axis=0)) * rate * np.array(scale) > _FASTEST).any(0)):
            hits.setdefault(names[channel], []).append(i)
    if hits:
        said = f"Joints move faster than {_FASTEST:g} rad/s: {_told(hits, len(whole))}."
        yield Finding("joints", "too fast", "note", said, "Encoder noise, or another unit than this seems to be.")


def _following(found: Recordings, whole: Whole) -> Iterator[Finding]:
    """Commands of positions: actions that over all episodes go where the states of that name, or place, go."""
    seen, did = found.about.observations, found.about.actions
    pairs = [(seen.index(name), j) for j, name in enumerate(did) if name in seen]
    if not pairs and len(seen) == len(did) and seen == numbered("observation", len(seen)):
        pairs = [(j, j) for j in range(len(did))]
    loose: dict[str, list[int]] = {}
    beside: dict[str, list[int]] = {}
    for i, j in pairs:
        states, actions = (
            np.concatenate([np.asarray(getattr(e, part), float)[:, k] for _, e in whole])
            for part, k in (("observations", i), ("actions", j))
        )
        if min(states.std(), actions.std()) < 1e-9 or np.corrcoef(states, actions)[0, 1] < _FOLLOWS:
            continue  # velocities, changes or torques; 'lag' and 'ranges' tell of these
        for number, episode in whole:
            state, action = np.asarray(episode.observations[:, i], float), np.asarray(episode.actions[:, j], float)
            if min(state.std(), action.std()) > 1e-9 and np.corrcoef(state, action)[0, 1] < _FOLLOWS:
                loose.setdefault(did[j], []).append(number)
            if ((action < state.min()) | (action > state.max())).mean() > 0.5:
                beside.setdefault(did[j], []).append(number)
    for point, hits, said in (
        ("following", loose, f"States do not go where their actions say (correlation below {_FOLLOWS:g})"),
        ("beside the states", beside, "Actions lie outside of the states' own range for most of an episode"),
    ):
        if hits:
            remedy = "Was the arm held up, or are leader and follower calibrated differently there?"
            yield Finding("joints", point, "note", f"{said}: {_told(hits, len(whole))}.", remedy)


def _far(found: Recordings, whole: Whole) -> Iterator[Finding]:
    for part in ("observations", "actions"):
        values = np.concatenate([np.asarray(getattr(e, part), float) for _, e in whole])
        mean, width = values.mean(0), _FAR * np.maximum(values.std(0), 1e-12)

        def look(x: np.ndarray, mean: np.ndarray = mean, width: np.ndarray = width) -> np.ndarray:
            return np.asarray((np.abs(x - mean) > width).any(0))

        hits = _by_channel(found, whole, part, look)
        if hits:
            said = f"{part.capitalize()} are more than {_FAR:g} deviations from their mean: {_told(hits, len(whole))}."
            yield Finding("joints", f"far {part}", "note", said, "Spikes of a sensor widen the scale; cut them.")


def _shift(found: Recordings, whole: Whole) -> Iterator[Finding]:
    quarter = len(whole) // 4
    if len(whole) < 10:
        return
    hit, deviations = [], [0.0]
    for part in ("observations", "actions"):
        first, last = (
            np.concatenate([np.asarray(getattr(e, part), float) for _, e in some_episodes])
            for some_episodes in (whole[:quarter], whole[-quarter:])
        )
        spread = first.std(0)
        away = np.abs(last.mean(0) - first.mean(0)) / np.where(spread > 0, spread, 1.0)
        deviations += away.tolist()
        hit += [f"{getattr(found.about, part)[i]} ({away[i]:.1f} deviations)" for i in np.flatnonzero(away > _SHIFT)]
    if not hit:
        return
    said = f"The last quarter of the episodes lies elsewhere than the first: {some(hit)}"
    of_tasks = float(max(deviations)) < _SHIFT_OF_TASKS
    if not of_tasks or {e.task for _, e in whole[:quarter]} & {e.task for _, e in whole[-quarter:]}:
        yield Finding("joints", "shift", "note", f"{said}.", "Was something moved or calibrated anew in between?")
    else:
        yield Finding("joints", "shift", "good", f"{said}; they are of other tasks.")
