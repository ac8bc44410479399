"""One self-contained HTML page about a run: nothing is fetched, so it can be sent, kept and opened years later."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import av
from PIL import Image

from quickstudy import files
from quickstudy.errors import QuickstudyError
from quickstudy.results import BASELINES, Cell, measured, table

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figure:
    """A picture: SVG (such as `quickstudy.plots` makes) or PNG, with a caption, and words for who cannot see it."""

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
class VideoGroup:
    """Videos to be compared, such as one task before and after adaptation; they stand side by side."""

    title: str
    videos: Sequence[Video]


@dataclass(frozen=True)
class Report:
    """What a page says. In every text, words between `backticks` are set as code; all else is plain text.

    Attributes:
        title: of the page.
        headline: the one sentence to remember.
        paragraphs: what was done.
        cells: tables of results.
        figures: plots and pictures.
        videos: groups of videos to be compared.
        settings: what decides the run; may be nested.
        command: what to run to get this page again.
        next_steps: a sentence each.
    """

    title: str
    headline: str
    paragraphs: Sequence[str] = ()
    cells: Sequence[Cell] = ()
    figures: Sequence[Figure] = ()
    videos: Sequence[VideoGroup] = ()
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
    sections = [
        _section("Results", [_cell(cell) for cell in report.cells]),
        _section("Before and after", [_video_group(group) for group in report.videos]),
        _section("Curves", [_figures(report.figures)] if report.figures else []),
        _section("Again", [f"<pre><code>{escape(report.command)}</code></pre>"] if report.command else []),
        _section("Next", [_list(report.next_steps)] if report.next_steps else []),
        _settings(report.settings),
    ]
    paragraphs = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in report.paragraphs)
    return _PAGE.format(
        title=escape(report.title),
        headline=_text(report.headline),
        style=_STYLE,
        body=paragraphs + "".join(sections),
        script=_SCRIPT if report.videos else "",
    )


# ---- parts of the page


def _section(title: str, parts: Sequence[str]) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>" if parts else ""


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
        f'<div class="table" role="region" aria-label="{escape(cell.cell)}" tabindex="0"><table>'
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


def _video_group(group: VideoGroup) -> str:
    button = '<button type="button" hidden>Play together</button>' if len(group.videos) > 1 else ""
    videos = "".join(map(_video, group.videos))
    return f'<div class="group"><h3>{_text(group.title)}</h3><div class="videos">{videos}</div>{button}</div>'


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


_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c1e21; --quiet: #5b626a; --rule: #d3d7db; --soft: #f4f5f6;
  --accent: #1a5f99; }
@media (prefers-color-scheme: dark) { :root { --page: #15181b; --ink: #e4e6e8; --quiet: #a4abb3; --rule: #3b4148;
  --soft: #20242a; --accent: #8cc3f2; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.55;
  font: 1.0625rem/1.55 Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif; }
main { max-width: 62rem; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2.5rem) 4rem; }
h1 { font-size: clamp(1.7rem, 1.2rem + 2vw, 2.5rem); line-height: 1.15; margin: 0 0 .8rem; font-weight: 600;
  text-wrap: balance; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 1rem; font-weight: 600; }
h3 { font-size: 1.05rem; margin: 0 0 .6rem; font-weight: 600; }
.headline { font-size: 1.25rem; line-height: 1.45; color: var(--quiet); margin: 0 0 2rem; max-width: 44rem;
  text-wrap: pretty; }
p, li { max-width: 44rem; text-wrap: pretty; }
section, details { margin-top: 2.75rem; padding-top: 1.5rem; border-top: 1px solid var(--rule); }
table, figcaption, .small, button { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.table { overflow-x: auto; margin: 1.25rem 0 .6rem; }
.table + .small { margin: 0 0 2.25rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: min(100%, 30rem);
  border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink); }
caption { caption-side: top; text-align: left; padding: 0 0 .6rem; max-width: min(46rem, 100vw - 2rem);
  line-height: 1.45; }
caption strong { margin-right: .35em; }
thead th { border-bottom: 1px solid var(--ink); vertical-align: bottom; font-weight: 600; line-height: 1.3; }
th, td { text-align: left; padding: .36rem 1.4rem .36rem 0; vertical-align: baseline; }
td:not(.number) { min-width: 9rem; }
th:last-child, td:last-child { padding-right: 0; }
tbody th { font-weight: 500; white-space: nowrap; }
caption, tbody th, thead th:first-child { position: sticky; left: 0; background: var(--page); }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; min-width: 5.5rem; }
.interval, .baseline th, .baseline td, .small, figcaption { color: var(--quiet); }
.interval { font-size: .85em; }
.settings td { overflow-wrap: anywhere; min-width: 8rem; }
.settings th { color: var(--quiet); font-weight: 400; }
.small, figcaption { font-size: .85rem; line-height: 1.45; }
figure { margin: 0; }
figcaption { margin-top: .5rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 2rem 2.5rem;
  align-items: start; }
.figures svg { width: 100%; height: auto; max-width: 34rem; display: block; color: var(--ink); }
img { max-width: 100%; height: auto; border-radius: 4px; }
.group + .group { margin-top: 2.25rem; }
.videos { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1.25rem; }
video { width: 100%; height: auto; display: block; background: #000; border-radius: 4px; }
button { margin-top: .9rem; font-size: .9rem; padding: .45rem .9rem; border: 1px solid var(--rule); border-radius: 6px;
  background: var(--soft); color: inherit; cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
code { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--soft);
  padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; margin: 0; }
pre code { padding: 0; background: none; overflow-wrap: normal; }
summary { cursor: pointer; }
summary h2 { display: inline; }
li + li { margin-top: .3rem; }
@media print { details > * { display: block; } button { display: none; } }
"""

_SCRIPT = """<script>
for (const group of document.querySelectorAll(".group")) {
  const button = group.querySelector("button");
  if (!button) continue;
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const video of group.querySelectorAll("video")) { video.currentTime = 0; video.play(); }
  });
}
</script>"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1><p class="headline">{headline}</p></header>
{body}
</main>
{script}
</body>
</html>
"""
