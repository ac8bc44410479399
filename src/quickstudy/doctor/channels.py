"""What the numbers of a data set look like, channel by channel."""

from collections.abc import Iterator

import numpy as np

from quickstudy.datasets.angles import unit_of
from quickstudy.doctor.findings import Finding, Recordings, plural, some, sounds_like_angle

_SATURATED = 0.2
"""Share of the steps of moving episodes at an end of the range from which on a channel is called saturated."""
_JUMP = 12.0
"""How many times the usual step of a channel is a jump, where it is also a third of the channel's range."""
_ALL_JUMP = 8.0
"""Deviations of their steps that all channels together jump by."""
_ALIKE = 1 - 1e-6
"""Correlation from which on one channel tells nothing beside another."""
_LONGEST_LAG = 1.0
"""Seconds."""


def channels(found: Recordings) -> Iterator[Finding]:
    """Findings about values, units and the relation of actions to states."""
    yield from _missing(found)
    whole = [e for e in found.episodes if len(e) and np.isfinite(e.observations).all() and np.isfinite(e.actions).all()]
    if not whole:
        return
    pairs = [found.continuous(episode) for episode in whole]
    observations, actions = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    yield from _constant(found, observations, actions)
    yield from _duplicated(found, observations, actions)
    yield from _saturated(found, [e.actions for e in whole])
    yield from _units(found, observations, actions)
    yield from _wrapped(found)
    yield from _jumps(found, pairs)
    yield from _lag(found, pairs)
    yield from _apart(found, observations, actions)


def _named(found: Recordings) -> list[tuple[str, tuple[str, ...]]]:
    return [("observation", found.about.observations), ("action", found.about.actions)]


def _missing(found: Recordings) -> Iterator[Finding]:
    bad: dict[str, int] = {}
    for episode in found.episodes:
        for (kind, names), values in zip(_named(found), (episode.observations, episode.actions), strict=True):
            for name, count in zip(names, (~np.isfinite(values)).sum(0), strict=True):
                if count:
                    bad[f"{kind} {name}"] = bad.get(f"{kind} {name}", 0) + int(count)
    if bad:
        said = f"{plural(sum(bad.values()), 'value')} not finite, of {some(list(bad))}; learning refuses them."
        yield Finding("channels", "finite", "bad", said, "Cut or repair these steps before you record the data set.")
    else:
        yield Finding("channels", "finite", "good", "All values are finite.")


def _constant(found: Recordings, observations: np.ndarray, actions: np.ndarray) -> Iterator[Finding]:
    for (kind, names), values in zip(_named(found), (observations, actions), strict=True):
        still = [name for name, width in zip(names, np.ptp(values, axis=0), strict=True) if width <= 1e-8]
        if len(still) == len(names):
            said = f"No {kind} channel ever changes: there is nothing to learn from."
            yield Finding("channels", f"constant {kind}s", "bad", said, "Check which topics or features were recorded.")
        elif still:
            said = f"The {kind} channels {some(still)} never change (a dead joint, or one that was not used)."
            yield Finding("channels", f"constant {kind}s", "note", said, "Leave them out, or check their sensors.")


def _duplicated(found: Recordings, observations: np.ndarray, actions: np.ndarray) -> Iterator[Finding]:
    for (kind, names), values in zip(_named(found), (observations, actions), strict=True):
        moving = np.flatnonzero(np.ptp(values, axis=0) > 1e-8)
        if len(moving) < 2:
            continue
        related = np.abs(np.corrcoef(values[:, moving].T))
        twins = [(moving[i], moving[j]) for i, j in zip(*np.nonzero(np.triu(related > _ALIKE, 1)), strict=True)]
        if twins:
            pairs = [f"{names[i]} = {names[j]}" for i, j in twins]
            said = f"{kind.capitalize()} channels say the same, up to scale: {some(pairs)}."
            yield Finding("channels", f"duplicated {kind}s", "note", said, "One of each is enough.")


def _saturated(found: Recordings, actions: list[np.ndarray]) -> Iterator[Finding]:
    values = np.concatenate(actions)
    low, high = values.min(0), values.max(0)
    hit = []
    for i, name in enumerate(found.about.actions):
        levels = np.unique(values[:, i])
        if len(levels) <= 3:  # a gripper that opens or closes is meant to be at its ends
            continue
        shares = [float(np.isclose(values[:, i], end, atol=1e-9 + 1e-6 * (high[i] - low[i])).mean())
                  for end in (low[i], high[i])]  # fmt: skip
        if max(shares) > _SATURATED:
            hit.append(f"{name} ({100 * max(shares):.0f} % at {(low if shares[0] > shares[1] else high)[i]:.4g})")
    if hit:
        said = f"Actions stand at the end of their range: {some(hit)}; what was wanted beyond is lost."
        yield Finding("channels", "saturated", "note", said, "Widen the controller's limits, or demonstrate slower.")
    else:
        yield Finding("channels", "saturated", "good", "No action channel stands at the end of its range.")


def _units(found: Recordings, observations: np.ndarray, actions: np.ndarray) -> Iterator[Finding]:
    guesses: dict[str, list[str]] = {}
    hints = found.about.observation_units, found.about.action_units
    for (kind, names), values, units in zip(_named(found), (observations, actions), hints, strict=True):
        for i, name in enumerate(names):
            said = units[i] if i < len(units) else ""
            largest = float(np.abs(values[:, i]).max())
            looks = "deg" if 2 * np.pi < largest <= 720 else "rad" if largest <= 2 * np.pi else ""
            wanted = unit_of(said)
            if wanted == "rad" and largest > 4 * np.pi:
                guesses.setdefault("wrong", []).append(f"{name} says radians and reaches {largest:.4g}")
            elif sounds_like_angle(name):
                guesses.setdefault(looks, []).append(f"{kind} {name}") if looks and not said else None
    if "wrong" in guesses:
        said = f"{some(guesses['wrong'])}: these are not radians."
        yield Finding("channels", "units", "bad", said, "Correct the unit, or convert the values.")
    elif guesses.get("deg") and guesses.get("rad"):
        said = f"{some(guesses['deg'])} look like degrees and {some(guesses['rad'])} like radians."
        yield Finding(
            "channels", "units", "note", said, "Each channel is scaled, but a robot is commanded in one unit."
        )
    elif guesses.get("deg"):
        yield Finding("channels", "units", "good", f"{some(guesses['deg'])} look like degrees; each channel is scaled.")


def _wrapped(found: Recordings) -> Iterator[Finding]:
    names = [found.about.observations[i] for i in found.wraps[0].turns]
    names += [f"action {found.about.actions[i]}" for i in found.wraps[1].turns]
    if names:
        said = f"Jumps by a full turn where an angle wraps, in {some(names)}: two values say the same there."
        yield Finding("channels", "wrapped angles", "note", said, "Record sine and cosine, or unwrap them.")
    flips = 0
    for wraps, part in zip(found.wraps, ("observations", "actions"), strict=True):
        for first in wraps.quaternions:
            for episode in found.episodes:
                block = np.asarray(getattr(episode, part), float)[:, first : first + 4]
                flips += int(((block[1:] * block[:-1]).sum(1) < 0).sum())
    if flips:
        said = f"Quaternions change their sign {flips} times, which says the same orientation by other numbers."
        yield Finding("channels", "quaternions", "note", said, "Keep the sign that is nearer to the step before.")


def _jumps(found: Recordings, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Finding]:
    for i, (kind, names) in enumerate(_named(found)):
        steps = np.concatenate([np.abs(np.diff(pair[i], axis=0)) for pair in pairs if len(pair[i]) > 1] or
                               [np.zeros((1, len(names)))])  # fmt: skip
        every = np.concatenate([pair[i] for pair in pairs])
        usual = np.array([np.quantile(s[s > 0], 0.95) if (s > 0).any() else np.inf for s in steps.T])
        bad = (steps > _JUMP * usual) & (steps > 0.3 * np.ptp(every, axis=0))
        # What joins two episodes moves all channels at once, if only by what is usual between episodes.
        deviation = np.where(steps.std(0) > 0, np.sqrt(np.square(steps).mean(0)), np.inf)
        bad |= ((steps / deviation).mean(1) > _ALL_JUMP)[:, None] & (steps > 3 * usual)
        bad &= np.array([len(np.unique(channel)) > 3 for channel in every.T])
        hit = [f"{name} ({plural(count, 'time')})" for name, count in zip(names, bad.sum(0), strict=True) if count]
        if hit:
            said = f"{kind.capitalize()} channels jump within one step: {some(hit)}."
            remedy = "Look for lost packets, teleports or resets inside of episodes, and cut there."
            yield Finding("channels", f"{kind} jumps", "note", said, remedy)


def _lag(found: Recordings, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Finding]:
    """How many steps after an action the state that is most like it comes: by the correlation of their changes."""
    rate = found.about.rate or 20.0
    most = max(1, round(_LONGEST_LAG * rate))
    names = found.about.actions
    best: list[tuple[float, int, str, str]] = []
    for j, action in enumerate(names):
        for i, observation in enumerate(found.about.observations):
            scores = _follows([(x[:, i], y[:, j]) for x, y in pairs], most)
            if scores is not None:
                lag = int(np.argmax(scores))
                best.append((float(scores[lag]), lag, action, observation))
    strong = [one for one in best if one[0] > 0.9]
    per_action = {one[2]: one for one in sorted(strong)}
    if not per_action:
        said = "No action channel is followed by a state like it (velocities, torques, or nothing moves by them)."
        yield Finding("channels", "lag", "good", said)
        return
    lags = [one[1] for one in per_action.values()]
    middle = int(np.median(lags))
    score, lag, action, observation = max(per_action.values())
    said = (
        f"States follow their actions by {middle} steps ({middle / rate:.2f} s), such as '{observation}' after "
        f"'{action}' (correlation {score:.2f})."
    )
    if middle / rate > 0.3:
        yield Finding("channels", "lag", "note", said, "Shift actions, or look for delays between the recorders.")
    else:
        yield Finding("channels", "lag", "good", said)


def _follows(pairs: list[tuple[np.ndarray, np.ndarray]], most: int) -> np.ndarray | None:
    """By lag in steps, the correlation of the changes of a state with those of an action that many steps before."""
    scores = []
    for lag in range(most + 1):
        xs = [np.diff(x)[lag:] for x, y in pairs if len(x) > lag + 2]
        ys = [np.diff(y)[: len(y) - 1 - lag] for x, y in pairs if len(x) > lag + 2]
        if not xs or sum(map(len, xs)) < 10:
            break
        x, y = np.concatenate(xs), np.concatenate(ys)
        scale = x.std() * y.std()
        scores.append(float(((x - x.mean()) * (y - y.mean())).mean() / scale) if scale > 1e-12 else 0.0)
    return np.array(scores) if scores else None


def _apart(found: Recordings, observations: np.ndarray, actions: np.ndarray) -> Iterator[Finding]:
    """Whether channels of one name, as observation and as action, have ranges of one unit."""
    hit = []
    for j, name in enumerate(found.about.actions):
        if name in found.about.observations:
            i = found.about.observations.index(name)
            one, other = np.ptp(observations[:, i]), np.ptp(actions[:, j])
            if min(one, other) > 1e-8 and max(one, other) / min(one, other) > 20:
                hit.append(f"{name} ({other:.3g} as action, {one:.3g} as observation)")
    if hit:
        said = f"Channels of one name have ranges that differ by more than twentyfold: {some(hit)}."
        yield Finding("channels", "ranges", "note", said, "Check the units: one may be normalised, the other not.")
