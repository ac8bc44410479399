"""What a data set holds, in numbers and plots, before anything is learned from it."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.markup import escape
from rich.table import Column, Table

from quickstudy import datasets
from quickstudy.datasets.episodes import About, Episode, alike
from quickstudy.errors import QuickstudyError, listed
from quickstudy.io import files
from quickstudy.io.progress import progress
from quickstudy.settings import ReadingConfig

_CONSTANT = 1e-8
_SOURCE = "Source"
"""Key of a plot's metadata, for the data set that it shows."""
_SHOWN = 3
"""Tasks whose first episode is drawn."""
_PANELS = 24
"""Channels that are drawn, at most."""
_NEEDED = 3
"""Episodes of a task that learning needs: one to be shown, two to be judged by."""


@dataclass(frozen=True)
class Channels:
    """The channels of observations or actions.

    Attributes:
        names: [channel].
        low, high, mean, deviation: [channel], over all finite values of all steps; NaN where there are none.
        missing: [channel], values that are not finite.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    missing: np.ndarray

    @property
    def constant(self) -> list[str]:
        """Channels that never change."""
        return [n for n, low, high in zip(self.names, self.low, self.high, strict=True) if high - low <= _CONSTANT]


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        lengths: [episode], steps.
        counts: episodes by task.
        observations, actions: their channels.
        succeeded: episodes that ended in success, or None where nobody said.
        examples: the first episode of some tasks, with its first images.
        warnings: what was left out or stands in the way of learning, each a sentence.
        masks: how many episodes each mask of the file has.
    """

    path: Path
    format: str
    about: About
    lengths: np.ndarray
    counts: Counter[str]
    observations: Channels
    actions: Channels
    succeeded: int | None
    examples: list[Episode]
    warnings: list[str]
    masks: dict[str, int]


class _Running:
    """Figures of channels over many episodes (Chan et al. 1979)."""

    def __init__(self, width: int) -> None:
        self.count, self.missing = np.zeros(width), np.zeros(width, int)
        self.mean, self.squares = np.zeros(width), np.zeros(width)
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)

    def add(self, values: np.ndarray) -> None:
        there = np.isfinite(values)
        count = there.sum(0)
        known = np.where(there, values, 0.0).astype(float)
        mean = known.sum(0) / np.maximum(count, 1)
        squares = (there * np.square(known - mean)).sum(0)
        total = np.maximum(self.count + count, 1)
        away = mean - self.mean
        self.squares += squares + away**2 * self.count * count / total
        self.mean += away * count / total
        self.low = np.minimum(self.low, np.where(there, values, np.inf).min(0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(there, values, -np.inf).max(0, initial=-np.inf))
        self.count += count
        self.missing += len(values) - count

    def channels(self, names: tuple[str, ...]) -> Channels:
        seen = self.count > 0
        low, high, mean = (np.where(seen, x, np.nan) for x in (self.low, self.high, self.mean))
        deviation = np.sqrt(np.where(seen, self.squares, np.nan) / np.maximum(self.count, 1))
        return Channels(names, low, high, mean, deviation, self.missing)


def inspect(path: Path, reading: ReadingConfig | None = None) -> Inspection:
    """Goes through a data set once, one episode at a time, its videos included.

    Args:
        reading: as in `quickstudy.datasets.load`.

    Raises:
        QuickstudyError: nothing there, nothing that is read, or a damaged file; but values that are not finite,
            constant channels and lonely labels are counted.
    """
    recording = datasets.load(path, reading)
    lengths: list[int] = []
    running: list[_Running] = []
    examples: dict[str, Episode] = {}
    ends: list[bool] = []
    with progress(f"reading {path.name}", len(recording)) as advance:
        for episode in alike(recording.with_images()):
            parts = (episode.observations, episode.actions)
            running = running or [_Running(part.shape[1]) for part in parts]
            for one, part in zip(running, parts, strict=True):
                one.add(part)
            lengths.append(len(episode))
            if len(examples) < _SHOWN:
                first = {name: images[:1] for name, images in episode.images.items()}
                examples.setdefault(episode.task, replace(episode, images=first))
            if episode.success is not None:
                ends.append(bool(episode.success[-1:].any()))
            advance()
            del episode  # or the images of two episodes would be held at once
    about = recording.about.named(*(len(one.mean) for one in running))
    observations, actions = running[0].channels(about.observations), running[1].channels(about.actions)
    return Inspection(
        path,
        recording.format,
        about,
        np.array(lengths),
        recording.counts,
        observations,
        actions,
        sum(ends) if ends else None,
        list(examples.values()),
        [*recording.notes, *_warnings(observations, actions, np.array(lengths), recording.counts, about)],
        {name: len(episodes) for name, episodes in recording.masks.items()},
    )


def _warnings(
    observations: Channels, actions: Channels, lengths: np.ndarray, counts: Counter[str], about: About
) -> list[str]:
    said = []
    for kind, channels in (("observation", observations), ("action", actions)):
        gaps = [f"{n} ({m})" for n, m in zip(channels.names, channels.missing, strict=True) if m]
        if gaps:
            said.append(f"values that are not finite in the {kind} channels {listed(gaps)}; learning refuses them.")
        if channels.constant:
            said.append(f"the {kind} channels {listed(channels.constant)} never change.")
    lonely = sorted(task for task, count in counts.items() if count < _NEEDED)
    if lonely:
        said.append(
            f"{len(lonely)} tasks have fewer than the {_NEEDED} episodes that learning needs: {listed(lonely)}."
        )
    if len(counts) < _NEEDED:
        there = f"there are {len(counts)} tasks" if len(counts) > 1 else "there is one task"
        said.append(f"{there}; training, validation and test need one each at least, so {_NEEDED}.")
    if (lengths == 0).any():
        said.append(f"{(lengths == 0).sum()} episodes are empty, the first is episode {int(np.argmin(lengths))}.")
    if about.rate is None:
        said.append("the frame rate is not known.")
    return said


def tables(found: Inspection) -> list[Table]:
    """What was found, for a terminal."""
    about = Table(Column(no_wrap=True), "", show_header=False)
    lengths, rate = found.lengths, found.about.rate
    duration = f", {lengths.mean() / rate:.1f} s on average" if rate else ""
    rows = {
        "data set": f"{found.path} ({found.format})",
        "episodes": f"{len(lengths):,} of {len(found.counts):,} tasks, {_span(found.counts.values())} a task"
        if len(found.counts) > 1
        else f"{len(lengths):,} of one task",
        "steps": f"{lengths.sum():,}; an episode has {_span(lengths)}, median {np.median(lengths):g}{duration}",
        "frame rate": f"{rate:g} steps a second{_jitter(found.about.jitter)}" if rate else "not known",
    }
    if found.succeeded is not None:
        rows["success"] = f"{found.succeeded:,} of {len(lengths):,} episodes"
    if found.about.cameras:
        sizes = {name: found.examples[0].images[name].shape[1:3] for name in found.about.cameras}
        rows["cameras"] = ", ".join(f"{name} {h} x {w}" for name, (h, w) in sizes.items())
    if found.masks:
        rows["masks"] = ", ".join(f"{name} {count} episodes" for name, count in found.masks.items())
    for name, said in rows.items():
        about.add_row(name, escape(said))
    return [
        about,
        _channels("observation", found.observations, found.about.observation_units),
        _channels("action", found.actions, found.about.action_units),
    ]


def _span(numbers: Collection[int] | np.ndarray) -> str:
    """Such as '3 to 5', or '4' where all are."""
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"


def _jitter(seconds: float) -> str:
    return f"; single steps are up to {1000 * seconds:.3g} ms longer or shorter" if seconds >= 1e-4 else ""


def _channels(title: str, channels: Channels, units: Sequence[str]) -> Table:
    stated = ["unit"] if any(units) else []
    table = Table(Column(title, no_wrap=True), *stated, "lowest", "highest", "mean", "deviation", "missing")
    figures = (channels.low, channels.high, channels.mean, channels.deviation)
    for i, name in enumerate(channels.names):
        unit = [escape(units[i])] if stated else []
        numbers = (f"{figure[i]:.4g}" for figure in figures)
        table.add_row(escape(name), *unit, *numbers, str(channels.missing[i] or ""))
    return table


def free_place(path: Path) -> Path:
    """Where the plots of a data set go: <name>-inspection.png here; numbered where that shows another data set."""
    stem, number = f"{path.absolute().stem}-inspection", 1
    place = Path(f"{stem}.png")
    while place.exists() and _source(place) != str(path.absolute()):
        number += 1
        place = Path(f"{stem}-{number}.png")
    return place


def _source(place: Path) -> str:
    """Of which data set a plot is."""
    try:
        with Image.open(place) as image:
            return str(image.info.get(_SOURCE, ""))
    except OSError:
        return ""


def plot(found: Inspection, path: Path) -> None:
    """Draws the lengths and the first channels of some episodes into a PNG.

    Raises:
        QuickstudyError: the disk refuses, or `path` does not end with .png.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix != ".png":
        raise QuickstudyError(f"The plots become a .png; got '{path}'.")
    named = [("observation", n, i) for i, n in enumerate(found.observations.names)]
    named += [("action", n, i) for i, n in enumerate(found.actions.names)]
    fair = min(len(found.actions.names), _PANELS // 3)
    shown = named[: len(found.observations.names)][: _PANELS - 1 - fair] + named[len(found.observations.names) :][:fair]
    images = found.examples[0].images
    columns, rows = 4, -(-(len(shown) + 1 + len(images)) // 4)
    figure = Figure(figsize=(3.4 * columns, 2.1 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    axes[0].hist(found.lengths, bins=min(30, max(1, len(set(found.lengths.tolist())))), color="#7d848c")
    axes[0].set(title="steps of an episode", ylabel="episodes")
    for axis, (kind, name, i) in zip(axes[1:], shown, strict=False):
        for episode in found.examples:
            values = episode.observations if kind == "observation" else episode.actions
            times = np.arange(len(values)) / (found.about.rate or 1.0)
            axis.plot(times, values[:, i], linewidth=1.0, label=episode.task[:40])
        axis.set_title(f"{kind}: {name}"[:40], fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes[len(shown) + 1 :]:
        axis.set_axis_off()
    for axis, (name, frames) in zip(axes[len(shown) + 1 :], images.items(), strict=False):
        axis.imshow(frames[0])
        axis.set_title(f"camera: {name}"[:40], fontsize=9)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)
    figure.supxlabel("seconds" if found.about.rate else "steps", fontsize=9)
    with files.partial(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png", metadata={_SOURCE: str(found.path.absolute())})
