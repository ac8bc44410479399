"""One self-contained HTML page about a run: nothing is fetched, so it can be sent, kept and opened years later.

Its charts come as data and are drawn by report.js to the width of the screen. 3D replays come as viser's viewer, once,
and a recorded scene each. The page's own policy forbids every request, the viewer's too.
"""

import base64
import importlib.resources
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import av
from PIL import Image

from quickstudy.errors import QuickstudyError
from quickstudy.io import files
from quickstudy.report.charts import Chart
from quickstudy.results.evidence import BASELINES, Cell, measured, table
from quickstudy.simulation import replay

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figure:
    """A picture: SVG (such as `quickstudy.report.plots` makes) or PNG, with a caption, and words for who cannot see it."""

    image: bytes
    caption: str
    alt: str


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
        figures: plots and pictures.
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
    figures: Sequence[Figure] = ()
    videos: Sequence[VideoGroup] = ()
    failures: Sequence[Failures] = ()
    failure_videos: Sequence[VideoGroup] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    next_steps: Sequence[str] = ()


def write(path: Path, report: Report) -> None:
    """Writes the page; it appears whole or not at all.

    Raises:
        QuickstudyError: a picture is neither SVG nor PNG, a video cannot be read, or the disk refuses.
    """
    files.write(Path(path), render(report))


def render(report: Report) -> str:
    """The page as HTML."""
    charts = {section: _charts(some) for section, some in report.charts.items() if some}
    scenes = _Scenes()
    failures = [_failures(one) for one in report.failures]
    film = [f'<div class="small-films">{"".join(_video_group(g, scenes) for g in report.failure_videos)}</div>']
    sections = [
        _section("Results", [*_part(charts, "Results"), *(_cell(cell) for cell in report.cells)]),
        _section("Before and after", [_video_group(group, scenes) for group in report.videos]),
        _section("How sure", _part(charts, "How sure")),
        _section("What it costs", _part(charts, "What it costs")),
        _section("Failures", [*_part(charts, "Failures"), *failures, *(film if report.failure_videos else [])]),
        _section("Training", _part(charts, "Training")),
        _section("Curves", [_figures(report.figures)] if report.figures else []),
        _section("Again", [f'<pre tabindex="0"><code>{escape(report.command)}</code></pre>'] if report.command else []),
        _section("Next", [_list(report.next_steps)] if report.next_steps else []),
        _settings(report.settings),
    ]
    paragraphs = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in report.paragraphs)
    sentences = [report.headline] if isinstance(report.headline, str) else report.headline
    resources = importlib.resources.files("quickstudy")
    script = f"<script>{(resources / 'report.js').read_text(encoding='utf-8')}</script>"
    return _PAGE.format(
        title=escape(report.title),
        headline="".join(f'<p class="headline">{_text(sentence)}</p>' for sentence in sentences),
        facts=_facts(report.facts),
        style=(resources / "report.css").read_text(encoding="utf-8"),
        body=paragraphs + "".join(sections),
        script=scenes.embedded() + (script if report.videos or report.cells or report.charts else ""),
    )


# ---- parts of the page


def _section(title: str, parts: Sequence[str]) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>" if parts else ""


def _part(charts: Mapping[str, str], section: str) -> list[str]:
    return [charts[section]] if section in charts else []


_LONG, _WIDE = 120, ' class="wide"'
"""Letters of a fact that has a line of its own."""


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    pairs = "".join(
        f"<div{_WIDE if len(value) > _LONG else ''}><dt>{escape(name)}</dt><dd>{_text(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{pairs}</dl>'


def _charts(charts: Sequence[Chart]) -> str:
    return f'<div class="charts">{"".join(map(_chart, charts))}</div>'


def _chart(chart: Chart) -> str:
    """The chart's data, and empty places for what report.js makes of it."""
    # "<" as an escape, because no text within may end the element.
    data = json.dumps(asdict(chart), allow_nan=False).replace("<", "\\u003c")
    said = f"{chart.title}. Arrow keys go from point to point. " + "; ".join(_spoken(chart))
    return (
        f'<figure class="chart" data-alt="{escape(said)}"><h3>{escape(chart.title)}</h3>'
        '<div class="legend" role="group" aria-label="Shown in the chart"></div>'
        '<div class="canvas"><div class="drawing"></div><div class="tip" role="status" hidden></div></div>'
        "<noscript><p>Charts are drawn by a script; the tables hold their figures.</p></noscript>"
        f"<figcaption>{_text(chart.caption)}</figcaption>"
        f'<script type="application/json">{data}</script></figure>'
    )


def _spoken(chart: Chart, most: int = 12) -> list[str]:
    """Each series in words, for who cannot see it: its last figure."""
    show = (lambda y: f"{100 * y:.0f} %") if chart.percent else (lambda y: f"{y:.3g}")
    return [f"{series.name} {show(series.y[-1])}" for series in chart.series[:most] if series.y]


def _failures(failures: Failures) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(kind)}</th><td{_NUMBER}>{count}</td><td>{escape("; ".join(tasks))}</td></tr>'
        for kind, count, tasks in failures.kinds
    )
    return (
        f'<div class="table" role="region" aria-label="{escape(failures.title)}" tabindex="0"><table>'
        f"<caption><strong>{escape(failures.title)}</strong></caption>"
        f'<thead><tr><th scope="col">how</th><th scope="col"{_NUMBER}>episodes</th><th scope="col">among them</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


class _Scenes:
    """The scenes that a page holds, under the names that its buttons know them by."""

    def __init__(self) -> None:
        self._scenes: list[bytes] = []

    def add(self, path: Path) -> str:
        try:
            self._scenes.append(Path(path).read_bytes())
        except OSError as error:
            raise QuickstudyError(f"'{path}' is not a readable replay ({error}).") from error
        return f"scene-{len(self._scenes)}"

    def embedded(self) -> str:
        if not self._scenes:
            return ""
        parts = {"viewer": replay.viewer().encode()} | {f"scene-{i + 1}": one for i, one in enumerate(self._scenes)}
        return "".join(
            f'<script type="text/plain" id="{name}">{base64.b64encode(content).decode()}</script>\n'
            for name, content in parts.items()
        )


def _cell(cell: Cell) -> str:
    made = table(cell)
    last = len(made.headers) - 1
    words = [place < made.labels or (made.notes and place == last) for place in range(last + 1)]
    label = made.headers.index("method")
    heads = "".join(
        f'<th scope="col"{"" if word else _NUMBER}>{escape(header)}</th>'
        for header, word in zip(made.headers, words, strict=True)
    )
    lines = []
    for row in made.rows:
        parts = [
            f'<th scope="row">{escape(part)}</th>'
            if place == label
            else f"<td{'' if words[place] else _NUMBER}>{_interval(part)}</td>"
            for place, part in enumerate(row)
        ]
        kind = ' class="baseline"' if row[label] in BASELINES else ""
        lines.append(f"<tr{kind}>{''.join(parts)}</tr>")
    return (
        f'<div class="table" role="region" aria-label="{escape(cell.cell)}" tabindex="0"><table class="sortable">'
        f"<caption><strong>{escape(cell.cell)}</strong> {_text(cell.protocol)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="small">Square brackets hold 95 % confidence intervals; grey rows are there to be compared with. '
        f"{escape(measured(cell))}</p>"
    )


_NUMBER = ' class="number"'


def _interval(text: str) -> str:
    """Sets an interval apart from its value and keeps it in one piece."""
    value, bracket, bounds = text.partition(" [")
    return escape(value) + (f' <span class="interval">[{escape(bounds)}</span>' if bracket else "")


def _figures(figures: Sequence[Figure]) -> str:
    return f'<div class="figures">{"".join(map(_figure, figures))}</div>'


def _figure(figure: Figure) -> str:
    alt = escape(figure.alt)
    if figure.image.startswith(_PNG):
        shown = f'<img src="{_data(figure.image, "image/png")}" alt="{alt}">'
    else:
        start = figure.image.find(b"<svg")
        if start < 0 or not figure.image.rstrip().endswith(b"</svg>"):
            raise QuickstudyError(f"A report's pictures are SVG or PNG; '{figure.caption}' is neither.")
        # Inline, so that its lines take the colour of the text; scripts in it do not run (see the page's policy).
        svg = figure.image[start:].decode()
        shown = f'<div role="img" aria-label="{alt}">{svg.replace("<svg ", _HIDDEN, 1)}</div>'
    return f"<figure>{shown}<figcaption>{_text(figure.caption)}</figcaption></figure>"


_HIDDEN = '<svg aria-hidden="true" focusable="false" '


def _video_group(group: VideoGroup, scenes: _Scenes) -> str:
    button = '<button type="button" class="together" hidden>Play together</button>' if len(group.videos) > 1 else ""
    videos = "".join(map(_video, group.videos))
    replays = "".join(_replay(one, scenes) for one in group.replays)
    stages = f'<div class="videos stages">{replays}</div>' if replays else ""
    return f'<div class="group"><h3>{_text(group.title)}</h3><div class="videos">{videos}</div>{button}{stages}</div>'


def _replay(one: Replay, scenes: _Scenes) -> str:
    name, caption = scenes.add(one.path), escape(one.caption)
    return (
        f'<figure><div class="stage"><button type="button" class="replay" data-scene="{name}" hidden '
        f'data-title="3D replay: {caption}">Turn and play in 3D<span class="hidden">: {caption}</span></button></div>'
        f"<figcaption>{_text(one.caption)}, in 3D: drag to turn, scroll to come closer</figcaption></figure>"
    )


def _video(video: Video) -> str:
    try:
        content = Path(video.path).read_bytes()
        poster, width, height = _first_frame(content)
    except (OSError, av.FFmpegError, StopIteration, IndexError) as error:
        raise QuickstudyError(f"'{video.path}' is not a readable video ({error}).") from error
    return (
        f'<figure><video controls muted loop playsinline preload="metadata" width="{width}" height="{height}" '
        f'aria-label="{escape(video.alt)}" poster="{_data(poster, "image/jpeg")}" '
        f'src="{_data(content, "video/mp4")}"></video><figcaption>{_text(video.caption)}</figcaption></figure>'
    )


def _first_frame(content: bytes) -> tuple[bytes, int, int]:
    """The first frame as JPEG, for browsers that show nothing before play, and its size."""
    with av.open(io.BytesIO(content), "r") as file:
        frame = next(file.decode(video=0))
    buffer = io.BytesIO()
    Image.fromarray(frame.to_ndarray(format="rgb24")).save(buffer, "jpeg", quality=80)
    return buffer.getvalue(), frame.width, frame.height


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(sentence)}</li>' for sentence in sentences)}</ul>"


def _settings(settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in _flat(settings)
    )
    return (
        "<details><summary><h2>Settings</h2></summary>"
        f'<div class="table" role="region" aria-label="Settings" tabindex="0"><table class="settings"><tbody>{rows}'
        "</tbody></table></div></details>"
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and texts."""
    pairs = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            pairs.append((f"{prefix}{name}", shown))
    return pairs


def _text(text: str) -> str:
    """Escaped text, with `backticks` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; media-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob: data:; \
worker-src blob: data:; connect-src blob: data:; font-src data:; frame-src 'self' blob: data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>{headline}{facts}</header>
{body}
</main>
{script}
</body>
</html>
"""
