"""Videos of many episodes in one file: written as they come, read in the same order."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from quickstudy.errors import QuickstudyError

CODEC, PIXELS = "h264", "yuv420p"

_OFF = 0.5
"""How far a frame may be from the time that it should have, in frames."""


class Film:
    """Writes a video file; use it as a context.

    Args:
        rate: frames a second.
        size: height and width of a frame, both even.
    """

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._rate, self._frames = path, rate, 0
        self._file = av.open(str(path), "w", options={"movflags": "+faststart"})
        # A key frame every other frame, so that any frame can be looked up, as training from videos does.
        options = {"crf": "23", "preset": "fast", "g": "2"}
        self._stream = self._file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = PIXELS

    def add(self, images: np.ndarray) -> tuple[float, float]:
        """Appends frames, uint8 [frame, height, width, 3], and returns the seconds from and to which they are seen."""
        begin = self._frames
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            self._file.mux(self._stream.encode(frame))
        self._frames += len(images)
        return begin / self._rate, self._frames / self._rate

    @property
    def bytes(self) -> int:
        """How large the file is by now."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        self._file.mux(self._stream.encode())
        self._file.close()


class Frames:
    """Goes through the frames of video files, so many at a time as an episode has.

    Args:
        rate: frames a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._path: Path | None = None
        self._file: Any = None
        self._decoded: Iterator[av.VideoFrame] = iter(())

    def take(self, path: Path, begin: float, count: int) -> np.ndarray:
        """The frames from second `begin` on, which must lie behind those that were taken before; uint8
        [frame, height, width, 3].

        Raises:
            QuickstudyError: no such file, one that is damaged or ends too early, or one of another frame rate.
        """
        if path != self._path:
            self._open(path)
        taken: list[np.ndarray] = []
        while len(taken) < count:
            frame = self._next(len(taken), count)
            expected = begin + len(taken) / self._rate
            off = (float(frame.time or 0.0) - expected) * self._rate
            if not taken and off < -_OFF:
                continue
            if abs(off) > _OFF:
                raise QuickstudyError(
                    f"'{path}' has a frame at {frame.time:g} s where {self._rate:g} frames a second, the data set's "
                    f"frame rate, give {expected:g} s."
                )
            taken.append(frame.to_ndarray(format="rgb24"))
        return np.stack(taken)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, path: Path) -> None:
        self.close()
        self._path, self._file = path, None
        if not path.is_file():
            raise QuickstudyError(f"There is no video '{path}', which the data set's list of episodes names.")
        try:
            self._file = av.open(str(path))
            self._decoded = self._file.decode(self._file.streams.video[0])
        except (av.FFmpegError, IndexError) as error:
            raise _damaged(path, error) from error

    def _next(self, taken: int, count: int) -> av.VideoFrame:
        assert self._path is not None
        try:
            return next(self._decoded)
        except StopIteration as error:
            raise QuickstudyError(
                f"'{self._path}' ends after {taken} of the {count} frames of an episode; fetch or record it again."
            ) from error
        except av.FFmpegError as error:
            raise _damaged(self._path, error) from error


def _damaged(path: Path, error: Exception) -> QuickstudyError:
    said = getattr(error, "strerror", None) or "it has no video stream"
    return QuickstudyError(f"'{path}' is not a whole video ({said}); fetch or record it again.")
