"""Recorded episodes in one form, whatever kind of file they came from; they are gone through one at a time."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, listed, within

FASTEST = 1e5
"""Steps a second that no robot exceeds."""
_JITTER = 0.1
"""How far a time stamp may be off, in steps."""


@dataclass(frozen=True)
class Episode:
    """One episode as it was found; nothing says yet that its numbers are fit to learn from, see `demonstration`.

    Attributes:
        task: the label that tells which task it is of.
        observations: [step, obs].
        actions: [step, act].
        rewards: [step], or None where none were recorded.
        success: [step] bool, or None where nobody said.
        images: by camera, [step, height, width, 3] uint8; only where they were asked for.
        where: the file and the place in it, for sentences about mistakes.
        times: [step], seconds, float64; None where the steps have no stamps of their own.
    """

    task: str
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray | None = None
    success: np.ndarray | None = None
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    where: str = "an episode"
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def demonstration(self) -> Demonstration:
        """What a learner takes of it.

        Raises:
            QuickstudyError: it is empty, holds a number that is not finite, or its arrays do not fit together.
        """
        with within(self.where):
            return Demonstration(self.observations, self.actions)


@dataclass(frozen=True)
class About:
    """What all episodes of a data set have in common.

    Attributes:
        rate: steps a second; None where steps have no duration, or nobody said which.
        observations: names of the observation's channels.
        actions: names of the action's channels.
        cameras: names of the cameras whose images can be asked for.
        observation_units, action_units: of each channel, such as 'rad', 'deg' or 'm', '' where nobody said; or empty
            where nobody said of any.
        jitter: seconds that 95 of 100 steps are at most longer or shorter than `rate` says.

    Raises:
        QuickstudyError: a rate that no robot has.
    """

    rate: float | None = None
    observations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    observation_units: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    jitter: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= FASTEST:
            raise QuickstudyError(f"A rate must be above 0 and at most {FASTEST:g} steps a second; got {self.rate:g}.")

    def named(self, observations: int, actions: int) -> "About":
        """The same, with numbered names in place of missing ones.

        Raises:
            QuickstudyError: another number of names than of channels.
        """
        widths = {"observations": observations, "actions": actions}
        for kind, width in widths.items():
            names = getattr(self, kind)
            if names and len(names) != width:
                raise QuickstudyError(f"There are {len(names)} names for {width} channels of {kind}.")
        return replace(
            self,
            observations=self.observations or numbered("observation", observations),
            actions=self.actions or numbered("action", actions),
        )


@dataclass(frozen=True)
class Recording:
    """A data set on disk: what is said about it at hand, its episodes read anew each time it is gone through.

    Attributes:
        path: where it is.
        format: of which kind, for people.
        about: what its episodes have in common.
        tasks: the label of each episode.
        read: goes through the episodes, with their images where asked for.
        masks: groups of episodes that the file names, such as 'train' and 'valid', and the numbers of these.
        notes: what people should know of how it was read, such as what was left out, each a sentence.
    """

    path: Path
    format: str
    about: About
    tasks: Sequence[str]
    read: Callable[[bool], Iterator[Episode]]
    masks: Mapping[str, Sequence[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Episode]:
        return self.read(False)

    def with_images(self) -> Iterator[Episode]:
        """Goes through the episodes with the images of all cameras."""
        return self.read(True)

    def __len__(self) -> int:
        return len(self.tasks)

    def in_order(self, observations: Sequence[str], actions: Sequence[str]) -> "Recording":
        """The same with the channels of these names alone, in this order.

        Raises:
            QuickstudyError: it lacks one.
        """
        seen = _places(observations, self.about.observations, f"'{self.path}'", "observation")
        did = _places(actions, self.about.actions, f"'{self.path}'", "action")

        def read(images: bool) -> Iterator[Episode]:
            for episode in self.read(images):
                yield replace(episode, observations=episode.observations[:, seen], actions=episode.actions[:, did])

        about = replace(
            self.about,
            observations=tuple(observations),
            actions=tuple(actions),
            observation_units=tuple(self.about.observation_units[i] for i in seen if self.about.observation_units),
            action_units=tuple(self.about.action_units[i] for i in did if self.about.action_units),
        )
        return replace(self, about=about, read=read)

    @property
    def counts(self) -> Counter[str]:
        """How many episodes each task has."""
        return Counter(self.tasks)

    def demonstrations(self) -> Iterator[tuple[Demonstration, str]]:
        """The episodes as what learners take, each with its task.

        Raises:
            QuickstudyError: an episode that is not fit to learn from, or widths that differ.
        """
        for episode in alike(self):
            yield episode.demonstration(), episode.task


def _places(wanted: Sequence[str], names: Sequence[str], where: str, kind: str) -> list[int]:
    """Where the channels of these names are."""
    for name in wanted:
        if name not in names:
            raise QuickstudyError(f"{where} lacks the {kind} channel '{name}'; it has {listed(names, 20)}.")
    return [names.index(name) for name in wanted]


def numbered(what: str, width: int) -> tuple[str, ...]:
    """Names of channels that nobody named."""
    return tuple(f"{what}.{i}" for i in range(width))


def alike(episodes: Iterable[Episode]) -> Iterator[Episode]:
    """The same episodes, as long as they have the channels, cameras, rewards and success of the first.

    Raises:
        QuickstudyError: at the first one that differs.
    """
    first: dict[str, object] = {}
    for episode in episodes:
        found = _form(episode)
        first = first or found
        for what, form in found.items():
            if form != first[what]:
                raise QuickstudyError(
                    f"{episode.where}: it has {what} {form}; the episodes before it have {first[what]}, and all must "
                    "be alike."
                )
        yield episode
        del episode  # or the images of two episodes would be held at once


def _form(episode: Episode) -> dict[str, object]:
    return {
        "observations of width": episode.observations.shape[-1],
        "actions of width": episode.actions.shape[-1],
        "rewards:": episode.rewards is not None,
        "success:": episode.success is not None,
        "images of size": {name: images.shape[1:] for name, images in episode.images.items()},
    }


def check_times(times: np.ndarray, rate: float, where: str, first: int) -> None:
    """Raises QuickstudyError unless an episode's time stamps [step], seconds, are `rate` steps a second.

    Args:
        where: file and kind of place, such as 'row', for the error's sentence; `first` is that of the first step.
    """
    expected = times[0] + np.arange(len(times)) / rate
    bad = np.flatnonzero(~(np.abs(times - expected) <= _JITTER / rate))
    if len(bad):
        raise QuickstudyError(
            f"{where} {first + bad[0]}: time stamp {times[bad[0]]:g} s where {rate:g} steps a second, the frame rate "
            f"of the data set, give {expected[bad[0]]:g} s; all episodes need one frame rate."
        )


def to_write(episodes: Iterable[Episode]) -> tuple[Episode, Iterator[Episode]]:
    """The first episode, and all of them, each checked before it is handed on.

    Raises:
        QuickstudyError: none at all, one that is not fit to learn from, or ones that differ.
    """
    every = alike(_fit(episodes))
    first = next(every, None)
    if first is None:
        raise QuickstudyError("A data set needs at least one episode; got none.")
    return first, chain([first], every)


def _fit(episodes: Iterable[Episode]) -> Iterator[Episode]:
    for number, episode in enumerate(episodes):
        named = replace(episode, where=f"{episode.where} ({number})") if episode.where == "an episode" else episode
        if not episode.task.strip():
            raise QuickstudyError(f"{named.where}: it has no task; each episode needs a label.")
        checked = named.demonstration()
        for what, values in {"rewards": episode.rewards, "success": episode.success, **episode.images}.items():
            if values is not None and len(values) != len(episode):
                raise QuickstudyError(f"{named.where}: it has {len(values)} {what} for {len(episode)} steps.")
        yield replace(named, observations=checked.observations, actions=checked.actions)
