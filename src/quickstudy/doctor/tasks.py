"""What the tasks of a data set look like: how many, how alike, how well their starts are covered."""

import difflib
import re
from collections.abc import Iterator

import numpy as np

from quickstudy.doctor.findings import Finding, Recordings, finite, plural, some
from quickstudy.families.recorded import one_spelling, spelling

_FEW = 8
"""Tasks below which nobody can say how a learner does on new ones."""
_MANY = 30
"""Episodes from which on a rule of thumb calls one task alone enough for imitation."""
_PLACEHOLDERS = {"test", "asdf", "todo", "tbd", "n/a", "na", "xxx", "placeholder", "task", "default"}
_NEAR = 0.05
"""Of the range of the states, how far the means of episodes are apart at least where they differ."""


def tasks(found: Recordings) -> Iterator[Finding]:
    """Findings about labels, counts and variety."""
    counts = {task: len(some_episodes) for task, some_episodes in found.tasks.items()}
    blank = [task for task in counts if not task.strip()]
    if blank:
        yield Finding("tasks", "labels", "bad", f"{counts[blank[0]]} episodes have no task.", "Give each a label.")
    least, most = min(counts.values()), max(counts.values())
    said = f"{plural(len(counts), 'task')} with {least if least == most else f'{least} to {most}'} episodes each"
    lonely = [task for task, count in counts.items() if count < 3]
    if len(counts) < 3:
        remedy = "Meta-learning needs many tasks: record more of them, or learn this one by plain imitation."
        yield Finding("tasks", "number", "bad", f"{said}; training, validation and test need one each.", remedy)
    elif len(counts) < _FEW:
        remedy = f"Record more tasks; a judgement of new ones wants {_FEW} or more."
        yield Finding("tasks", "number", "note", f"{said}; that is few to learn how to learn from.", remedy)
    else:
        yield Finding("tasks", "number", "good", f"{said}.")
    if lonely:
        said = f"{plural(len(lonely), 'task')} with fewer than 3 episodes, which training refuses: {some(lonely)}."
        remedy = "Record more of these, or leave them out: one is to be shown, two are to judge it."
        yield Finding("tasks", "episodes", "bad", said, remedy)
    thin = [task for task, count in counts.items() if 3 <= count < _MANY]
    if thin:
        said = (
            f"{plural(len(thin), 'task')} with fewer than {_MANY} episodes, such as '{thin[0]}' with {counts[thin[0]]}."
        )
        remedy = "Enough to learn to learn from where there are many tasks; to imitate one alone, record more."
        yield Finding("tasks", "episodes each", "good", said, remedy)
    rare = [task for task, count in counts.items() if 4 * count < np.median(list(counts.values()))]
    if rare and max(counts.values()) <= 10 * min(counts.values()):
        said = f"{some(rare)} have less than a quarter of the episodes of others."
        yield Finding("tasks", "rare", "note", said, "Record more of these.")
    if max(counts.values()) > 10 * min(counts.values()):
        few = min(counts, key=counts.__getitem__)
        said = f"Some tasks have more than ten times the episodes of others; '{few}' has {counts[few]}."
        yield Finding("tasks", "balance", "note", said, "Balance them.")
    yield from _labels([episode.task for episode in found.episodes])
    yield from _alike(found)
    yield from _starts(found)
    yield from _variety(found)


def _labels(labels: list[str]) -> Iterator[Finding]:
    """What the labels [episode] say, and which of them are, or may be, one."""
    one = one_spelling(labels)
    merged = [f"{label} / {chosen}" for label, chosen in one.items() if label != chosen]
    if merged:
        said = f"Labels that differ by blanks, Unicode form, case or a full stop alone are read as one: {some(merged)}."
        yield Finding("tasks", "merged", "note", said, "Is that so? Else give them other names.")
    names = list(dict.fromkeys(one.values()))
    plain = {label: re.sub(r"[\W_]+", " ", spelling(label)).strip() for label in names}
    pairs = []
    for i, label in enumerate(names):
        for other in names[i + 1 :]:
            if re.sub(r"\d", "", plain[label]) == re.sub(r"\d", "", plain[other]) and plain[label] != plain[other]:
                continue  # push 1 and push 2 are told apart by their number
            alike = len(names) <= 300 and difflib.SequenceMatcher(None, plain[label], plain[other]).ratio() > 0.92
            if alike or plain[label] == plain[other]:
                pairs.append(f"{label} / {other}")
    if pairs:
        said = f"Labels that may mean one task: {some(pairs, 3)}; one would be in training and the other in test."
        yield Finding("tasks", "spelling", "note", said, "Spell them alike where they are one.")
    little = [label for label in names if label.strip().lower() in _PLACEHOLDERS or 0 < len(label.strip()) < 3]
    if little:
        said = f"Labels say little: {some(little)}."
        yield Finding("tasks", "placeholders", "note", said, "Nobody will know later what was done there.")


def _marks(found: Recordings) -> tuple[list[str], list[np.ndarray], np.ndarray] | None:
    """Tasks, for each [episode, mark], and the deviation of marks: an episode's course, in ten points."""
    names, marks = [], []
    for task, some_episodes in found.tasks.items():
        rows = []
        for episode in some_episodes:
            x, y = episode.observations, episode.actions
            if len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
                continue
            both = np.concatenate(found.continuous(episode), 1)
            at = np.linspace(0, len(both) - 1, 10)
            rows.append(np.concatenate([np.interp(at, np.arange(len(both)), channel) for channel in both.T]))
        if len(rows) >= 2:
            names.append(task)
            marks.append(np.array(rows))
    if len(names) < 2:
        return None
    return names, marks, np.maximum(np.concatenate(marks).std(0), 1e-9)


def _alike(found: Recordings) -> Iterator[Finding]:
    """Whether tasks can be told apart: how often an episode's nearest other episode is of its own task."""
    made = _marks(found)
    if made is None:
        return
    names, marks, deviation = made
    rows = np.concatenate(marks) / deviation
    owner = np.repeat(np.arange(len(marks)), [len(one) for one in marks])
    apart = np.square(rows).sum(1)[:, None] + np.square(rows).sum(1) - 2 * rows @ rows.T
    np.fill_diagonal(apart, np.inf)
    nearest = owner[apart.argmin(1)]
    share = float((nearest == owner).mean())
    chance = float(np.mean([(len(one) - 1) / (len(rows) - 1) for one in marks for _ in one]))
    said = f"{100 * share:.0f} % of the episodes are most like one of their own task (by chance {100 * chance:.0f} %)"
    mixed = [
        f"{names[a]} / {names[b]}"
        for a in range(len(names)) for b in range(a + 1, len(names))
        if (nearest[owner == a] == b).mean() > 0.4 and (nearest[owner == b] == a).mean() > 0.4
    ]  # fmt: skip
    if share < chance + 0.1:
        said += ": the tasks do not differ in what was done."
        remedy = "One policy for all may do; labels that mean nothing teach nothing."
        yield Finding("tasks", "told apart", "note", said, remedy)
    elif mixed:
        yield Finding(
            "tasks", "told apart", "note", f"{said}; hard to tell apart: {some(mixed, 3)}.", "Are these one task?"
        )
    else:
        yield Finding("tasks", "told apart", "good", f"{said}.")


def _starts(found: Recordings) -> Iterator[Finding]:
    """Whether demonstrations begin at different states, as a robot will."""
    still = []
    varied = 0
    every = [e.observations[0] for e in found.episodes if len(e) and np.isfinite(e.observations).all()]
    if len(every) < 3:
        return
    states = np.concatenate([e.observations for e in found.episodes if len(e) and np.isfinite(e.observations).all()])
    deviation = np.maximum(np.asarray(states, float).std(0), 1e-9)
    for task, some_episodes in found.tasks.items():
        first = [e.observations[0] for e in some_episodes if len(e) and np.isfinite(e.observations).all()]
        if len(first) >= 2:
            spread = float((np.asarray(first, float).std(0) / deviation).max())
            still += [task] if spread < 0.02 else []
            varied += spread >= 0.02
    if still and not varied:
        said = "All demonstrations of a task start at the same state; how a learner does from another is not known."
        yield Finding("tasks", "starts", "note", said, "Vary the starts as they will vary on the robot.")
    elif still:
        said = f"In {len(still)} tasks all demonstrations start at the same state: {some(still)}."
        yield Finding("tasks", "starts", "note", said, "Vary the starts as they will vary on the robot.")
    else:
        yield Finding("tasks", "starts", "good", "Demonstrations of a task start at different states.")


def _variety(found: Recordings) -> Iterator[Finding]:
    """Whether episodes go to different places at all."""
    whole = [e.observations for e in found.episodes if len(e) and finite(e)]
    if len(whole) < 2:
        return
    width = float(np.linalg.norm(np.ptp(np.concatenate(whole), axis=0)))
    middles = np.array([x.mean(0) for x in whole[:500]], float)
    middles -= middles.mean(0)
    squares = np.square(middles).sum(1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * middles @ middles.T, 0))
    near = float(apart[np.triu_indices(len(middles), 1)].mean()) / max(width, 1e-12)
    if width > 0 and near < _NEAR:
        said = f"Episodes hardly differ: their mean states are {100 * near:.1f} % of the states' range apart."
        yield Finding("tasks", "variety", "note", said, "Vary objects, goals and starts as they will vary later.")
