"""What the videos of a LeRobotDataset show: whether they are whole, as long as their episodes, and show anything.

Nothing is learned from images here, so that what is wrong with them is never worse than a note.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from quickstudy.datasets.lerobot.listing import Info, Place, places, read_info
from quickstudy.doctor.findings import Finding, longest, some
from quickstudy.errors import QuickstudyError, one_line
from quickstudy.io.progress import progress

_FILES = 20
"""Videos of a camera that are looked through."""
_SAME = 0.5
"""Mean change of a frame's grey values, of 255, below which it is the frame before."""
_DARK, _BRIGHT, _FLAT = 10.0, 245.0, 0.25
"""Mean grey values, and the deviation of one frame's."""
_HUNG = 0.5
"""Seconds of the same picture that are told."""
_REMEDIES = {
    "missing": "Fetch the videos again; their numbers can be learned from without them.",
    "damaged": "Fetch or record these videos again.",
    "frame rate": "Cameras and states are not of the same time: convert the video.",
    "resolution": "Correct the shape in meta/info.json.",
    "length": "Frames were lost: cameras and states of these episodes are not of the same time.",
    "frozen": "The camera hung, or nothing that it sees moved: look at these episodes.",
    "shows nothing": "A lens cap, a lamp or a dead feed: leave these episodes out.",
}


def cameras(folder: Path) -> Iterator[Finding]:
    """Findings about each camera's files; none where the data set has no video, or cannot be listed."""
    try:
        info = read_info(folder)
        names = [name for name, one in info.features.items() if one.dtype == "video"]
        listing = places(folder, info, names)
    except QuickstudyError:
        return  # reading says so
    for name in names:
        of: dict[Path, list[Place]] = {}
        for place in listing:
            of.setdefault(place.cameras[name][0], []).append(place)
        said: dict[str, list[str]] = {}
        looked = list(of.items())[:_FILES]
        with progress(f"looking through {name.rpartition('.')[2]}", len(looked)) as advance:
            for path, some_places in looked:
                for point, what in _looked(path, name, some_places, info):
                    said.setdefault(point, []).append(what)
                advance()
        for point, every in said.items():
            yield Finding("cameras", point, "note", f"{name}: {some(every)}.", _REMEDIES[point])
        if not said:
            count = f"{len(looked)} of {len(of)} videos are" if len(looked) < len(of) else f"{len(of)} videos are"
            yield Finding("cameras", "videos", "good", f"{name}: {count} whole and show something that moves.")


def _looked(path: Path, name: str, listing: Sequence[Place], info: Info) -> Iterator[tuple[str, str]]:
    """What is wrong with one file, and where."""
    numbers = ", ".join(str(place.number) for place in listing[:3]) + (", ..." if len(listing) > 3 else "")
    if not path.is_file():
        yield "missing", f"{path.name} of episodes {numbers}"
        return
    rate, expected = float(info.fps), sum(place.length for place in listing)
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as film:
            stream = film.streams.video[0]
            stated, size = float(stream.average_rate or 0), (stream.height, stream.width)
            for frame in film.decode(stream):
                frames.append(frame.reformat(width=32, height=24, format="gray").to_ndarray())
    except (av.FFmpegError, IndexError, OSError) as error:
        yield "damaged", f"{path.name} of episodes {numbers} ({one_line(error)})"
        return
    if abs(stated - rate) > max(0.05 * rate, 0.5):
        yield "frame rate", f"{path.name} has {stated:.4g} frames a second, the data set {rate:g}"
    if not set(size) <= set(info.features[name].shape):
        yield "resolution", f"{path.name} is {size[0]} x {size[1]}, the feature's shape {info.features[name].shape}"
    if len(frames) != expected:
        yield "length", f"{path.name} has {len(frames)} frames for {expected} steps of episodes {numbers}"
    grey = np.array(frames, np.float32).reshape(-1, 24, 32)
    same = np.concatenate([np.abs(np.diff(grey, axis=0)).mean((1, 2)) < _SAME, [False]])
    for place in listing:
        begin = round(place.cameras[name][1] * rate)
        own, still = grey[begin : begin + place.length], same[begin : begin + place.length - 1]
        if len(own) < 2:
            continue
        mean = float(own.mean())
        if not _DARK <= mean <= _BRIGHT or float(own.std((1, 2)).mean()) < _FLAT:
            yield "shows nothing", f"episode {place.number} has a mean grey value of {mean:.0f} of 255"
        elif longest(still) >= max(_HUNG * rate, 5):
            yield "frozen", f"episode {place.number} shows one picture for {longest(still) + 1} frames"
