"""What the doctor finds, and what it looks at: a data set read once, with everything that its channels are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from quickstudy import datasets
from quickstudy.datasets import angles, timing
from quickstudy.datasets.episodes import About, Episode, alike
from quickstudy.families.recorded import one_spelling
from quickstudy.io.progress import progress
from quickstudy.settings import ReadingConfig

Verdict = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: 'reading', 'files', 'cameras', 'timing', 'channels', 'joints', 'episodes', 'tasks', 'replay' or
            'learning'.
        point: what was looked at, in two or three words.
        verdict: 'bad' where learning from this would be useless or wrong, 'note' where somebody should look.
        said: what was found, with its figures.
        remedy: what to do about it; '' where there is nothing to do.
    """

    about: str
    point: str
    verdict: Verdict
    said: str
    remedy: str = ""


@dataclass(frozen=True)
class Recordings:
    """A data set in memory, without its images.

    Attributes:
        episodes: in their order; those that are not finite or empty as well.
        about: names and units of the channels, the rate, the cameras.
        wraps: the channels of observations, and of actions, of which two numbers may say the same.
    """

    path: Path
    format: str
    about: About
    episodes: tuple[Episode, ...]
    wraps: tuple[angles.Wraps, angles.Wraps]

    @property
    def tasks(self) -> dict[str, list[Episode]]:
        """The episodes of each task; labels that are read as one are one here as well."""
        label = one_spelling([episode.task for episode in self.episodes])
        found: dict[str, list[Episode]] = {}
        for episode in self.episodes:
            found.setdefault(label[episode.task], []).append(episode)
        return found

    def continuous(self, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        """Observations and actions of an episode without the jumps of angles and quaternions, float64."""
        return self.wraps[0].continuous(episode.observations), self.wraps[1].continuous(episode.actions)


def read(path: Path, reading: ReadingConfig) -> Recordings:
    """A data set as the doctor looks at it; stamps that are not even are found, not refused.

    Raises:
        QuickstudyError: nothing there, nothing that is read, or a damaged file.
    """
    recording = datasets.load(path, reading)
    episodes: list[Episode] = []
    with timing.unchecked(), progress(f"reading {path.name}", len(recording)) as advance:
        for episode in alike(recording):
            episodes.append(episode)
            advance()
    widths = episodes[0].observations.shape[1], episodes[0].actions.shape[1]
    about = recording.about.named(*widths)
    whole = [e for e in episodes if len(e) and np.isfinite(e.observations).all() and np.isfinite(e.actions).all()]
    wraps = (
        angles.find([e.observations for e in whole], about.observations, about.observation_units),
        angles.find([e.actions for e in whole], about.actions, about.action_units),
    )
    return Recordings(path, recording.format, about, tuple(episodes), wraps)


_ANGLES = ("joint", "angle", "shoulder", "elbow", "wrist", "pan", "lift", "flex", "roll")


def sounds_like_angle(name: str) -> bool:
    """Whether a channel's name is one that joints have."""
    return name.endswith(".pos") or any(word in name.lower() for word in _ANGLES)


def plural(count: int, what: str) -> str:
    """Such as '1 task' and '3 tasks'."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def some(names: Sequence[str], most: int = 4) -> str:
    """The first of these names in quotation marks, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more


def finite(episode: Episode) -> bool:
    """Whether all numbers of an episode are."""
    return bool(np.isfinite(episode.observations).all() and np.isfinite(episode.actions).all())


def longest(flags: np.ndarray) -> int:
    """The longest run of true flags [step]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
