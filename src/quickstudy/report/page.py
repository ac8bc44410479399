"""One self-contained HTML page about a run: nothing is fetched, so it can be sent, kept and opened years later.

Its charts come as data and are drawn by report.js to the width of the screen. 3D replays come as viser's viewer, once,
and a recorded scene each. The page's own policy forbids every request, the viewer's too. The HTML is in templates/.
"""

import base64
import functools
import importlib.resources
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import jinja2
from markupsafe import Markup, escape
from PIL import Image

from quickstudy.errors import QuickstudyError
from quickstudy.io import files
from quickstudy.report.charts import Chart
from quickstudy.results.evidence import Cell
from quickstudy.results.tables import table
from quickstudy.settings import flat
from quickstudy.simulation import replay


@dataclass(frozen=True)
class Video:
    """An H.264 video, with a caption, and words for who cannot see it."""

    path: Path
    caption: str
    alt: str


@dataclass(frozen=True)
class Replay:
    """A recorded scene of `quickstudy.simulation.replay`, with a caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class VideoGroup:
    """Videos to be compared, such as one task before and after adaptation; they stand side by side."""

    title: str
    videos: Sequence[Video]
    replays: Sequence[Replay] = ()


@dataclass(frozen=True)
class Failures:
    """How episodes failed, the most frequent first.

    Attributes:
        title: whose.
        kinds: for each kind its name, how many episodes, and the tasks in a few words.
    """

    title: str
    kinds: Sequence[tuple[str, int, Sequence[str]]]


@dataclass(frozen=True)
class Report:
    """What a page says. In every text, words between `backticks` are set as code; all else is plain text.

    Attributes:
        title: of the page.
        headline: the one sentence to remember, or a few.
        facts: what was run, a few words each.
        paragraphs: what was done.
        cells: tables of results.
        charts: by the section that they stand in: 'Results', 'How sure', 'What it costs', 'Failures', 'Training'.
        videos: groups of videos to be compared.
        failures: how episodes failed, with `failure_videos` of some.
        settings: what decides the run; may be nested.
        command: what to run to get this page again.
        next_steps: a sentence each.
    """

    title: str
    headline: str | Sequence[str]
    facts: Mapping[str, str] = field(default_factory=dict)
    paragraphs: Sequence[str] = ()
    cells: Sequence[Cell] = ()
    charts: Mapping[str, Sequence[Chart]] = field(default_factory=dict)
    videos: Sequence[VideoGroup] = ()
    failures: Sequence[Failures] = ()
    failure_videos: Sequence[VideoGroup] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    next_steps: Sequence[str] = ()


def write(path: Path, report: Report) -> None:
    """Writes the page; it appears whole or not at all.

    Raises:
        QuickstudyError: a video or a replay cannot be read, or the disk refuses.
    """
    files.write(Path(path), render(report))


def render(report: Report) -> str:
    """The page as HTML.

    Raises:
        QuickstudyError: a video or a replay cannot be read.
    """
    scenes: dict[str, str] = {}
    return _templates().get_template("page.html").render(
        report=report,
        headlines=[report.headline] if isinstance(report.headline, str) else report.headline,
        charts={section: [(chart, asdict(chart)) for chart in some] for section, some in report.charts.items() if some},
        tables=[table(cell) for cell in report.cells],
        videos=[_group(group, scenes) for group in report.videos],
        failure_videos=[_group(group, scenes) for group in report.failure_videos],
        scenes=scenes,
        settings=flat(report.settings),
        scripted=bool(report.videos or report.cells or report.charts),
    )  # fmt: skip


@functools.cache
def _templates() -> jinja2.Environment:
    folder = importlib.resources.files("quickstudy.report")
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("quickstudy.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False}
    templates.filters.update(code=_code, interval=_interval)
    templates.globals.update(
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        script=Markup((folder / "report.js").read_text(encoding="utf-8")),
        viewer=lambda: _base64(replay.viewer().encode()),
        spoken=_spoken,
    )
    return templates


# ---- parts of the page


def _code(text: str) -> Markup:
    """Escaped text, with `backticks` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _interval(text: str) -> Markup:
    """Sets an interval apart from its value and keeps it in one piece."""
    value, bracket, bounds = text.partition(" [")
    return escape(value) + (Markup(' <span class="interval">[{}</span>').format(bounds) if bracket else "")


def _spoken(chart: Chart, most: int = 12) -> str:
    """Each series in words, for who cannot see it: its last figure."""
    show = (lambda y: f"{100 * y:.0f} %") if chart.percent else (lambda y: f"{y:.3g}")
    return "; ".join(f"{series.name} {show(series.y[-1])}" for series in chart.series[:most] if series.y)


def _group(group: VideoGroup, scenes: dict[str, str]) -> dict[str, Any]:
    """What the template needs of a group; its recorded scenes go into `scenes`, by the name that a button has."""
    replays = []
    for one in group.replays:
        try:
            name, scene = f"scene-{len(scenes) + 1}", one.path.read_bytes()
        except OSError as error:
            raise QuickstudyError(f"'{one.path}' is not a readable replay ({error}).") from error
        scenes[name] = _base64(scene)
        replays.append((name, one.caption))
    return {"title": group.title, "videos": [_video(video) for video in group.videos], "replays": replays}


def _video(video: Video) -> dict[str, Any]:
    try:
        content = video.path.read_bytes()
        poster, width, height = _first_frame(content)
    except (OSError, av.FFmpegError, StopIteration, IndexError) as error:
        raise QuickstudyError(f"'{video.path}' is not a readable video ({error}).") from error
    return {
        "alt": video.alt,
        "caption": video.caption,
        "width": width,
        "height": height,
        "poster": f"data:image/jpeg;base64,{_base64(poster)}",
        "source": f"data:video/mp4;base64,{_base64(content)}",
    }


def _first_frame(content: bytes) -> tuple[bytes, int, int]:
    """The first frame as JPEG, for browsers that show nothing before play, and its size."""
    with av.open(io.BytesIO(content), "r") as file:
        frame = next(file.decode(video=0))
    buffer = io.BytesIO()
    Image.fromarray(frame.to_ndarray(format="rgb24")).save(buffer, "jpeg", quality=80)
    return buffer.getvalue(), frame.width, frame.height


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
